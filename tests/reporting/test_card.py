"""The model card: what the hub reads in its front matter, and what people read below it."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest
import yaml

import ttcompress
from ttcompress.model.report import Change, Report
from ttcompress.reporting.card import model_card


@pytest.fixture
def report(tiny_artifact) -> Report:
    found = ttcompress.load(tiny_artifact).report
    effective = found.recipe["effective"] | {"task": {"name": "C:\\tasks\\mine.py:Digits"}}
    metrics: dict[str, Change] = {
        "macro_f1": {"before": 0.9, "after": 0.875, "drop": 0.025, "higher_is_better": True},
        "loss": {"before": 0.1, "after": nan, "drop": nan, "higher_is_better": False},
    }
    recipe = {"text": "version: 1 # ```\n", "effective": effective}
    return replace(found, recipe=recipe, metrics=metrics)


def card(report: Report, **more: str) -> tuple[dict, str]:
    text = model_card(report, 5000, "tiny", "hf://user/tiny/tiny.safetensors", **more)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_the_hub_documents(report: Report) -> None:
    front, _ = card(report, base_model="user/base")
    assert front == {
        "library_name": "ttcompress",
        "tags": ["ttcompress", "compression", "tensor-train", "mps"],
        "base_model": "user/base",
        "base_model_relation": "quantized",
        "model-index": [
            {
                "name": "tiny",
                "results": [
                    {
                        "task": {"type": "mine.py:Digits"},
                        "dataset": {
                            "type": "mine.py:Digits",
                            "name": "held-out data of mine.py:Digits",
                        },
                        "metrics": [{"type": "macro_f1", "name": "macro f1", "value": 0.875}],
                    }
                ],
            }
        ],
    }


def test_the_hubs_own_library_reads_the_metrics(report: Report) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = model_card(report, 5000, "tiny", "tiny.safetensors")
    (found,) = hub.ModelCard(text).data.eval_results
    assert (found.metric_type, found.metric_value) == ("macro_f1", 0.875)


def test_people_read_the_conclusion_the_tables_the_recipe_and_two_commands(report: Report) -> None:
    _, body = card(report)
    assert body.startswith("\n# tiny\n")
    assert "x smaller, macro f1 down 2.78%" in body
    assert "| macro\\_f1 | 0.9 | 0.875 |" in body and "| lstm.weight\\_hh\\_l1 | mps |" in body
    assert "````yaml\nversion: 1 # ```\n````\n" in body
    (commands,) = [part.split("```")[0] for part in body.split("```sh\n")[1:]]
    assert commands.splitlines() == [
        "pip install 'ttcompress[hub]'",
        "ttcompress report hf://user/tiny/tiny.safetensors",
        "ttcompress restore hf://user/tiny/tiny.safetensors -o dense.pt",
    ]
    assert report.source["sha256"] in body


def test_without_metrics_there_is_no_index_and_no_advice(report: Report) -> None:
    front, body = card(replace(report, metrics=None))
    assert "model-index" not in front and "base_model" not in front
    assert "accuracy not measured." in body


def test_a_recipe_made_in_python_is_shown_as_in_effect(report: Report) -> None:
    _, body = card(replace(report, recipe=report.recipe | {"text": ""}))
    (shown,) = [part.split("```")[0] for part in body.split("```yaml\n")[1:]]
    assert yaml.safe_load(shown) == report.recipe["effective"]


def test_a_place_with_spaces_is_quoted(report: Report) -> None:
    text = model_card(report, 5000, "tiny", "my models/tiny.safetensors")
    assert 'ttcompress report "my models/tiny.safetensors"\n' in text
