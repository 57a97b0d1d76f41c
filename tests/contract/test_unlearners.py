"""What every method of forgetting keeps: the user's model, seeds, data kinds, budgets, files."""

import copy
import json
import warnings
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exceptions import UNLEARNERS
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from unlearning_world import CLASS, data, methods, net, request, same, small, trained, trains

from conceptlab.provenance import fingerprint
from unlearning import UnlearnResult, split_classes, unlearn_sequence, verify_certificate

each = pytest.mark.parametrize("name", methods())
each_trained = pytest.mark.parametrize("name", [name for name in methods() if trains(name)])


def run(name, model=None, *, changes=None, **options):
    """Unlearn, with warnings that are part of small settings silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = small(name, **(changes or {}))
        return method.unlearn(trained() if model is None else model, **{**request(), **options})


@cache
def baseline(name):
    """One run of each method, for comparison."""
    steps: list[int] = []
    result = run(name, progress=lambda done, total: steps.append(done))
    return result, len(steps)


def test_the_methods_were_found():
    assert {"FineTune", "LogitMask", "Retrain", "SalUn", "SSD"} <= set(methods())
    assert len(methods()) >= 16


# ------------------------------------------------------------ the user's model
def marked():
    """A model whose modes, hooks, gradients and flags all differ from the usual."""
    model = trained()
    model.train()
    model.drop.eval()
    model.conv.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.conv.register_forward_hook(keep_answer)
    model.relu.register_forward_pre_hook(lambda module, args: None)
    return model


def keep_answer(module, args, answer):
    return None


def facts(model):
    """Everything about a model that a method must leave alone."""
    return {
        "sha256": fingerprint(model),
        "modes": [module.training for module in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "versions": [p._version for p in model.parameters()],
        "places": [p.data_ptr() for p in model.parameters()],
        "hooks": [
            (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()))
            for m in model.modules()
        ],
    }


@each
def test_model_stays_as_it_was_and_equal_seeds_give_equal_bits(name, global_state_untouched):
    model = marked()
    before = facts(model)
    first = run(name, model)
    assert facts(model) == before
    second = run(name, model)
    assert facts(model) == before
    assert same(first.model, second.model)
    assert first.model is not model
    own = {p.untyped_storage().data_ptr() for p in model.state_dict().values()}
    assert own.isdisjoint(t.untyped_storage().data_ptr() for t in first.model.state_dict().values())
    after = facts(first.model)
    assert (after["modes"], after["flags"]) == (before["modes"], before["flags"])
    assert after["gradients"] == [None] * len(after["gradients"])
    assert [len(a) + len(b) for a, b in after["hooks"]] == [
        len(a) + len(b) for a, b in before["hooks"]
    ]
    facts_of_run = first.certificate
    assert facts_of_run["sha256_before"] == before["sha256"]
    assert facts_of_run["sha256_after"] == after["sha256"] != before["sha256"]


class Failing(nn.Module):
    """A classifier that breaks from a given pass on, counted over all copies."""

    def __init__(self, inner, counter):
        super().__init__()
        self.inner = inner
        self.counter = (counter,)

    def __deepcopy__(self, memo):
        made = Failing(copy.deepcopy(self.inner, memo), self.counter[0])
        made.training = self.training
        return made

    def forward(self, x):
        counter = self.counter[0]
        counter.passes += 1
        if 0 <= counter.breaks_at <= counter.passes:
            raise RuntimeError("the model broke")
        return self.inner(x)


@each
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_model_stays_as_it_was_after_an_exception(name, share, global_state_untouched):
    counter = SimpleNamespace(passes=0, breaks_at=-1)
    model = Failing(marked(), counter)
    run(name, model, changes={"head": "inner.head"})
    counter.breaks_at = max(1, int(share * counter.passes))
    counter.passes = 0
    before = facts(model)
    with pytest.raises(RuntimeError, match="the model broke"):
        run(name, model, inplace=True, changes={"head": "inner.head"})
    assert facts(model) == before


@each
def test_inplace_changes_the_weights_and_nothing_else(name):
    model = trained()
    places = [p.data_ptr() for p in model.parameters()]
    result = run(name, model, inplace=True)
    assert result.model is model
    assert same(model, baseline(name)[0].model)
    assert [p.data_ptr() for p in model.parameters()] == places
    assert not model.training


# ----------------------------------------------------------- outputs and inputs
class Answering(nn.Module):
    """A classifier that wraps its logits."""

    def __init__(self, inner, kind):
        super().__init__()
        self.inner = inner
        self.kind = kind

    def forward(self, x):
        logits = self.inner(x)
        return {
            "tensor": logits,
            "tuple": (logits, x),
            "logits": SimpleNamespace(logits=logits, hidden=x),
            "mapping": {"logits": logits},
        }[self.kind]


@each
def test_every_kind_of_output_gives_the_same_weights(name):
    every = ("tensor", "tuple", "logits", "mapping")
    expected = baseline(name)[0]
    for kind in every if name == "FineTune" else every[1:3]:
        found = run(name, Answering(trained(), kind).eval())
        assert same(found.model.inner, expected.model), kind


def kinds(X, y):
    """The same samples as tensors, arrays, data set and loader."""
    dataset = TensorDataset(X, y)
    return {
        "arrays": (X.numpy().astype(np.float64), y.numpy().astype(np.int32)),
        "lists": (X, y.tolist()),
        "dataset": dataset,
        "loader": DataLoader(dataset, batch_size=7),
        "items": [(x.numpy(), int(label)) for x, label in zip(X, y, strict=True)],
    }


@each
def test_every_kind_of_data_gives_the_same_weights(name):
    expected = baseline(name)[0]
    given = {key: kinds(*value) for key, value in request().items()}
    every = ("dataset", "loader", "arrays", "lists", "items")
    for kind in every if name == "FineTune" else every[:2]:
        found = run(name, **{key: value[kind] for key, value in given.items()})
        assert same(expected.model, found.model), kind
        assert found.certificate["digest_forget"] == expected.certificate["digest_forget"]


class Keyed(nn.Module):
    """A classifier that takes its input as a keyword, as transformers do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, pixels, weight=None):
        return SimpleNamespace(logits=self.inner(pixels))


