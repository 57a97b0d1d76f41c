"""The training engine: bits, budgets, interruptions, rewinding, looks, averages, schedules."""

import math
import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab.errors import CheckpointError, InputError
from conceptlab.training import DeferredInterrupt, Engine, Stop, Tensors, descend, schedules
from conceptlab.training import loop as loops
from conceptlab.training.parts import GlobalRandomness, load_states, states

KEY: dict[str, dict] = {"parameters": {}}
X = torch.linspace(-1, 1, 24).reshape(12, 2)
Y = (X @ torch.tensor([[1.0], [-2.0]])) + 0.3


def run(folder=None, *, epochs=4, max_steps=None, break_at=None, average=0.0, noise=True, **more):
    """Two stages: learnt noise outside the weights, then a layer with dropout; 3 batches each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layer = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        draws, extra = torch.Generator().manual_seed(3), torch.zeros(1, requires_grad=True)
        engine = Engine(
            {"layer": layer},
            generators={"draws": draws, "torch": GlobalRandomness()},
            checkpoint=folder,
            key=KEY,
            max_steps=max_steps,
            progress=False,
        )
        done = iter(range(1000))

        def batches(_epoch):
            order = torch.randperm(12, generator=engine.order)
            for rows in order.split(4):
                yield X[rows] + 0.01 * torch.randn(4, 2, generator=draws), Y[rows]

        def loss(batch):
            if next(done) == break_at:
                signal.raise_signal(signal.SIGINT)
            x, y = batch
            value = (layer(x) + extra - y).square().mean()
            return value, {"absolute": float(value.detach().sqrt())}

        if noise:
            engine.train(batches, loss, torch.optim.SGD([extra], lr=0.1), epochs=1)
        optimizer = torch.optim.Adam([*layer.parameters(), extra], lr=0.05)
        engine.train(batches, loss, optimizer, epochs=epochs, average=average, clip=1.0, **more)
    return engine, [*(p.detach().clone() for p in layer.parameters()), extra.detach().clone()]


def rows(engine):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in engine.history]


@pytest.fixture
def ctrl_c():
    """Python's own handler of SIGINT, also where the runner of the tests ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


MORE = {"row_every": 2, "look": lambda row: None, "look_every": 2, "average": 0.5}


@pytest.mark.parametrize("more", [{}, MORE], ids=["plain", "looks"])
@pytest.mark.parametrize("at", [1, 3, 4, 7, 15])
def test_a_budgets_end_and_an_interruption_go_on_to_the_same_bits(at, more, tmp_path, ctrl_c):
    whole, expected = run(**more)
    for name, short in (("budget", {"max_steps": at}), ("pressed", {"break_at": at - 1})):
        folder = tmp_path / name
        if name == "budget":
            engine, _ = run(folder, **short, **more)
            assert engine.stopped == ("max_steps" if at < 15 else "done")
            engine.finish()
            assert folder.exists() == (at < 15)
        else:
            with pytest.raises(KeyboardInterrupt):
                run(folder, **short, **more)
            assert folder.exists()
        engine, found = run(folder, **more)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert rows(engine) == rows(whole)
        engine.finish()
        assert not folder.exists()


def test_ctrl_c_ends_the_step_first_and_at_once_the_second_time(tmp_path, ctrl_c):
    layer, seen = nn.Linear(2, 1), []

    def train(presses, folder):
        engine = Engine({"layer": layer}, checkpoint=folder, key=KEY, progress=False)

        def loss(step):
            if step == 2:
                for _ in range(presses):
                    signal.raise_signal(signal.SIGINT)
            seen.append(step)
            return layer(X).square().mean()

        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        with pytest.raises(KeyboardInterrupt):
            engine.train(lambda _epoch: range(5), loss, optimizer)
        return engine.steps

    assert train(1, tmp_path / "one") == 3
    assert (tmp_path / "one").exists()
    seen.clear()
    assert train(2, tmp_path / "two") == 2  # the step did not happen ...
    assert not (tmp_path / "two").exists()  # ... and half of one is never kept


def test_a_runner_that_ignores_the_signal_goes_on_ignoring_it(request):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with DeferredInterrupt(True) as interrupt:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGINT)
    assert not interrupt.came


def test_other_threads_leave_the_signal_alone(ctrl_c):
    found = []

    def work():
        with DeferredInterrupt(True) as interrupt:
            found.append((interrupt.active, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.default_int_handler)]


