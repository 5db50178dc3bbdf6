"""`report` in its four notations, on stdout and in a file."""

from __future__ import annotations

import pytest

NOTATIONS = {
    "table": "weight ",
    "json": '{\n  "ttcompress": ',
    "markdown": "# ",
    "html": "<!doctype html>",
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_file_holds_what_stdout_would(run, folder, tiny_artifact, notation: str) -> None:
    shown = run("report", tiny_artifact, "--as", notation)
    assert shown.code == 0
    assert NOTATIONS[notation] in shown.out
    written = run("report", tiny_artifact, "--as", notation, "-o", "report")
    assert (written.code, written.out, written.err) == (0, "", "wrote report\n")
    assert (folder / "report").read_text(encoding="utf-8") == shown.out


def test_several_files_are_one_page(run, folder, tiny_artifact) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(tiny_artifact.read_bytes())
    page = run("report", "--as", "html").out
    assert "<title>2 compressed models</title>" in page
    assert page.count("<article") == 2


def test_a_file_that_exists_stays(run, folder, tiny_artifact) -> None:
    (folder / "report.html").write_text("mine")
    arguments = ("report", tiny_artifact, "--as", "html", "-o", "report.html")
    refused = run(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert "report.html: already exists" in refused.err
    assert (folder / "report.html").read_text() == "mine"
    assert run(*arguments, "--overwrite", "-q").err == ""
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--as", "html", "--json"], "use either --json or --as html, not both"),
        (["--as", "pdf"], "expected one of table, json, markdown, html, got 'pdf'"),
    ],
)
def test_notations_that_are_refused(run, tiny_artifact, options, said) -> None:
    result = run("report", tiny_artifact, *options)
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.split())


def test_without_the_extra_only_html_is_refused(run, folder, tiny_artifact, monkeypatch) -> None:
    monkeypatch.setattr("ttcompress.system.extras.find_spec", lambda name: None)
    result = run("report", tiny_artifact, "--as", "html", "-o", "report.html")
    assert (result.code, result.out) == (2, "")
    assert "pip install 'ttcompress[plots]'" in result.err
    assert not (folder / "report.html").exists()
    for notation in ("table", "json", "markdown"):
        assert run("report", tiny_artifact, "--as", notation).code == 0