@each
def test_mappings_as_transformers_have_them(name):
    if name in UNLEARNERS["images only"]:
        pytest.skip(UNLEARNERS["images only"][name])
    given = request()
    keyed = {
        key: {"pixels": X, "weight": torch.ones(len(X)), "labels": y}
        for key, (X, y) in given.items()
    }
    found = run(name, Keyed(trained()).eval(), **keyed)
    again = run(
        name,
        Keyed(trained()).eval(),
        **{key: ({"pixels": X, "weight": torch.ones(len(X))}, y) for key, (X, y) in given.items()},
    )
    assert same(found.model, again.model)


# --------------------------------------------------------------- parameters
@each
def test_a_drawn_seed_is_recorded_and_gives_the_run_again_in_a_clone(name):
    first = run(name, changes={"random_state": None})
    method = small(name, random_state=first.seed)
    copied = clone(method)
    assert copied.get_params().keys() == method.get_params().keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = copied.unlearn(trained(), **request())
    assert same(first.model, again.model)


@each
@pytest.mark.parametrize(
    ("parameter", "value"),
    [("epochs", 0), ("lr", -1.0), ("batch_size", 0), ("max_steps", 0), ("augment", "flip")],
)
def test_bad_parameters_are_told(name, parameter, value):
    if parameter not in small(name).get_params():
        pytest.skip("the method has no such parameter")
    with pytest.raises(ValueError, match=parameter):
        run(name, changes={parameter: value})


# -------------------------------------------------------- results and files
@each
def test_result_is_saved_and_loaded_to_the_same_bits(name, tmp_path):
    model = trained()
    result, _ = baseline(name)
    assert json.loads(json.dumps(result.certificate)) == result.certificate
    again = UnlearnResult.load(result.save(tmp_path / "result"), net(seed=5))
    assert same(again.model, result.model)
    assert again.history == result.history
    assert again.certificate == result.certificate
    assert again.details.keys() == result.details.keys()
    html = result._repr_html_()
    assert name in html
    assert str(CLASS) in html
    assert len(result.to_frame()) == len(result.history)
    assert name in repr(result)
    checks = {key: request()[key] for key in ("forget", "retain")}
    assert verify_certificate(result.certificate, before=model, after=again.model, **checks) == {
        "before": True,
        "after": True,
        "forget": True,
        "retain": True,
    }
    assert verify_certificate(result.certificate, before=again.model) == {"before": False}


# ------------------------------------------------ budgets and interruptions
@each_trained
def test_budgets_end_the_run_and_are_told(name):
    result = run(name, changes={"max_steps": 1})
    assert result.stopped == "max_steps"
    assert result.certificate["steps"] == 1
    assert run(name, changes={"max_seconds": 1e-9}).stopped == "max_seconds"


@each_trained
def test_interrupted_run_goes_on_to_the_same_bits(name, tmp_path):
    expected, steps = baseline(name)
    assert steps == expected.certificate["steps"]
    folder = tmp_path / "run"
    for stop in sorted({steps // 2, steps} - {0}):
        seen: list[int] = []

        def interrupt(done, total, stop=stop, seen=seen):
            seen.append(done)
            if len(seen) == stop:
                raise KeyboardInterrupt

        model = trained()
        with pytest.raises(KeyboardInterrupt):
            run(name, model, checkpoint=folder, progress=interrupt)
        assert same(model, trained())
        assert (folder / "manifest.json").is_file()
        seen.clear()
        found = run(
            name, checkpoint=folder, progress=lambda done, total, seen=seen: seen.append(done)
        )
        assert len(seen) == steps - stop
        assert same(found.model, expected.model), stop
        assert [row["loss"] for row in found.history] == [row["loss"] for row in expected.history]
        assert found.certificate["steps"] == expected.certificate["steps"]
        assert not folder.exists()


@each_trained
def test_a_spent_budget_can_be_raised(name, tmp_path):
    expected, _ = baseline(name)
    folder = tmp_path / "run"
    first = run(name, checkpoint=folder, changes={"max_steps": 1})
    assert first.stopped == "max_steps"
    found = run(name, checkpoint=folder)
    assert found.stopped == expected.stopped
    assert same(found.model, expected.model)


# ------------------------------------------------------------------ requests
@each
def test_sequence_of_requests(name):
    X, y = data()
    first, rest = split_classes((X, y), CLASS)
    second, _ = split_classes(rest, 3)
    model = trained()
    before = fingerprint(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = unlearn_sequence(small(name), model, [first, second], retain=(X, y))
    assert fingerprint(model) == before
    assert [result.classes for result in results] == [[1], [3]]
    assert results[1].certificate["sha256_before"] == results[0].certificate["sha256_after"]
    assert results[0].certificate["n_retain"] == 72
    assert results[1].certificate["n_retain"] == 48
