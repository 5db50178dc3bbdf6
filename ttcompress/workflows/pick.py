"""Copies a point of a sweep: its artifact, and the recipe that makes the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from ttcompress.errors import RecipeError
from ttcompress.model.report import RecipeUsed
from ttcompress.recipe import effective, parse_recipe
from ttcompress.results.sweep import Point, Sweep
from ttcompress.system.files import check_output, written_whole
from ttcompress.system.text import clean_line
from ttcompress.workflows.methods import CODEC


def pick(found: Sweep, name: str, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write the artifact of a point to `output`, and its recipe beside that.

    `ttcompress decompose MODEL -r RECIPE` writes the same bytes, since the artifact holds the
    recipe's text. That takes as many threads as the point had (cores / jobs): another number may
    change the last digit of an error in the report.

    Returns:
        The recipe's file: see `recipe_beside`.

    Raises:
        RecipeError: there is no such point, or it is one of codec, which has no artifact.
        PlanError: it is out of reach.
        OutputError: one of the two files exists (without `overwrite`), or cannot be written.
    """
    from ttcompress.artifact import load  # torch
    from ttcompress.workflows.limits import judged  # torch

    artifact, point = Path(output), found.point(name)
    if point.format == CODEC:
        raise RecipeError(
            f"{name}: is for comparison only and has no artifact. Pick another point."
        )
    path = recipe_beside(artifact)
    for one in (artifact, path):
        check_output(one, overwrite)
    text = recipe_text(found, point, path)
    recipe = parse_recipe(text, str(path))
    model = load(point.path)
    asked: RecipeUsed = {"text": text, "effective": effective(recipe)}
    plain = replace(model, report=replace(model.report, recipe=asked, limits=()))
    judged(plain, recipe.limits).save(artifact, overwrite)
    with written_whole(path, overwrite) as file:
        file.write(text.encode())
    return path


def recipe_beside(artifact: Path) -> Path:
    """The path for the recipe of a picked artifact.

    >>> recipe_beside(Path("out/charlm.mps.safetensors")).as_posix()
    'out/charlm.mps.yaml'
    """
    return artifact.with_name(f"{artifact.name.removesuffix('.safetensors')}.yaml")


def recipe_text(found: Sweep, point: Point, path: Path) -> str:
    """The text of a point's recipe: origin, command, what to expect, and every key."""
    assert point.figures is not None  # `Sweep.point` refused it otherwise
    dense, now = found.dense, point.figures
    model = clean_line(found.model)
    lost = f"the largest error of a weight {now.largest_error:.4g}"
    if found.metric is not None:
        lost = f"{found.metric} {dense.metric:.4g} -> {now.metric:.4g}"
    header = (
        f"The point {point.name} of a sweep over {model}.",
        f"  ttcompress decompose {model} -r {clean_line(path.name)}",
        f"Expect, on {model}: {dense.bytes:,} -> {now.bytes:,} bytes of tensors, "
        f"{dense.multiply_adds:,} -> {now.multiply_adds:,} multiply-adds, {lost}.",
    )
    keys = yaml.safe_dump(effective(point.recipe), sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in header) + keys
