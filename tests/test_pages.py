"""Every page's blocks are run, in the order a reader meets them.

What a block is, its first line says: `console` is a session, whose output is compared but for
figures and widths; `python` is executed; `yaml` is a recipe. A name behind the language, as in
`python model.py`, makes the block a file for those after it. `text` takes minutes and is only
checked: its commands have the options that they are given.

`UPDATE_PAGES=1 pytest tests/test_pages.py` writes what commands print now, and the reference of
recipes, into the pages.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

import ttcompress
from ttcompress.cli import app
from ttcompress.recipe import shipped
from ttcompress.recipe.manifest import Manifest
from ttcompress.recipe.reference import markdown
from ttcompress.recipe.schema import Recipe
from ttcompress.stores import Costs
from ttcompress.stores.coded import CODED
from ttcompress.stores.rans import encode
from ttcompress.stores.store import as_grid
from ttcompress.tasks.registry import BUILT_IN, find_task
from ttcompress.workflows.manifest import read_manifest

ROOT = Path(__file__).parents[1]
README, RECIPES, EVIDENCE, TESTS = (
    ROOT / folder / "README.md" for folder in ("", "recipes", "sample_models", "tests")
)
FORMAT = ROOT / "ttcompress" / "artifact" / "FORMAT.md"
DEPLOY = ROOT / "ttcompress" / "targets" / "README.md"
TASKS = ROOT / "ttcompress" / "tasks" / "README.md"
STORIES = ROOT / "ttcompress" / "workflows" / "README.md"
CONTRIBUTING = ROOT / ".github" / "CONTRIBUTING.md"
CHANGELOG = ROOT / ".github" / "CHANGELOG.md"
PAGES = (README, RECIPES, EVIDENCE, TESTS, FORMAT, DEPLOY, TASKS, STORIES, CONTRIBUTING, CHANGELOG)
NOT_RECIPES = ("manifest", "github", "gitlab", "action")
NEEDS = {DEPLOY: "onnxruntime", STORIES: "onnxruntime", README: "matplotlib"}

UPDATE = bool(os.environ.get("UPDATE_PAGES"))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `label` is what stands behind its language, `line` where it is."""

    line: int
    language: str
    label: str
    text: str

    @property
    def is_file(self) -> bool:
        return "." in self.label


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str, label: str | None = None) -> list[Block]:
    return in_text(read(page), language, label)


def in_text(text: str, language: str, label: str | None = None) -> list[Block]:
    found = []
    for fence in re.finditer(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if re.fullmatch(language, fence[1]) and label in (None, fence[2]):
            found.append(Block(text.count("\n", 0, fence.start(3)), *fence.groups()))
    return found


def session(text: str) -> Iterator[tuple[list[str], str, int]]:
    """The commands of a console block, each with the output below it and its exit code."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        program, *arguments = shlex.split(line, comments=True)
        assert program == "ttcompress", line
        code = re.search(r"# exit code (\d+)$", line)
        yield arguments, shown, int(code[1]) if code else 0


def skeleton(text: str) -> list[str]:
    """A session's output without what another machine may say differently: figures and widths."""
    plain = re.sub(r"\d[\d,.]*(e-\d+)?", "0", text)
    return [" ".join(line.split()) for line in plain.splitlines() if line.strip()]


def replay(page: Path, text: str) -> None:
    for arguments, shown, code in session(text):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == code, f"{arguments}: {result.output}"
        if not shown.strip():
            continue
        if UPDATE:
            printed = "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())
            page.write_text(read(page).replace(shown, printed), encoding="utf-8")
        else:
            assert skeleton(shown) == skeleton(result.stdout), arguments


def run_block(page: Path, block: Block, scope: dict[str, Any]) -> None:
    if block.is_file:
        Path(block.label).write_text(block.text, encoding="utf-8")
    if block.language == "console":
        replay(page, block.text)
    elif block.language == "python" and not block.is_file:
        exec(compile("\n" * block.line + block.text, str(page), "exec"), scope)
    elif block.language == "yaml" and block.label not in NOT_RECIPES:
        assert ttcompress.parse_recipe(block.text, page.name)


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a page once, in a folder of its own, and returns the folder and the names in Python."""

    @cache
    def run(page: Path) -> tuple[Path, dict[str, Any]]:
        if page in NEEDS:
            pytest.importorskip(NEEDS[page], reason=f"{page.name} shows what needs an extra")
        folder = tmp_path_factory.mktemp(page.parent.name or "page")
        shutil.copytree(ROOT / "sample_models", folder / "sample_models")
        shutil.copy(ROOT / "LICENSE", folder)
        scope: dict[str, Any] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.syspath_prepend(folder)
            patch.setenv("COLUMNS", "120")
            if page == README:
                replay(page, f"$ ttcompress {first_command()}\n")
            for block in blocks(page, "console|python|yaml"):
                run_block(page, block, scope)
        return folder, scope

    return run


def first_command() -> str:
    """What the README's first block runs once it has installed the program."""
    return re.search(r"\.venv/bin/ttcompress (.*)$", blocks(README, "sh")[0].text, re.M)[1]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in (DEPLOY, STORIES) else ())
        for page in PAGES
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_blocks_of_a_page_run(page: Path, run_page: Any) -> None:
    run_page(page)


