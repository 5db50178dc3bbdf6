"""The page in a real browser, at the width of a desk and of phones, in light and in dark."""

from __future__ import annotations

import json
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from ttcompress.reporting.html import report_page
from ttcompress.reporting.html.palette import PALETTE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --enable-logging=stderr "
    "--disable-background-networking --disable-component-update --disable-sync"
)
WIDTHS = (1280, 390, 360)
PROBE = """<!doctype html><meta charset="utf-8"><body>%s<script>
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const root = frame.contentDocument.documentElement;
    const sizes = [...root.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
    return {
      width: frame.contentWindow.innerWidth, needed: root.scrollWidth,
      pictures: sizes.filter(size => size.width > 200 && size.height > 30).length,
      paper: getComputedStyle(root).backgroundColor,
    };
  });
  document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
};
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def opened(page: str, folder: Path, *switches: str) -> tuple[list[dict], list[str]]:
    """What a browser finds in the page at each width, and what it says on its console."""
    frame = '<iframe style="border: 0; width: {}px; height: 800px" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(width, escape(page)) for width in WIDTHS)
    probe = folder / "probe.html"
    probe.write_text(PROBE % frames, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *SWITCHES.split(), *switches, profile, "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = json.loads(unescape(done.stdout.split("<pre>")[1].split("</pre>")[0]))
    return found, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_shows_its_pictures(
    scheme, full_report, hostile_report, tmp_path
) -> None:
    page = report_page([("a", full_report, 4800), ("n" * 90, hostile_report, 3000)])
    dark = scheme == "dark"
    found, console = opened(page, tmp_path, f"--blink-settings=preferredColorScheme={1 - dark}")
    assert console == []
    assert [one["width"] for one in found] == list(WIDTHS)
    paper = tuple(bytes.fromhex(PALETTE["paper"][dark][1:]))
    for one in found:
        assert one["needed"] <= one["width"]
        assert one["pictures"] == page.count("<svg") == 11
        assert one["paper"] == f"rgb{paper}"


def test_the_browser_would_tell(tmp_path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    wide = f"<html><head>{policy}</head><body><img src='https://a.invalid/b.png'><pre>{'w' * 400}"
    found, console = opened(wide, tmp_path)
    assert all(one["needed"] > one["width"] for one in found)
    assert [one["pictures"] for one in found] == [0, 0, 0]
    assert "Content Security Policy" in console[0]