@pytest.mark.parametrize("where", ["loss", "weight"])
def test_nan_rewinds_and_warns(where):
    weight = torch.ones(1, requires_grad=True)
    engine = Engine({"weight": Tensors([weight])}, progress=False)

    def loss(batch):
        value = weight.square().sum()
        return value * math.nan if (where, batch) == ("loss", 2) else value

    def spoil():
        if where == "weight" and engine.steps == 9:
            weight.data.fill_(math.inf)

    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert not engine.train(
        lambda epoch: range(3 * epoch, 3 * epoch + 3) if where == "weight" else [0, 1, 2],
        loss,
        optimizer,
        epochs=4,
        after_step=spoil,
    )
    assert engine.stopped == "nan: rewound"
    assert "Use a smaller lr" in engine.warnings[0]
    expected = 1.0 if where == "loss" else 0.8**6
    assert float(weight.detach()) == pytest.approx(expected)
    assert not engine.train(lambda _e: [0], loss, optimizer)  # halted for good


def test_a_look_ends_and_rewinds_and_sees_the_mean():
    weight, seen = torch.zeros(1, requires_grad=True), []
    engine = Engine({"weight": Tensors([weight])}, progress=False)

    def look(row):
        row["seen"] = float(weight.detach())
        seen.append(row["seen"])
        return Stop("collapse: rewound", rewind=True) if len(seen) == 3 else None

    engine.train(
        lambda _epoch: range(100),
        lambda _step: -weight.sum(),
        torch.optim.SGD([weight], lr=1.0),
        steps=100,
        average=0.9,
        look=look,
        look_every=2,
        row_every=1,
    )
    path, mean = range(1, 7), 0.0
    means = []
    for step, value in enumerate(path):
        keep = min(0.9, (step + 1) / (step + 10))
        mean = keep * mean + (1 - keep) * value
        means.append(mean)
    assert seen == pytest.approx(means[1::2], abs=1e-5)
    assert engine.stopped == "collapse: rewound"
    assert float(weight.detach()) == pytest.approx(means[3], abs=1e-5)  # at the last look passed
    assert [row["seen"] for row in engine.history if "seen" in row] == seen
    assert [row["steps"] for row in engine.history] == [1, 2, 3, 4, 5, 6]


def test_named_terms_are_summed_and_a_schedule_scales_the_rate():
    weight = torch.zeros(2, requires_grad=True)
    run = descend(
        [weight],
        lambda step: {"a": weight[0], "b": 3 * weight[1]},
        steps=4,
        optimizer=torch.optim.SGD([weight], lr=0.5),
        schedule=lambda step, steps: (steps - step) / steps,
    )
    moved = 0.5 * (1 + 0.75 + 0.5 + 0.25)
    assert weight.tolist() == pytest.approx([-moved, -3 * moved])
    assert [row["lr"] for row in run.history] == [0.5, 0.375, 0.25, 0.125]
    assert run.history[1]["loss"] == pytest.approx(run.history[1]["a"] + run.history[1]["b"])


def test_schedules_begin_and_end_where_they_say():
    for name in ("cosine", "cosine_warm", "line", "one_cycle"):
        values = [getattr(schedules, name)(step, 200) for step in range(200)]
        assert all(0 <= v <= 1 for v in values)
        assert values[-1] < 0.04
        assert max(values) > 0.97
    assert schedules.one_cycle(9, 200) == pytest.approx(0.5)
    assert schedules.line(119, 200) == 1.0
    assert schedules.constant(5, 7) == 1.0


def test_states_are_copies_that_go_back():
    numpy = np.random.default_rng(1)
    parts = {"layer": nn.Linear(2, 2), "draws": torch.Generator().manual_seed(1), "numpy": numpy}
    kept = states(parts)
    first = (torch.rand(1, generator=parts["draws"]), numpy.random())
    weight = parts["layer"].weight.detach().clone()
    parts["layer"].weight.data.zero_()
    load_states(parts, kept)
    assert torch.equal(parts["layer"].weight, weight)
    assert (torch.rand(1, generator=parts["draws"]), numpy.random()) == first


def test_what_cannot_be_trained_is_told(tmp_path):
    weight = torch.zeros(1, requires_grad=True)
    engine = Engine({"weight": Tensors([weight])}, progress=False)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with pytest.raises(InputError, match="no batches"):
        engine.train(lambda _epoch: [], lambda _b: weight.sum(), optimizer)
    with pytest.raises(InputError, match="schedule needs"):
        engine.train(
            lambda _epoch: [1], lambda _b: weight.sum(), optimizer, schedule=schedules.cosine
        )
    old = {"seed": 0, "step": 3}
    loops.checkpoints.write_checkpoint(tmp_path / "old", KEY, old)
    with pytest.raises(CheckpointError, match="earlier version"):
        Engine({}, checkpoint=tmp_path / "old", key=KEY)