def test_python_after_the_first_command_has_the_model(run_page: Any) -> None:
    folder, scope = run_page(README)
    model = ttcompress.load(folder / "charlm.small.safetensors")
    assert all(isinstance(value, torch.Tensor) for value in scope["state_dict"].values())
    assert scope["state_dict"].keys() == model.state_dict().keys()


def test_numpy_alone_reads_the_weight(run_page: Any) -> None:
    folder, scope = run_page(FORMAT)
    name = scope["entry"]["weight"]["name"]
    ours = ttcompress.load(folder / "charlm.mps.safetensors").state_dict()[name].numpy()
    np.testing.assert_allclose(scope["matrix"], ours, atol=1e-6)


def test_numpy_alone_reads_zeros_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    state = torch.nn.LSTM(8, 16).state_dict() | {"emb.weight": torch.randn(20, 8)}
    state["emb.weight"][0] = state["weight_hh_l0"][[3, 40]] = state["weight_hh_l0"][:, 5] = 0.0
    torch.save(state, "model.pt")
    rules = [
        {
            "weights": "weight_hh_l0",
            "row_modes": [8, 8],
            "column_modes": [4, 4],
            "ranks": [3, 5, 3],
        },
        {"weights": "emb.weight", "format": "dense"},
    ]
    recipe = {"version": 1, "format": "mps", "store": "int3", "rules": rules, "default": "keep"}
    ttcompress.compress("model.pt", recipe).save("charlm.mps.safetensors")
    scope: dict[str, Any] = {}
    for reader in blocks(FORMAT, "python"):
        exec(reader.text, scope)
    ours = ttcompress.load("charlm.mps.safetensors").state_dict()
    assert scope["entry"]["weight"]["name"] == "weight_hh_l0"
    np.testing.assert_allclose(scope["matrix"], ours["weight_hh_l0"].numpy(), atol=1e-6)
    assert not scope["matrix"][[3, 40]].any() and not scope["matrix"][:, 5].any()
    table = scope["values"]("emb.weight.dense", (20, 8), "int3")
    np.testing.assert_allclose(table, ours["emb.weight"].numpy(), rtol=1e-6)
    assert not table[0].any()


@pytest.mark.parametrize("largest", [0, 3, 40, 10**9])
def test_numpy_alone_decodes_integers(run_page: Any, largest: int) -> None:
    _, scope = run_page(FORMAT)
    scales = np.geomspace(1 / 3, max(largest / 50, 1 / 3), 50)[:, None]
    codes = np.random.default_rng(0).laplace(0, scales, (50, 700)).round().astype(np.int32)
    codes[7] = 0
    codes[0, 0] = largest
    assert np.array_equal(scope["decode"](encode(codes), 50, 700), codes)


