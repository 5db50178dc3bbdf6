import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest
from torch import nn

from ttcompress.errors import InputError, RecipeError
from ttcompress.tasks import registry
from ttcompress.tasks.language_model import LanguageModel
from ttcompress.tasks.registry import BUILT_IN, find_task, make_task

OWN = dedent(
    """
    from dataclasses import dataclass

    from beside import NAME
    from ttcompress.tasks.protocol import Metric


    @dataclass
    class Own:
        structure: object
        level: int = 1
        name = NAME
        metrics = (Metric("score", True),)

        def __post_init__(self):
            self.seen = []

        @property
        def batches_per_epoch(self):
            raise AssertionError("reads all training data")

        def build(self): ...
        def train_batches(self, epoch, seed): ...
        def outputs(self, model, batch, state): ...
        def loss(self, outputs, batch): ...
        def evaluate(self, model): ...


    def free(structure, **options):
        return Own(structure, len(options))


    class Half:
        name = "half"

        def __init__(self, structure, needed, more=3):
            self.needed = needed
    """
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("NAME = 'own'\n")
    return str(tmp_path / "own.py")


@pytest.fixture(autouse=True)
def clean_imports():
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if name.startswith(("ttcompress_task_", "beside", "own")):
            del sys.modules[name]


@pytest.fixture
def structure(describe):
    return describe(nn.ModuleDict({"embed": nn.Embedding(4, 3), "rnn": nn.GRU(3, 5)}))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_tasks_are_found_by_the_name_they_have(name):
    assert find_task(name).name == name


def test_a_task_of_ones_own_is_found_in_a_file(file, structure):
    task = make_task(f"{file}:Own", structure, {"level": 2})
    assert (task.name, task.structure, task.level) == ("own", structure, 2)
    assert make_task(f"{file}:free", structure, {"any": 1, "thing": 2}).level == 2


def test_tasks_of_two_folders_have_each_their_own_neighbours(file, structure, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "own.py").write_text(OWN)
    (other / "beside.py").write_text("NAME = 'another'\n")
    names = [find_task(f"{place}:Own")(structure).name for place in (file, other / "own.py", file)]
    assert names == ["own", "another", "own"]


def test_and_in_a_module(structure, file, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(file).parent))
    assert make_task("own:Own", structure).name == "own"


def test_and_in_an_installed_package(monkeypatch):
    point = EntryPoint(
        "theirs", "ttcompress.tasks.language_model:LanguageModel", "ttcompress.tasks"
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert find_task("theirs") is LanguageModel


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(
        RecipeError, match=r"Did you mean language-model\? The tasks are language-m"
    ):
        find_task("langage-model")
    with pytest.raises(RecipeError, match=r"Did you mean classifier\?"):
        find_task("sequence-classifier")


def test_what_cannot_be_imported_is_told(tmp_path, file):
    with pytest.raises(InputError, match=r"absent\.py: no such file"):
        find_task(f"{tmp_path}/absent.py:Own")
    with pytest.raises(RecipeError, match="ModuleNotFoundError: No module named 'absent'"):
        find_task("absent.module:Own")
    with pytest.raises(
        RecipeError, match=r"no class or function 'Wn'. Its classes are Metric, Own"
    ):
        find_task(f"{file}:Wn")
    with pytest.raises(
        RecipeError, match=r"own\.py: which one\? Its classes are Metric, Own, Half"
    ):
        find_task(file)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(
        RecipeError, match=r"cannot be imported: \S*broken\.py:1: ZeroDivisionError"
    ):
        find_task(f"{tmp_path}/broken.py:Own")


def test_options_are_held_to_what_the_task_takes(file, structure):
    with pytest.raises(RecipeError, match=r"unknown option txt\. Did you mean text\? Its options"):
        make_task("language-model", structure, {"txt": "a"})
    with pytest.raises(RecipeError, match="needs the option needed"):
        make_task(f"{file}:Half", structure, {"more": 1})


def test_what_is_no_task_is_told_without_reading_its_data(file, structure):
    with pytest.raises(RecipeError, match="lacks metrics, batches_per_epoch, build, train_bat"):
        make_task(f"{file}:Half", structure, {"needed": 1})
