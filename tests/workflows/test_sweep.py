"""A sweep over a small trained model: from the engine to the picked artifact, and the cache."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import ttcompress
from ttcompress.cli import app
from ttcompress.errors import InputError, MissingExtraError, PlanError
from ttcompress.jobs import workers
from ttcompress.recipe import effective, load_recipe, recipe_from
from ttcompress.reporting.front import front_picture
from ttcompress.workflows.pick import recipe_beside, recipe_text

TWO = ttcompress.Engine(jobs=2)
"""Every sweep here has two points or more to make, so that joblib keeps its pool of workers."""


@pytest.fixture(scope="module")
def swept(case, tmp_path_factory):
    """A sweep with a task, calibration and fine-tuning, in its folder."""
    folder = tmp_path_factory.mktemp("sweep") / "model.sweep"
    task = {"name": "language-model", "text": str(case.path.parent / "text.txt")}
    recipe = recipe_from(
        {
            "version": 1,
            "budget": {"tolerance": 0.5},
            "task": task | {"batch": 8, "steps": 20},
            "finetune": {"max_steps": 3, "learning_rate": 2.0e-4},
            "limits": {"max_size": 10**6, "max_drop": "900%"},
        }
    )
    return folder, recipe, sweep_again(case, folder, recipe)


def sweep_again(case, folder: Path, recipe, factors=(3, 6)) -> ttcompress.Sweep:
    formats = ("mps", "mpo")
    return ttcompress.sweep(
        case.path, recipe, factors=factors, formats=formats, folder=folder, engine=TWO
    )


def test_points_are_what_compress_makes(swept) -> None:
    folder, _, found = swept
    assert [point.name for point in found.points] == ["mps@3", "mps@6", "mpo@3", "mpo@6"]
    assert (found.metric, found.exit_code) == ("bits_per_character", 0)
    point = found.points[1]
    report = ttcompress.load(folder / "mps@6.safetensors").report
    assert report.finetune["settings"]["max_steps"] == 3
    assert report.metrics["bits_per_character"]["after"] == point.figures.metric
    assert report.metrics["bits_per_character"]["before"] == found.dense.metric
    assert report.totals["model"].bytes_after == point.figures.bytes
    assert report.totals["model"].multiply_adds_after == point.figures.multiply_adds
    assert point.outcome.factor >= 6
    assert point.figures.largest_error == max(w.relative_error for w in report.weights)


def test_the_second_time_nothing_is_worked_on(case, swept, monkeypatch) -> None:
    folder, recipe, found = swept
    monkeypatch.setattr(workers, "run_in_workers", None)
    again = sweep_again(case, folder, recipe)
    assert all(point.outcome.cached for point in again.points)
    assert [point.figures for point in again.points] == [p.figures for p in found.points]


def test_a_picked_recipe_makes_the_same_bytes(case, swept, tmp_path, monkeypatch) -> None:
    _, _, found = swept
    recipe = ttcompress.pick(found, "mpo@6", tmp_path / "small.safetensors")
    assert recipe == tmp_path / "small.yaml"
    assert load_recipe(recipe) == found.point("mpo@6").recipe
    monkeypatch.chdir(tmp_path)
    given = ["decompose", str(case.path), "-r", str(recipe), "-o", "again.safetensors"]
    assert CliRunner().invoke(app, given).exit_code == 0
    picked = (tmp_path / "small.safetensors").read_bytes()
    assert picked == (tmp_path / "again.safetensors").read_bytes()
    with pytest.raises(ttcompress.OutputPathError, match="already exists"):
        ttcompress.pick(found, "mpo@6", tmp_path / "small.safetensors")


def test_the_recipe_says_what_to_expect(swept) -> None:
    _, _, found = swept
    point = found.points[0]
    lines = recipe_text(found, point, Path("mine.yaml")).splitlines()
    assert lines[0] == "# The point mps@3 of a sweep over model.pt."
    assert lines[1] == "#   ttcompress decompose model.pt -r mine.yaml"
    assert f"-> {point.figures.bytes:,} bytes of tensors" in lines[2]
    assert f"-> {point.figures.metric:.4g}." in lines[2]
    odd = recipe_text(replace(found, model="a\nb: c"), point, Path("x\ny.yaml"))
    assert effective(ttcompress.parse_recipe(odd)) == effective(point.recipe)


def test_without_a_metric_the_recipe_says_the_largest_error(swept) -> None:
    point, found = swept[2].points[0], replace(swept[2], metric=None)
    largest = f"the largest error of a weight {point.figures.largest_error:.4g}."
    assert largest in recipe_text(found, point, Path("small.yaml"))
    assert largest not in recipe_text(swept[2], point, Path("small.yaml"))


def test_the_recipes_name_is_never_the_artifacts() -> None:
    assert recipe_beside(Path("a.yaml")) == Path("a.yaml.yaml")


def test_what_one_would_do_by_hand_stands_beside(case, tmp_path) -> None:
    found = ttcompress.sweep(
        case.path,
        "balanced",
        factors=[3],
        formats=["svd", "quantised"],
        folder=tmp_path,
        engine=TWO,
    )
    by_hand = {point.name: ttcompress.load(point.path).report for point in found.points}
    ranks = [len(weight.ranks) for weight in by_hand["svd@3"].weights if weight.ranks]
    assert ranks and set(ranks) == {1}
    assert {weight.format for weight in by_hand["quantised@3"].weights} == {"dense"}
    compared = ttcompress.compare(case.path, [3]).rows[0].cells
    bytes_of = {cell.method: cell.bytes for cell in compared}
    for name, report in by_hand.items():
        assert report.totals["weights"].bytes_after == bytes_of[name.partition("@")[0]]


def test_a_sweep_trains_in_the_precision_of_its_engine(case, swept, tmp_path) -> None:
    _, recipe, found = swept
    engine = ttcompress.Engine(jobs=2, mixed_precision="bf16")
    rough = ttcompress.sweep(
        case.path, recipe, factors=[3, 6], formats=["mps"], folder=tmp_path, engine=engine
    )
    assert rough.exit_code == 0
    assert rough.points[0].path.read_bytes() != found.points[0].path.read_bytes()


def test_a_file_where_the_points_should_be_is_named(case, tmp_path) -> None:
    (tmp_path / "points").write_bytes(b"")
    with pytest.raises(InputError, match="is a file, but the points need a folder"):
        ttcompress.sweep(case.path, factors=(3, 6), formats=("mps",), folder=tmp_path / "points")


def test_where_no_point_is_made_the_error_is_the_first_ones(case, tmp_path) -> None:
    with pytest.raises(PlanError, match="factor 4000 is out of reach"):
        ttcompress.sweep(
            case.path, factors=[4000, 5000], formats=["mps"], folder=tmp_path, engine=TWO
        )
    with pytest.raises(InputError, match="there is no such file"):
        ttcompress.sweep("absent.pt", folder=tmp_path)


def test_the_picture_has_a_mark_for_each_point_and_both_schemes(swept) -> None:
    _, _, found = swept
    picture = front_picture(found)
    assert front_picture(found) == picture
    text = picture.decode()
    ElementTree.fromstring(text)
    assert "@media screen and (prefers-color-scheme: dark)" in text
    sheet, _, drawn = text.partition("</style>")
    for colour in set(re.findall(r"(?:fill|stroke): #[0-9a-f]{6}\b", drawn)):
        part = colour.partition(":")[0]
        assert re.search(rf'\[style\*="{colour}"\] {{ {part}: var\(--\w+\) !important; }}', sheet)
    labels = re.findall(r"<text [^>]*>(3x|6x|mps|mpo|dense)</text>", text)
    assert sorted(labels) == ["3x", "6x", "dense", "mpo", "mps"]
    assert front_picture(found, ".png").startswith(b"\x89PNG")


def test_without_the_extra_its_name_is_told(swept, monkeypatch) -> None:
    monkeypatch.setattr("ttcompress.system.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"--picture needs .*ttcompress\[plots\]"):
        front_picture(swept[2])


def test_another_model_is_another_point(tiny_state_dict, tmp_path, monkeypatch) -> None:
    model, cached = tmp_path / "m.pt", []
    for sign in (1, 1, -1):
        torch.save({name: sign * tensor for name, tensor in tiny_state_dict.items()}, model)
        found = ttcompress.sweep(
            model, factors=[2, 3], formats=["mps"], folder=tmp_path / "f", engine=TWO
        )
        cached.append(found.points[0].outcome.cached)
    assert cached == [False, True, False]
    assert json.dumps(found.as_json())