@pytest.mark.parametrize("shape", [(5, 9), (1, 6, 4), (4, 7, 1), (3, 2, 5, 4)], ids=str)
def test_numpy_alone_reads_coded_cores(run_page: Any, shape: tuple[int, ...]) -> None:
    _, scope = run_page(FORMAT)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    grid = as_grid(values)
    costs = Costs(torch.arange(1.0, len(grid) + 1), torch.arange(1.0, grid.shape[1] + 1))
    store = CODED.at(0.3)
    stored = store.encode(values, store.fit(values, costs))
    found = scope["coded_values"](stored.tensors[".coded"].numpy(), shape)
    np.testing.assert_allclose(found, stored.values().numpy(), rtol=1e-6)


@pytest.mark.slow
def test_the_exported_file_streams(run_page: Any) -> None:
    _, scope = run_page(DEPLOY)
    assert len(scope["streamed"]) == 40


def stories() -> dict[str, list[Block]]:
    """The blocks of each story by its heading, without those of what its owner has already."""
    _, *parts = re.split(r"^## ", read(STORIES), flags=re.MULTILINE)
    written = (re.sub(r"<details>.*?</details>", "", part, flags=re.DOTALL) for part in parts)
    return {part.partition("\n")[0]: in_text(part, "python|yaml") for part in written}


def test_the_lines_of_each_story_are_counted() -> None:
    for heading, found in stories().items():
        lines = {True: 0, False: 0}
        for block in found:
            runs = "import onnxruntime" in block.text
            lines[runs] += sum(bool(line.strip()) for line in block.text.splitlines())
        anchor = heading.lower().replace(" ", "-")
        (row,) = re.findall(rf"^\| \[.*\]\(#{anchor}\) \|.*$", read(STORIES), re.MULTILINE)
        counts = [int(count) for count in re.findall(r"(\d+) lines", row)]
        assert counts == [lines[False], lines[True]], heading


@pytest.mark.slow
def test_what_streams_is_what_torch_gives(run_page: Any) -> None:
    folder, scope = run_page(STORIES)
    rows = np.random.default_rng(0).normal(size=(48, 1, 1, 3)).astype(np.float32)
    forecaster = ttcompress.load_into(scope["Forecaster"](), folder / "forecaster.safetensors")
    with torch.no_grad():
        wanted, _ = forecaster.eval()(torch.from_numpy(rows[:, 0]).transpose(0, 1))
    np.testing.assert_allclose(np.concatenate(scope["streamed"], 1), wanted, atol=1e-4)
    monitor = ttcompress.load_into(scope["Saved"](128), folder / "regimes.safetensors")
    x, zeros = scope["monitor"].signals(1, 3)[0][0][None], torch.zeros(1, 128)
    with torch.no_grad():
        wanted = monitor.eval()(x, zeros, zeros)[0].argmax(2)[0]
    assert scope["regimes"] == wanted.tolist() and len(set(scope["regimes"])) > 1
    intents = ttcompress.load_into(scope["intents"].Intents(20_000), folder / "intents.safetensors")
    with torch.no_grad():
        texts = [[100, 7, 9, 101], [5, 101, 6, 8, 100, 2]]
        wanted = [int(intents.eval()(torch.tensor([text])).argmax()) for text in texts]
    assert [int(answer) for answer in scope["answers"]] == wanted
    restored = torch.load(folder / "restored.ckpt")
    assert restored["hyper_parameters"] == {"hidden": 128}
    assert "model.cell.weight_hh" in restored["state_dict"]


