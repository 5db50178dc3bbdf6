import pytest
import torch

from tests.training.test_student import outputs, trains
from ttcompress.recipe import Finetune
from ttcompress.stores import Costs
from ttcompress.stores.coded import CODED
from ttcompress.stores.store import as_grid
from ttcompress.tasks.evaluation import load_model
from ttcompress.training.coded import AIM, LOWEST_PRICE, PUSH, STEP, CodedView, RateControl
from ttcompress.training.loop import Training
from ttcompress.training.resume import resume_progress, save_progress
from ttcompress.training.student import make_student, rate_control, snapshot
from ttcompress.workflows.compress import compress


@pytest.fixture(scope="module")
def coded(case):
    """The case in the store `coded`, at a factor of 8."""
    recipe = {"version": 1, "budget": {"factor": 8}}
    return compress(case.checkpoint, recipe)


def stored_core(shape=(1, 24, 5), step=0.3):
    torch.manual_seed(0)
    values = torch.randn(shape)
    components, places = as_grid(values).shape
    costs = Costs(torch.rand(components) + 0.1, torch.rand(places) + 0.1)
    store = CODED.at(step)
    return store.encode(values, store.fit(values, costs))


@pytest.mark.parametrize("shape", [(1, 24, 5), (5, 16, 1), (12, 9), (3, 4, 2)])
def test_a_view_of_the_stored_values_shows_them(shape):
    part = stored_core(shape)
    view, core = CodedView(part), part.values()
    values = view.in_units(core)
    torch.testing.assert_close(view(values), core)
    torch.testing.assert_close(view.encode(values).values(), core)
    whole = values / STEP
    torch.testing.assert_close(whole, whole.round(), atol=1e-4, rtol=0.0)


def test_a_core_that_other_layers_read_is_trained_as_it_is():
    part = stored_core()
    view, core = CodedView(part, in_place=True), part.values()
    torch.testing.assert_close(view.in_units(core), core)
    torch.testing.assert_close(view(core), core)
    torch.testing.assert_close(view.encode(core).values(), core)


def test_what_training_sees_is_what_is_stored():
    part = stored_core()
    view = CodedView(part)
    with torch.no_grad():
        view.rows += 0.4 * torch.randn_like(view.rows)
        view.columns += 0.4 * torch.randn_like(view.columns)
    values = view.in_units(part.values() + 0.2 * torch.randn(part.shape))
    torch.testing.assert_close(view.encode(values).values(), view(values).detach())


def test_gradients_reach_values_and_steps():
    view, core = CodedView(stored_core()), torch.randn(1, 24, 5)
    values = view.in_units(core).requires_grad_()
    seen = view(values)
    seen.backward(weights := torch.randn_like(seen))
    torch.testing.assert_close(as_grid(values.grad), as_grid(weights) * view.units)
    # With codes k of x = values / step, the derivative by the logarithm of a step is (k - x) step.
    lost = as_grid(weights * (seen - core)).detach()
    torch.testing.assert_close(view.rows.grad, lost.sum(1))
    torch.testing.assert_close(view.columns.grad, lost.sum(0))


def test_bits_fall_as_their_gradient_says():
    part = stored_core((1, 400, 6), step=0.4)
    view = CodedView(part)
    values = torch.nn.Parameter(view.in_units(part.values()))
    before = view.look(values)
    view.bits(values).backward()
    with torch.no_grad():
        values -= 0.6 * STEP * values.grad.sign()
    assert view.look(values) < before - 20
    assert float(view.rows.grad.sum()) < 0  # coarser steps save bits


def test_the_price_rises_while_too_much_is_used_and_falls_again():
    view = CodedView(stored_core())
    values = view.in_units(stored_core().values())
    used = view.look(values)
    control = RateControl([(view, values)], allowed=used / 1.01 / AIM)
    price = control.price
    assert control.steer() == pytest.approx(1.01 * AIM)
    assert control.price == pytest.approx(price * 1.01**5)
    assert control.push == pytest.approx(1.01**PUSH)
    dear = float(control.penalty().detach())
    control.allowed = 2 * used
    control.steer()
    assert control.price == pytest.approx(price * 1.01**5 / 2, rel=0.01)  # half at most
    assert float(control.penalty().detach()) < dear / 10
    for _ in range(100):
        control.steer()
    assert control.price == LOWEST_PRICE  # from where it can rise again


def test_a_student_computes_what_its_snapshot_computes(case, coded):
    student = make_student(coded, case.task.build())
    stored = load_model(case.task, snapshot(student, coded))
    batch = next(iter(case.task.train_batches(0, seed=0)))
    torch.testing.assert_close(
        outputs(case, student, batch), outputs(case, stored, batch), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_snapshot_takes_no_more_bytes_than_the_start(case, coded, noise):
    student = make_student(coded, case.task.build())
    with torch.no_grad():
        for weight in trains(student):
            for core in weight.cores:
                core += noise * core.std() * torch.randn_like(core)
    before, after = (m.report.totals["weights"] for m in (coded, snapshot(student, coded)))
    assert 0.97 * before.bytes_after <= after.bytes_after <= before.bytes_after


def test_a_snapshot_that_takes_a_little_less_is_not_rounded_anew(case, coded):
    student = make_student(coded, case.task.build())
    with torch.no_grad():
        for weight in trains(student):
            weight.cores[-1].view(-1)[:30] = 0.0  # fewer bytes, by a percent or two
    made = snapshot(student, coded)
    before, after = (m.report.totals["weights"].bytes_after for m in (coded, made))
    assert 0.97 * before < after < 0.99 * before
    batch = next(iter(case.task.train_batches(0, seed=0)))
    torch.testing.assert_close(
        outputs(case, student, batch),
        outputs(case, load_model(case.task, made), batch),
        rtol=1e-4,
        atol=1e-4,
    )


def test_integers_have_no_price(case):
    student = make_student(case.compressed, case.task.build())
    assert rate_control(student, case.compressed) is None


def test_training_keeps_the_bytes_and_lowers_the_loss(case, coded):
    settings = Finetune(epochs=2, distill=0.0)
    result = Training(coded, case.task, settings).run()
    before, after = coded.report.totals["weights"], result.model.report.totals["weights"]
    assert after.bytes_after <= before.bytes_after
    name = case.task.metrics[0].name
    sign = 1 if case.task.metrics[0].higher_is_better else -1
    assert sign * result.after[name] > sign * result.before[name]


def test_a_resumed_run_goes_on_at_the_price_that_was_reached(case, coded, tmp_path):
    path, settings = tmp_path / "run.resume", Finetune(epochs=1, distill=0.0)
    run, again = (Training(coded, case.task, settings) for _ in range(2))
    run.rate.price, run.rate.push = 0.07, 1.5
    save_progress(run, path)
    resume_progress(again, path)
    assert (again.rate.price, again.rate.push) == (0.07, 1.5)
