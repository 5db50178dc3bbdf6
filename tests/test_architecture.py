"""The rules of the house, held against the code: imports go one way, deciding code is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ttcompress

ROOT = Path(ttcompress.__file__).parent
MODULES = {
    ".".join(("ttcompress", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}
DOOR = "ttcompress"

LAYERS: tuple[tuple[str, ...], ...] = (  # a room imports only from rows above its own
    ("errors",),
    ("system",),
    ("hub",),
    ("model", "stores", "planning.formats"),  # a recipe's checks ask the formats
    ("recipe",),
    ("planning",),
    ("checkpoint", "jobs", "trains"),
    ("results",),
    ("reporting",),
    ("artifact",),
    ("layers", "samples"),
    ("tasks",),
    ("calibration", "training", "targets"),
    ("workflows",),
    (DOOR,),
    ("cli",),
    ("__main__",),
)
ROW = {room: row for row, rooms in enumerate(LAYERS) for room in rooms}

WITHOUT_TORCH = ("cli", "errors", "hub", "planning", "recipe", "reporting", "results", "stores")
ONLY_IN = {
    "tensorly": "trains/reference.py",
    "rich": "cli/console.py",
    "huggingface_hub": "hub/client.py",
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports_when_run(module: str) -> Iterator[str]:
    """Those of a whole module but for what only type checkers read."""
    for node in tree(module).body:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from imports(node)


def imports(node: ast.AST) -> Iterator[str]:
    """Every module that a node and what is in it import, by its full name."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            assert inner.level == 0, "relative imports hide where they lead"
            names = [f"{inner.module}.{alias.name}" for alias in inner.names]
            yield from (name if name in MODULES else str(inner.module) for name in names)


def room(module: str) -> str:
    """`planning` for ttcompress.planning.menus; the package itself is the door."""
    return module.split(".")[1] if "." in module else DOOR


def place(module: str) -> str:
    """The module's room, or the part of it that has a row of its own in the table."""
    part = ".".join(module.split(".")[1:3])
    return part if part in ROW else room(module)


@cache
def ours(module: str) -> set[str]:
    return {name for name in imports(tree(module)) if name.split(".")[0] == DOOR}


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_room_has_a_row() -> None:
    rooms = {room(module) for module in MODULES}
    assert rooms <= ROW.keys(), f"add to the table of layers: {sorted(rooms - ROW.keys())}"


def against_the_way(module: str) -> list[str]:
    """What a module imports from a row that is not above its own."""
    here = place(module)
    return [name for name in ours(module) if place(name) != here and ROW[place(name)] >= ROW[here]]


def test_imports_go_one_way() -> None:
    wrong = {module: names for module in MODULES if (names := against_the_way(module))}
    assert not wrong


def test_no_module_imports_itself_by_a_detour() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            # A package's own __init__ is the door to its modules, which do not use it.
            for name in ours(module) & MODULES.keys():
                visit(name, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("package", ["recipe", "model", "planning"])
def test_deciding_code_never_names_torch(package: str) -> None:
    for module in MODULES:
        if room(module) == package:
            assert not any(name.split(".")[0] == "torch" for name in imports_when_run(module))


def imports_torch(*modules: str) -> bool:
    """Whether a fresh interpreter has torch after importing these."""
    lines = [f"import {module}" for module in modules]
    check = "import sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", "\n".join([*lines, check])], capture_output=True)
    assert not done.stderr, done.stderr.decode()
    return bool(done.returncode)


def test_deciding_code_is_light() -> None:
    light = [m for m in MODULES if room(m) in (*WITHOUT_TORCH, DOOR)]
    assert len(light) > 30
    assert not imports_torch(*light)


def test_the_check_for_torch_can_fail() -> None:
    assert imports_torch("ttcompress.planning", "ttcompress.trains.train")


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_library_is_named_in_one_module_only(package: str) -> None:
    naming = {
        path.relative_to(ROOT).as_posix()
        for module, path in MODULES.items()
        if any(name.split(".")[0] == package for name in imports(tree(module)))
    }
    assert naming <= {ONLY_IN[package]}


def imports_without_a_reason(module: str) -> list[str]:
    """Where a module imports inside a function and no comment beside or above it says why."""
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    return [
        f"{MODULES[module]}:{node.lineno}"
        for function in functions(module)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "#" not in lines[node.lineno - 1] + lines[node.lineno - 2]
    ]


def test_imports_stand_at_the_top_or_say_why() -> None:
    held = [module for module in MODULES if room(module) not in ("cli", DOOR)]  # start-up time
    assert [place for module in held for place in imports_without_a_reason(module)] == []