@pytest.mark.slow
def test_nothing_of_a_whole_module_is_run(
    run_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_page(STORIES)
    shutil.copy(folder / "intents.pt", tmp_path)
    (tmp_path / "intents.py").write_text("open('executed', 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "intents")
    result = CliRunner().invoke(app, ["decompose", "intents.pt", "-o", "out.safetensors"])
    assert result.exit_code == 0 and not (tmp_path / "executed").exists()
    import intents  # would have been found

    assert (tmp_path / "executed").exists() and intents.__file__ == str(tmp_path / "intents.py")


def every_command() -> Iterator[tuple[Path, list[str]]]:
    for page in PAGES:
        for block in blocks(page, "console|text"):
            yield from ((page, arguments) for arguments, *_ in session(block.text))


def test_commands_that_take_minutes_have_these_options() -> None:
    group = typer.main.get_command(app)
    seen = set()
    for page, (name, *arguments) in every_command():
        context = group.make_context("ttcompress", [name])
        _, command, _ = group.resolve_command(context, [name])
        command.make_context(name, arguments, parent=context)
        seen.add((page, name))
    assert (EVIDENCE, "sweep") in seen


def test_every_command_and_exit_code_is_in_the_readme() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    for name in commands | groups:
        assert f"`{name}" in read(README), name
    codes = {error.exit_code for error in ttcompress.TTCompressError.__subclasses__()}
    for code in codes | {0, 4, 5, 130}:
        assert f"| {code} |" in read(README)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(read(README).encode()) <= 10_000
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT)})" in read(README)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be reached by."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_tools_exist(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for tool in re.findall(r"python ((?:tests/tools|sample_models)/\S+\.py)", read(page)):
        assert (ROOT / tool).is_file(), tool


@pytest.mark.parametrize("document", [Recipe, Manifest])
def test_the_reference_is_made_from_the_schema(document: type[Any]) -> None:
    begin, end = f"<!-- keys of a {document.__name__.lower()} -->\n", "<!-- end -->"
    before, _, rest = read(RECIPES).partition(begin)
    table, _, after = rest.partition(end)
    if UPDATE:
        text = f"{before}{begin}{markdown(document)}{end}{after}"
        RECIPES.write_text(text, encoding="utf-8")
    else:
        assert table == markdown(document), "UPDATE_PAGES=1 pytest tests/test_pages.py writes it"


def test_every_shipped_recipe_is_listed() -> None:
    listed = set(re.findall(r"^\| `([\w-]+)` \|", read(RECIPES), re.MULTILINE))
    assert {recipe.name for recipe in shipped()} <= listed


def test_every_task_and_option_is_documented() -> None:
    for name in BUILT_IN:
        options = [*signature(find_task(name)).parameters][1:]
        (row,) = re.findall(rf"^\| `{name}` \|.*$", read(TASKS), re.MULTILINE)
        for option in options:
            assert f"`{option}`" in row, f"{name}: {option}"


def test_the_manifest_has_every_key_and_is_read(tmp_path: Path) -> None:
    (block,) = blocks(RECIPES, "yaml", "manifest")
    for name in ("models/a.pt", "models/large.pt", "other/tagger.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine.yaml").write_text("{version: 1, budget: {factor: 2}}")
    (tmp_path / "models.yaml").write_text(block.text)
    _, jobs = read_manifest(tmp_path / "models.yaml")
    assert len(jobs) == 3 * 3 - 1 + 1
    assert {field.name for field in fields(Manifest)} == yaml.safe_load(block.text).keys()


def test_the_example_is_both_samples_under_four_recipes() -> None:
    _, jobs = read_manifest(ROOT / "recipes" / "batch" / "samples.yaml")
    assert {job.model_name for job in jobs} == {"charlm", "highlighter"}
    assert len(jobs) == 8
    (command,) = re.findall(r"^\$ ttcompress batch (\S+)", read(RECIPES), re.MULTILINE)
    assert (ROOT / command).is_file()


def test_the_workflows_run_a_batch_with_options_that_exist() -> None:
    (github,) = (yaml.safe_load(block.text) for block in blocks(RECIPES, "yaml", "github"))
    (gitlab,) = (yaml.safe_load(block.text) for block in blocks(RECIPES, "yaml", "gitlab"))
    steps = github["jobs"]["compress"]["steps"]
    assert github[True] == ["push"]  # YAML 1.1 reads `on` so
    assert any(step.get("with", {}).get("cache") == "pip" for step in steps)
    assert ".cache/pip" in gitlab["compress"]["cache"]["paths"]
    assert gitlab["compress"]["artifacts"]["reports"]["junit"] == "junit.xml"
    for script in ([step.get("run", "") for step in steps], gitlab["compress"]["script"]):
        (arguments,) = (shlex.split(line)[1:] for line in script if line.startswith("ttcompress"))
        assert arguments[:2] == ["batch", "models.yaml"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "models.yaml" in result.stderr


def test_the_set_up_commands_pin_torch() -> None:
    for block in blocks(README, "sh")[:2]:
        assert "torch==2.13.0" in block.text
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
