"""The pages in a real browser, at the width of a desk and of phones, in light and in dark."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from html import escape, unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ttcompress.model.report import Report
from ttcompress.reporting.html import batch_page, report_page
from ttcompress.reporting.html.palette import PALETTE
from ttcompress.results.batch import BatchResult

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = find_spec("axe_playwright_python")  # of the extra dev; only its copy of axe-core is used
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --enable-logging=stderr "
    "--disable-background-networking --disable-component-update --disable-sync"
)
WIDTHS = (1280, 390, 360)
PROBE = """<!doctype html><meta charset="utf-8"><body>%s<script>
onload = async () => {
  const frames = [...document.querySelectorAll("iframe")];
  const found = await Promise.all(frames.map(async frame => {
    const page = frame.contentDocument, root = page.documentElement;
    %s
  }));
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
};
</script>"""
LOOK = """
    const sizes = [...root.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
    const hidden = [...root.querySelectorAll(".scroll, pre")].filter(
      one => one.scrollWidth > one.clientWidth + 1);
    return {
      width: frame.contentWindow.innerWidth, needed: root.scrollWidth,
      pictures: sizes.filter(size => size.width > 200 && size.height > 30).length,
      hidden: hidden.map(one => one.getAttribute("aria-label")),
      paper: getComputedStyle(root).backgroundColor,
    };"""
SORT = """
    const table = page.querySelector("table.overview"), heads = [...table.tHead.rows[0].cells];
    const texts = column => [...table.tBodies[0].rows].map(
      row => row.cells[column].textContent.trim());
    return ["model", "model", "bytes after", "bytes after", "factor"].map(heading => {
      const column = heads.findIndex(head => head.textContent === heading);
      heads[column].querySelector("button").click();
      return [heads[column].ariaSort, ...texts(column)];
    });"""
AUDIT = """
    const found = await frame.contentWindow.axe.run(page);
    return found.violations.map(one => [one.id, one.nodes[0].html, one.nodes[0].failureSummary]);"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def opened(
    page: str,
    folder: Path,
    *switches: str,
    script: str = LOOK,
    widths: Sequence[int] = WIDTHS,
) -> tuple[Any, list[str]]:
    """What a script finds in the page at each width, and what the browser's console says."""
    frame = '<iframe style="border: 0; width: {}px; height: 800px" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(width, escape(page)) for width in widths)
    probe = folder / "probe.html"
    probe.write_text(PROBE % (frames, script), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    waits = ("--virtual-time-budget=60000",)
    command = [CHROMIUM, *SWITCHES.split(), *waits, *switches, profile, "--dump-dom"]
    done = subprocess.run([*command, probe.as_uri()], capture_output=True, text=True, timeout=180)
    found = json.loads(unescape(done.stdout.split("<pre>")[1].split("</pre>")[0]))
    return found, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def in_scheme(dark: bool) -> str:
    return f"--blink-settings=preferredColorScheme={1 - dark}"


@pytest.fixture(scope="module")
def pages(full_report: Report, hostile_report: Report, batch: BatchResult) -> dict[str, str]:
    files = [("a", full_report, 4800), ("n" * 90, hostile_report, 3000)]
    return {
        "report": report_page(files[:1]),
        "reports": report_page(files),
        "batch": batch_page(batch, [(full_report, 4800), (hostile_report, 998), None]),
    }


@pytest.mark.parametrize(("name", "scheme"), [("reports", "light"), ("batch", "dark")])
def test_a_page_fits_and_shows_its_pictures(name, scheme, pages, tmp_path) -> None:
    page, dark = pages[name], scheme == "dark"
    found, console = opened(page, tmp_path, in_scheme(dark))
    assert console == []
    assert [one["width"] for one in found] == list(WIDTHS)
    paper = tuple(bytes.fromhex(PALETTE["paper"][dark][1:]))
    for one in found:
        assert one["needed"] <= one["width"]
        assert one["hidden"] == []
        assert one["pictures"] == page.count("<svg") == 13
        assert one["paper"] == f"rgb{paper}"


def test_a_click_on_a_heading_sorts(pages, tmp_path) -> None:
    found, console = opened(pages["batch"], tmp_path, script=SORT, widths=(1280,))
    assert console == []
    assert found[0] == [
        ["ascending", "a", "b", "c"],
        ["descending", "c", "b", "a"],
        ["ascending", "998", "4,800", "-"],
        ["descending", "4,800", "998", "-"],
        ["ascending", "8.01", "12.30", "-"],
    ]


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed: it is in the extra dev")
@pytest.mark.parametrize(
    ("name", "scheme", "width"), [("report", "light", 1280), ("batch", "dark", 390)]
)
def test_axe_finds_nothing(name, scheme, width, pages, tmp_path) -> None:
    assert audit(pages[name], tmp_path, width, scheme == "dark") == []


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed: it is in the extra dev")
def test_axe_would_find_something(pages, tmp_path) -> None:
    faint = pages["report"].replace("color: var(--muted)", "color: var(--line)")
    worse = faint.replace("<h1", "<h4").replace("</h1>", "</h4>")
    found = {rule for rule, *_ in audit(worse, tmp_path, 1280, dark=False)}
    assert {"color-contrast", "page-has-heading-one"} <= found


def audit(page: str, folder: Path, width: int, dark: bool) -> list[list[str]]:
    """What axe-core objects to, with every explanation unfolded."""
    assert AXE is not None and AXE.origin is not None
    axe = Path(AXE.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    policy, unfolded = "<meta http-equiv", page.replace("<details>", "<details open>")
    allowed = unfolded.replace(policy, f"<script>{axe}</script><meta data-policy", 1)
    (found,), _ = opened(allowed, folder, in_scheme(dark), script=AUDIT, widths=(width,))
    return found


def test_the_browser_would_tell(tmp_path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    wide = f"<html><head>{policy}</head><body><img src='https://a.invalid/b.png'><pre>{'w' * 400}"
    found, console = opened(wide, tmp_path)
    assert all(one["needed"] > one["width"] for one in found)
    assert [one["pictures"] for one in found] == [0, 0, 0]
    assert all(one["hidden"] for one in found)
    assert "Content Security Policy" in console[0]
