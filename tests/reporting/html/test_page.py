"""The page by what stands in it: every figure, nothing hostile, the same bytes every time."""

from __future__ import annotations

import importlib.util
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser

import matplotlib
import pytest

from ttcompress.errors import MissingExtraError
from ttcompress.model.report import OPTIMIZER, CutSpectrum, LeftOut
from ttcompress.reporting.bench import bench_remarks
from ttcompress.reporting.conclusion import NOT_MEASURED
from ttcompress.reporting.html import batch_page, pictures, report_page
from ttcompress.reporting.html.glossary import MEANINGS
from ttcompress.reporting.html.palette import PALETTE
from ttcompress.reporting.numbers import bytes_text


class Elements(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(page: str) -> str:
    return " ".join(Elements(page).text.split())


@pytest.fixture(scope="module")
def page(full_report) -> str:
    return report_page([("small.safetensors", full_report, 4800)])


@pytest.mark.parametrize(
    "said",
    [
        "file 4.8 kB 1.25x smaller than 6 kB",
        "perplexity 5 4 before, drop 1 (25.00%)",
        "multiply-adds 2.00x fewer 1,256 → 628, whole model",
        "largest error 0.2500 lstm.weight_hh_l0",
        "limits BROKEN max_size",
        "factor: 8.00 (budget: 7.5)",
        "lstm.weight_hh_l0 0.2500 0.1000 0.2000 0.3000 0.4000",
        "lstm 0.0200 0.0500 0.0625",
        "other 0.0100 0.0200 -",
        "lstm 8 torch dense 1.500 1.000 2.000 0.75x 99",
        "1.2x smaller, 2.0x slower to 1.2x faster here, perplexity up 25.00%; max_size BROKEN",
        "Next: make max_size, which is broken, the budget ttcompress decompose MODEL",
        "max_size 4,000 4,800 BROKEN",
        "drift 0.0625 lstm, step 100",
        "1.3x SLOWER",
        "original, trained as long better is perplexity 4 5 1 3.5 lower",
        "head.bias 60 240 not a weight",
        "# mine version: 1",
        "In effect: budget: factor: 7.5",
        f"sha256{'ab' * 32}",
        "ttcompress 0.1.0",
        "12 steps on charlm",
        "positions 840",
        "mps and dense under factor 7.5",
    ],
)
def test_everything_is_said(page: str, said: str) -> None:
    assert said in words(page)


def test_every_picture_is_there_and_says_what_it_is(page: str) -> None:
    labels = [picture["aria-label"] for picture in Elements(page).of("svg")]
    assert labels == [
        "Bytes of each weight before and after",
        "Relative error of each weight and gate",
        "Drift over the steps",
        "Singular values of lstm.weight_hh_l0, cut 1 of 2, rank 4, 5.1 bits a value",
        "Singular values of lstm.weight_hh_l0, cut 2 of 2, rank 5, 5.1 bits a value",
        "Milliseconds of lstm by batch size",
    ]
    assert page.count("<title>") == len(labels) + 1


def test_the_cut_is_drawn_where_it_is(page: str) -> None:
    """After value 5 of 8, which stands at 1 on the left and at 8 on the right of 292 pixels."""
    second = page.split("cut 2 of 2, rank 5, 5.1 bits a value")[-1].split("</svg>")[0]
    [x] = {
        float(x)
        for x, y in re.findall(r'd="M ([\d.]+) 136\s+L \1 (10)\s+"', second)
        if float(x) > 38
    }
    assert x == pytest.approx(38 + (5.5 - 1) / 7 * 292, abs=0.01)


def test_what_nobody_measured_is_not_shown(full_report) -> None:
    bare = replace(
        full_report,
        metrics=None,
        control=None,
        bench=None,
        drift={},
        weights=(),
        kept=(),
        limits=(),
    )
    said = words(report_page([("bare", bare, 4800)]))
    assert NOT_MEASURED in said
    assert "accuracy not measured add --task" in said
    assert "ttcompress evaluate bare --task TASK" in said
    for heading in ("Latency", "Hidden-state drift", "Spectra", "by gate", "limits", "Kept"):
        assert heading not in said


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    found = Elements(page)
    assert not [tag for tag, _ in found.tags if tag in ("script", "link", "img", "iframe")]
    addresses = [value for _, a in found.tags for key, value in a.items() if "href" in key]
    assert all(address and address.startswith("#") for address in addresses)
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert "default-src 'none'" in page


def test_hostile_names_are_text(hostile_report) -> None:
    page = report_page([("<i>file</i>", hostile_report, 4800), ("b", hostile_report, 1)])
    tags = {tag for tag, _ in Elements(page).tags}
    assert not tags & {"b", "i"}
    assert len(Elements(page).of("script")) == 1
    assert "<i>file</i>" in Elements(page).text
    assert '<script>alert("x")</script>' in unescape(page)


def test_several_files_are_set_side_by_side_first(full_report) -> None:
    other = replace(full_report, limits=(), metrics=None)
    page = report_page([("a", full_report, 4800), ("b", other, 3000)])
    said = words(page)
    assert "a mps dense 4,800 1.25x 8.00x 4.00x 0.2500 0.0625 perplexity 5 BROKEN" in said
    assert "b mps dense 3,000 2.00x 8.00x 4.00x 0.2500 0.0625 - -" in said
    anchors = {article["id"] for article in Elements(page).of("article")}
    links = {link["href"] for link in Elements(page).of("a")}
    assert links == {"#top"} | {f"#{name}" for name in anchors}


def test_a_batch_is_a_line_a_job_and_its_report(full_report, batch) -> None:
    page = batch_page(batch, [(full_report, 4800), (full_report, 998), None])
    said, elements = words(page), Elements(page)
    assert "3 jobs in 3.2 s: 1 done, 1 failed, 1 limit broken" in said
    assert "b small 6,000 4,800 8.01 perplexity 4 5 BROKEN max_size 1.5 limit broken" in said
    assert [link["href"] for link in elements.of("a")[:2]] == ["#model-1", "#model-2"]
    assert [article["id"] for article in elements.of("article")] == ["model-1", "model-2"]
    assert "c small - - - - - - - 0.0 failed" in said
    assert "<code>lstm.weight</code> of c.pt is &lt;b&gt;out of reach" in page
    assert page.count('class="right bad"') == 0 and page.count('class="bad"') >= 3


def test_only_the_script_that_sorts_may_run(full_report, batch) -> None:
    page = batch_page(batch, [None, None, None])
    text = page.partition("<script>")[2].partition("</script>")[0]
    digest = b64encode(sha256(text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in unescape(page)


def test_no_backtick_is_shown(full_report) -> None:
    left_out = (LeftOut("optimizer", 2, 64, OPTIMIZER),)
    page = report_page([("a", replace(full_report, notes=("use `--key x`",)), 4800)])
    assert "<li>use <code>--key x</code></li>" in page
    page = report_page([("a", replace(full_report, left_out=left_out), 4800)])
    assert "`" not in page


def test_bullets_do_not_repeat_tiles_and_tables(full_report) -> None:
    page = report_page([("a", full_report, 4800)])
    bullets = re.findall(r"<li>(.*)</li>", page)
    assert bullets[:2] == ["factor: 8.00 (budget: 7.5)", "a note"]
    assert len(bullets) == 2 + len(bench_remarks(full_report.bench))


def test_every_word_of_the_glossary_is_on_a_page(full_report, weight, batch) -> None:
    """A word that no page has would never be explained."""
    gru = replace(full_report, weights=(replace(weight, gate_errors=(0.1, 0.2, 0.3)),))
    pages = report_page([("a", full_report, 1), ("b", gru, 1)]), batch_page(batch, [None] * 3)
    texts = "".join(re.sub(r"<dl>.*?</dl>", "", page, flags=re.DOTALL) for page in pages)
    assert [word for word in MEANINGS if f">{word}<" not in texts] == []
    assert all(f"<dt>{word}</dt><dd>" in pages[0] + pages[1] for word in MEANINGS)


def test_the_same_report_is_the_same_page_under_any_settings(page: str, full_report) -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.hashsalt": "other"}):
        assert report_page([("small.safetensors", full_report, 4800)]) == page


def test_an_infinite_error_is_drawn_at_the_end(full_report, weight) -> None:
    zero_gate = replace(weight, gate_errors=(0.1, float("inf"), 0.1, 0.1))
    page = report_page([("a", replace(full_report, weights=(zero_gate,)), 4800)])
    assert "0.1000 inf 0.1000" in words(page)
    assert "nan" not in page.lower().replace("provenance", "")


@pytest.mark.parametrize("values", [(2.0,), (0.0, 0.0), (1.0, 0.5)])
def test_the_smallest_spectra_are_drawn(values: tuple[float, ...]) -> None:
    cut = CutSpectrum(tuple(range(len(values))), values, 1)
    assert "rank 1" in pictures.spectrum("a title", cut, 3.5)


def test_no_drift_and_an_endless_one_are_drawn() -> None:
    for value in (0.0, float("inf")):
        assert ">lstm<" not in pictures.drift("a title", {"lstm": {"1": value}})
    assert ">lstm<" in pictures.drift("a title", {"lstm": {"1": 0.0}, "gru": {"1": 0.0}})


def test_colours_of_a_picture_are_the_pages(page: str) -> None:
    """A rule of the style sheet stands for every colour that a picture is drawn in."""
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    names = {colours[0]: name for name, colours in PALETTE.items()}
    used = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})\b", drawn))
    assert ("fill", PALETTE["after"][0]) in used
    assert {colour for _, colour in used} == set(re.findall(r"#[0-9a-f]{6}\b", drawn))
    for part, colour in used:
        rule = f'[style*="{part}: {colour}"] {{ {part}: var(--{names[colour]}) !important; }}'
        assert rule in page


def luminance(colour: str) -> float:
    channels = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["muted", "ink", "after", "alarm", "second", "third", "fourth"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
def test_text_can_be_read_in_both_schemes(name: str, ground: str, scheme: int) -> None:
    """4.5 to 1 is what WCAG 2 asks of text."""
    pair = (luminance(PALETTE[name][scheme]), luminance(PALETTE[ground][scheme]))
    assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5


def test_without_the_extra_its_name_is_told(full_report, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "ttcompress.system.extras.find_spec",
        lambda name: None if name == "matplotlib" else found(name),
    )
    with pytest.raises(MissingExtraError, match=r"HTML needs matplotlib, .*ttcompress\[plots\]"):
        report_page([("a", full_report, 4800)])


def test_bytes_have_three_digits() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 12_345, 999_999, 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "12.3 kB",
        "1 MB",
        "1 TB",
    ]
