import torch

import ttcompress
from ttcompress.layers.matrices import TrainWeight
from ttcompress.stores import STORES
from ttcompress.tasks.evaluation import load_model
from ttcompress.training.student import StraightThrough, apply_rounding, make_student, snapshot


def trains(student: torch.nn.Module) -> list[TrainWeight]:
    return [module for module in student.modules() if isinstance(module, TrainWeight)]


def outputs(case, model, batch):
    model.eval()
    with torch.no_grad():
        return case.task.outputs(model, batch, None)[0]


def test_cores_are_balanced_and_their_product_stays(case):
    student = make_student(case.compressed, case.task.build())
    assert trains(student)
    dense = case.compressed.state_dict()
    for name in ("lstm.weight_ih_l0", "lstm.weight_hh_l0"):
        weight = student.get_submodule(name)
        norms = [float(core.detach().norm()) for core in weight.cores]
        assert max(norms) / min(norms) < 1 + 1e-5
        torch.testing.assert_close(weight.dense().detach(), dense[name], rtol=1e-4, atol=1e-5)


def test_a_weight_of_zeros_stays_one(case):
    state = case.checkpoint.state_dict()
    state["lstm.weight_ih_l0"] = torch.zeros_like(state["lstm.weight_ih_l0"])
    recipe = {"version": 1, "format": "mps", "store": "int8", "budget": {"rank": 4}}
    student = make_student(ttcompress.compress(state, recipe), case.task.build())
    weight = student.get_submodule("lstm.weight_ih_l0")
    assert not any(core.any() for core in weight.cores)  # NaN is not


def test_straight_through_rounds_forward_and_not_backward():
    torch.manual_seed(0)
    values = torch.randn(7, 31, requires_grad=True)
    seen = StraightThrough(STORES["int3"], values)(values)
    torch.testing.assert_close(seen, STORES["int3"].encode(values).values())
    weights = torch.randn_like(values)
    (seen * weights).sum().backward()
    torch.testing.assert_close(values.grad, weights)


def test_a_student_that_sees_the_store_computes_what_its_snapshot_computes(case):
    student = make_student(case.compressed, case.task.build())
    apply_rounding(student, case.compressed)
    stored = load_model(case.task, snapshot(student, case.compressed))
    batch = next(iter(case.task.train_batches(0, seed=0)))
    torch.testing.assert_close(
        outputs(case, student, batch), outputs(case, stored, batch), rtol=1e-4, atol=1e-4
    )


def test_seeing_the_store_keeps_the_parameters_that_an_optimizer_holds(case):
    student = make_student(case.compressed, case.task.build())
    before = {id(parameter) for parameter in student.parameters()}
    apply_rounding(student, case.compressed)
    assert {id(parameter) for parameter in student.parameters()} == before
    assert any(isinstance(module, StraightThrough) for module in student.modules())


def test_a_snapshot_takes_as_many_bytes_as_the_start(case):
    student = make_student(case.compressed, case.task.build())
    assert snapshot(student, case.compressed).file_bytes == case.compressed.file_bytes
