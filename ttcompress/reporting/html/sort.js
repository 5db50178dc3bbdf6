// Makes the headings of the overview sort it: numbers by value, text by letters, a dash last.
for (const table of document.querySelectorAll("table.overview")) {
  table.classList.add("sortable");
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach(one => { one.ariaSort = null; });
      head.ariaSort = sign > 0 ? "ascending" : "descending";
      const key = row => row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [a, b].map(text => parseFloat(text.replaceAll(",", "")));
        return isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
      };
      const rows = [...body.rows], last = rows.filter(row => key(row) === "-");
      const sorted = rows.filter(row => key(row) !== "-");
      body.append(...sorted.sort((a, b) => sign * compare(key(a), key(b))), ...last);
    };
  });
}
