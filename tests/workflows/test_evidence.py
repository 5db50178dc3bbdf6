"""What no layer is known to use is kept, whatever its values, and no row is lost without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttcompress.artifact import CompressedModel, load
from ttcompress.errors import PlanError
from ttcompress.layers.swap import load_into
from ttcompress.model.weights import INFINITE, NO_EVIDENCE
from ttcompress.stores import STORES
from ttcompress.workflows.compress import compress
from ttcompress.workflows.inspect import inspect
from ttcompress.workflows.plan import plan
from ttcompress.workflows.restore import restore
from ttcompress.workflows.verify import verify

Tensors = dict[str, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lstm() -> Tensors:
    return {
        "lstm.weight_ih_l0": normal(64, 8, seed=1),
        "lstm.weight_hh_l0": normal(64, 16, seed=2),
        "lstm.bias_ih_l0": normal(64),
        "lstm.bias_hh_l0": normal(64),
    }


STRANGE: Tensors = {
    "transitions": torch.full((9, 9), -1e4).triu() + normal(9, 9),
    "scaler.mean": torch.tensor([[101325.0, 0.002, 0.7]]),
    "attn.mask": torch.full((16, 16), float("-inf")).triu(1),
    "fc.weight_mask": (normal(8, 16) > 0).float(),
    "h0": normal(2, 16),
    "pos_table": normal(50, 8),
    "adjacency": torch.eye(12),
    "limits": torch.tensor([[float("-inf"), float("inf")]]),
}


def saved(tensors: Tensors, path: Path) -> Path:
    torch.save(tensors, path)
    return path


RECIPES: list[Any] = [
    "balanced",
    "mpo",
    "tiny",
    {"version": 1, "default": "decompose", "rules": [], "budget": {"factor": 3}},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_matrices_of_unknown_use_come_back_unchanged(recipe: Any, tmp_path: Path) -> None:
    source = saved({**lstm(), **STRANGE}, tmp_path / "m.pt")
    model = compress(source, recipe)
    model.save(tmp_path / "m.safetensors")
    restore(tmp_path / "m.safetensors", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert all(torch.equal(back[name], tensor) for name, tensor in STRANGE.items())
    reasons = {kept.name: kept.why for kept in load(tmp_path / "m.safetensors").report.kept}
    assert {reasons[name] for name in STRANGE} == {NO_EVIDENCE}
    assert verify(tmp_path / "m.safetensors", source).agrees
    json.dumps(model.report.as_json(), allow_nan=False)


def test_inspect_lists_them_beside_the_weights(tmp_path: Path) -> None:
    tied = lstm() | {"head.weight": torch.full((4, 16), float("-inf")), "head.bias": torch.ones(4)}
    found = inspect(saved({**tied, **STRANGE}, tmp_path / "m.pt"))
    assert [weight.name for weight in found.weights] == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    reasons = {other.name: other.why for other in found.others if other.why != "not a weight"}
    assert reasons == {"head.weight": INFINITE} | dict.fromkeys(STRANGE, NO_EVIDENCE)


def test_an_infinite_weight_that_a_rule_keeps_is_no_hindrance(tmp_path: Path) -> None:
    head = {"head.weight": torch.full((4, 16), float("-inf")), "head.bias": torch.ones(4)}
    source = saved(lstm() | head, tmp_path / "m.pt")
    model = compress(source, {"version": 1, "budget": {"factor": 3}})
    assert torch.equal(model.tensor("head.weight"), head["head.weight"])


def test_an_exact_name_compresses_it_and_its_role_says_what_it_is(tmp_path: Path) -> None:
    rule = {"weights": "pos_table", "format": "dense", "store": "int8"}
    recipe = {"version": 1, "rules": [rule], "default": "keep"}
    model = compress(saved({**lstm(), **STRANGE}, tmp_path / "m.pt"), recipe)
    (weight,) = model.report.weights
    assert (weight.name, weight.role, weight.store) == ("pos_table", "matrix", "int8")


def test_without_any_weight_the_message_names_a_matrix_exactly(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="`- weights: pos_table`"):
        compress(saved(STRANGE, tmp_path / "m.pt"), "balanced")


def test_what_is_kept_without_a_use_is_no_work(tmp_path: Path) -> None:
    totals = compress(saved({**lstm(), **STRANGE}, tmp_path / "m.pt"), "balanced").report.totals
    assert totals["model"].multiply_adds_before == 64 * 24


# Rows far apart in size


def table(*, rows: int = 40, columns: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    """Five columns share a group of an integer store with the rows beside them."""
    matrix = normal(rows, columns)
    matrix[3] *= 1e4
    return matrix.to(dtype)


def compressed(matrix: Tensor, tmp_path: Path, **recipe: Any) -> CompressedModel:
    source = saved({**lstm(), "embedding.weight": matrix}, tmp_path / "m.pt")
    return compress(source, {"version": 1, "default": "keep", **recipe})


@pytest.mark.parametrize("store", ["int2", "int4", "int8"])
def test_a_dense_weight_that_would_lose_a_row_gets_a_finer_store(
    store: str, tmp_path: Path
) -> None:
    rule = {"weights": "embedding", "format": "dense", "store": store}
    model = compressed(table(), tmp_path, rules=[rule])
    (weight,) = model.report.weights
    assert weight.store == "bfloat16"
    assert weight.worst_row_error < 0.01
    (note,) = weight.notes
    assert note.startswith("stored in bfloat16: in int8 one of its rows would lose ")
    _, planned = plan(tmp_path / "m.pt", {"version": 1, "default": "keep", "rules": [rule]})
    assert planned.model_totals == model.report.totals["model"]
    rounded = STORES["int8"].encode(table()).values()
    norms = table().norm(dim=1)
    lost = ((rounded - table()).norm(dim=1) / norms.clamp_min(norms.median())).max()
    assert note.endswith(f"{float(lost):.0%} of its norm")


def test_or_is_kept_where_no_finer_store_is_smaller(tmp_path: Path) -> None:
    rule = {"weights": "embedding", "format": "dense", "store": "int8"}
    recurrent = {"weights": "recurrent", "format": "dense", "store": "int8"}
    model = compressed(table(dtype=torch.bfloat16), tmp_path, rules=[rule, recurrent])
    assert torch.equal(model.tensor("embedding.weight"), table(dtype=torch.bfloat16))
    (why,) = (kept.why for kept in model.report.kept if kept.name == "embedding.weight")
    assert why.startswith("in int8 one of its rows would lose")
    assert why.endswith("no finer store is smaller than the weight")


def test_a_row_that_float16_cannot_hold_drowns_no_other(tmp_path: Path) -> None:
    matrix = normal(40, 8)
    matrix[3] *= 1e9  # float16 cannot hold it, and every integer store drowns its neighbours
    rule = {"weights": "embedding", "format": "dense", "store": "auto"}
    model = compressed(
        matrix, tmp_path, rules=[rule, {"weights": "recurrent"}], budget={"factor": 2}
    )
    (entry,) = [one for one in model.report.weights if one.name == "embedding.weight"]
    assert entry.worst_row_error < 0.5


@pytest.mark.parametrize("factor", [1.9, 3, 5, 8])
def test_a_budget_is_met_with_the_finer_store(factor: float, tmp_path: Path) -> None:
    model = compressed(
        table(),
        tmp_path,
        format="auto",
        rules=[{"weights": "all"}],
        budget={"factor": factor},
    )
    assert model.report.totals["weights"].compression_factor >= factor
    dense = [weight for weight in model.report.weights if weight.format == "dense"]
    assert all(weight.worst_row_error <= 0.5 for weight in dense)
    again = compress(tmp_path / "m.pt", model.report.recipe["effective"])
    assert again.report == model.report


def test_each_weight_is_factorized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    decompose = torch.linalg.eigh

    def counting(matrix: Tensor) -> Any:
        seen.append(tuple(matrix.shape))
        return decompose(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", counting)
    rules = [
        {"weights": "recurrent"},
        {"weights": "embedding", "format": "dense", "store": "int4"},
    ]
    compressed(table(), tmp_path, rules=rules, budget={"rank": 3})
    finer = list(seen)
    seen.clear()
    compressed(normal(40, 8), tmp_path, rules=rules, budget={"rank": 3})
    assert finer == seen


def test_verify_sees_a_worst_row_that_is_told_wrong(tmp_path: Path) -> None:
    model = compressed(
        normal(40, 8), tmp_path, rules=[{"weights": "recurrent"}], budget={"rank": 3}
    )
    first, *rest = model.report.weights
    wrong = replace(first, worst_row_error=first.worst_row_error * 0.9)
    report = replace(model.report, weights=(wrong, *rest))
    replace(model, report=report).save(tmp_path / "a.safetensors")
    found = verify(tmp_path / "a.safetensors", tmp_path / "m.pt")
    assert not found.agrees
    assert "weight_ih_l0: the report says worst row's error" in found.differences[0]


def test_a_module_keeps_its_zeros_through_training_free_compression(tmp_path: Path) -> None:
    """A padding row and a pruned layer, in every format that can hold them."""
    state = lstm() | {"embedding.weight": normal(40, 8), "head.weight": normal(9, 16)}
    state["embedding.weight"][0] = 0.0
    state["lstm.weight_hh_l0"][:, 2], state["lstm.weight_hh_l0"][40] = 0.0, 0.0
    state["head.weight"][normal(9, 16, seed=7) < 0] = 0.0
    source = saved({**state, "head.bias": torch.ones(9)}, tmp_path / "m.pt")
    for format in ("mps", "mpo", "auto"):
        rules = [
            {"weights": "head.weight", "format": "dense", "store": "int3"},
            {"weights": "all", "format": format},
        ]
        made = compress(
            source, {"version": 1, "rules": rules, "budget": {"factor": 4}, "default": "keep"}
        )
        made.save(tmp_path / "a.safetensors", overwrite=True)
        found = load(tmp_path / "a.safetensors").state_dict()
        assert not found["embedding.weight"][0].any()
        hidden = found["lstm.weight_hh_l0"]
        assert not hidden[:, 2].any() and not hidden[40].any()
        assert not found["head.weight"][state["head.weight"] == 0].any()
        assert verify(tmp_path / "a.safetensors", source).agrees


def test_a_padding_row_is_zero_in_the_module_too(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(40, 8, padding_idx=0)
            self.lstm = nn.LSTM(8, 16)

    net = Net()
    source = saved(net.state_dict(), tmp_path / "m.pt")
    rules = [{"weights": "all", "format": "mpo", "store": "int2"}]
    model = compress(
        source, {"version": 1, "rules": rules, "budget": {"rank": 4}, "default": "keep"}
    )
    small = load_into(Net(), model)
    assert not small.embedding(torch.zeros(3, dtype=torch.int64)).any()
    assert bool(small.embedding(torch.arange(1, 4)).any())
