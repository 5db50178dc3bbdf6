"""A budget of flash is met in the bytes that the export reports, and planned as it is exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ttcompress.artifact import load
from ttcompress.errors import PlanError, RecipeError
from ttcompress.recipe import recipe_from
from ttcompress.reporting.budget import answers
from ttcompress.results.from_plan import plan_report
from ttcompress.workflows.compress import compress
from ttcompress.workflows.export import export
from ttcompress.workflows.plan import plan


class Words(nn.Module):
    """Symbols in, logits out: what C writes whole."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(60, 24)
        self.lstm = nn.LSTM(24, 64, **settings)
        self.head = nn.Linear(64 * (1 + self.lstm.bidirectional), 60)


@pytest.fixture(scope="module", params=[{"num_layers": 2}, {"bidirectional": True}])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose spectra fall, as those of trained models do."""
    path = tmp_path_factory.mktemp("flash") / "words.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = Words(**request.param).state_dict()
        for name, value in state.items():
            if "weight_" in name:
                u, s, vt = torch.linalg.svd(torch.randn(value.shape), full_matrices=False)
                state[name] = u * (s / (1 + torch.arange(len(s)))) @ vt
        torch.save(state, path)
    return path


def recipe(store: str = "auto", **budget: Any) -> dict[str, Any]:
    dense = {"format": "dense", "store": "int8"}
    rules = [{"weights": "recurrent"}, {"weights": "all", **dense}]
    keys = {"version": 1, "target": "c", "default": "keep", "rules": rules}
    return keys | {"format": "auto", "store": store, "budget": budget}


@pytest.mark.parametrize(("store", "flash"), [("auto", 34_000), ("int4", 22_000)])
def test_the_export_takes_the_flash_that_was_planned(
    model: Path, tmp_path: Path, store: str, flash: int
) -> None:
    made = compress(model, recipe(store, flash=flash, multiply_adds=1.5))
    made.save(tmp_path / "words.safetensors")
    (written,) = export(tmp_path / "words.safetensors", tmp_path / "c", target="c")
    header = (tmp_path / "c" / "words.h").read_text()
    told = re.search(r"WORDS_FLASH_BYTES (\d+)", header)
    assert told is not None
    taken = written.memory["flash"]
    assert taken == int(told[1])
    # A rank more takes eight columns of a matrix of 256 rows.
    assert flash - 256 * (8 if store == "auto" else 4) - 1_000 < taken <= flash
    assert {"auto": "int8", "int4": "int4"}[store] in written.holds
    checkpoint, planned = plan(model, recipe(store, flash=flash, multiply_adds=1.5))
    report = load(tmp_path / "words.safetensors").report
    assert report.flash == planned.flash == made.report.flash
    assert report.flash is not None and report.flash.model == taken
    shown = plan_report(checkpoint, recipe_from(recipe(store, flash=flash)), planned)
    assert {one.name: one.achieved for one in answers(shown)} == {"flash": f"{taken:,} bytes"}


def test_a_factor_counts_flash_and_says_so(model: Path) -> None:
    made = compress(model, recipe("int4", factor=9))
    assert made.report.flash is not None and made.report.flash.model is None
    totals = made.report.totals["weights"]
    assert made.report.factor == totals.bytes_before / made.report.flash.weights >= 9
    (answer,) = answers(made.report)
    assert answer.achieved == f"{made.report.factor:.2f} in flash"


def test_a_model_without_a_device_says_nothing_of_flash(model: Path) -> None:
    made = compress(model, recipe(factor=4) | {"target": "file"})
    assert made.report.flash is None and "flash" not in made.report.as_json()


def test_flash_out_of_reach_is_refused_with_what_is_beside_the_weights(model: Path) -> None:
    with pytest.raises(PlanError, match=r"flash 18,000 is out of reach: .*, [\d,]+ of them beside"):
        compress(model, recipe(flash=18_000))


def test_flash_needs_the_target_c() -> None:
    with pytest.raises(RecipeError, match=r"the target is file\.\s*Add `target: c`"):
        recipe_from(recipe(flash=9_000) | {"target": "file"})
