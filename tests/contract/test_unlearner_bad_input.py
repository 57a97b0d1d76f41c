"""What a request may get wrong: each has an answer that says so, and the model stays."""

import os
import signal
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from unlearning_world import CLASS, data, net, request, same, small, trained

from conceptlab.errors import CheckpointError, InputError, SplitError
from conceptlab.provenance import fingerprint
from unlearning import (
    FineTune,
    FisherForgetting,
    LogitMask,
    Retrain,
    UnlearnResult,
    as_samples,
    split_classes,
    unlearn_sequence,
)
from unlearning.notices import UnlearningWarning


def refused(match, code, method=None, model=None, **options):
    """Check that a request is refused before anything happens to the model."""
    model = trained() if model is None else model
    before = fingerprint(model) if isinstance(model, nn.Module) else None
    kind = SplitError if code.startswith("CL-SPLIT") else InputError
    with pytest.raises(kind, match=match) as caught:
        (method or LogitMask()).unlearn(model, **{**request(), **options})
    assert caught.value.code == code
    if before is not None:
        assert fingerprint(model) == before


def test_overlap_is_found_by_content_and_named():
    (X, _), (rest, labels) = request()["forget"], request()["retain"]
    both = torch.cat([rest, X[2:3]]), torch.cat([labels, torch.tensor([0])])
    refused(r"overlap: 1 samples .*forget\[2\] = retain\[72\]", "CL-INPUT-LABELS", retain=both)


def test_retained_samples_of_the_class():
    rest, labels = request()["retain"]
    labels = labels.clone()
    labels[:3] = CLASS
    refused("3 samples of class 1", "CL-INPUT-LABELS", retain=(rest, labels))


def test_absent_and_empty_class():
    with pytest.raises(InputError, match="Class 9 is not in `data`") as caught:
        split_classes(data(), 9)
    assert caught.value.code == "CL-INPUT-LABELS"
    with pytest.raises(InputError, match="none given"):
        split_classes(data(), [])
    X, y = data()
    refused("`forget` is empty", "CL-INPUT-EMPTY", forget=(X[:0], y[:0]))
    refused("`retain` is empty", "CL-INPUT-EMPTY", retain=(X[:0], y[:0]))
    refused("`forget` is empty", "CL-INPUT-EMPTY", forget=[])
    empty = DataLoader(TensorDataset(X[:0], y[:0]), batch_size=4)
    refused("`forget` is empty", "CL-INPUT-EMPTY", forget=empty)


def test_one_class_left():
    X, y = request()["retain"]
    refused("one class", "CL-INPUT-FEW", retain=(X[y == 0], y[y == 0]))


@pytest.mark.parametrize("answer", [None, "text", {"scores": torch.zeros(2, 4)}, ()])
def test_model_without_logits(answer):
    class Mute(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = trained()

        def forward(self, x):
            self.inner(x)
            return answer

    refused("must return logits", "CL-SPLIT-OUTPUT", model=Mute())


def test_model_with_maps_of_scores():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    refused(r"tensor of shape \(2, 4, 6, 6\)", "CL-SPLIT-OUTPUT", model=model)


def test_labels_out_of_range():
    X, y = request()["retain"]
    refused(
        "`retain` must be class indices 0 to 3, got 0 to 9",
        "CL-INPUT-LABELS",
        retain=(X, torch.where(y == 3, 9, y)),
    )
    refused("got -1 to 3", "CL-INPUT-LABELS", retain=(X, torch.where(y == 0, -1, y)))
    forget = request()["forget"]
    refused("`forget`", "CL-INPUT-LABELS", forget=(forget[0], forget[1] + 7))
    refused("`valid`", "CL-INPUT-LABELS", valid=(X, torch.where(y == 3, 9, y)))


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (lambda y: nn.functional.one_hot(y, 4), "argmax"),
        (lambda y: y + 0.5, "class indices"),
        (lambda y: ["cat"] * len(y), "class indices"),
        (lambda y: y[:-1], "72 inputs and 71 labels"),
    ],
)
def test_labels_that_are_none(labels, match):
    X, y = request()["retain"]
    with pytest.raises(InputError, match=match):
        as_samples((X, labels(y)), name="retain")


def test_inputs_that_are_none():
    X, y = data()
    spoilt = X.clone()
    spoilt[5, 0, 0, 0] = torch.nan
    for value, match in [
        (((X * 255).to(torch.uint8), y), r"images.float\(\) / 255"),
        ((spoilt, y), "1 samples, the first at index 5"),
        ({"pixels": X}, "labels under 'labels'"),
        ({"pixels": X, "more": X[:3], "labels": y}, "differ in length"),
        (7, "must be"),
        ([1, 2, 3], "must be"),
        ([(X[0], 0), (X[0, :, :4], 1)], "differ in shape"),
    ]:
        with pytest.raises(InputError, match=match):
            as_samples(value, name="data")


def test_sets_of_different_kinds():
    X, y = request()["retain"]
    refused(
        r"`retain` have shape \(3, 8, 6\), those of `forget` \(3, 8, 8\)",
        "CL-INPUT-SHAPE",
        retain=(X[..., :6], y),
    )
    refused(r"`valid` have shape \(2, 8, 8\)", "CL-INPUT-SHAPE", valid=(X[:, :2], y))
    refused("`retain` have type torch.int64", "CL-INPUT-TYPE", retain=((9 * X).long(), y))
    refused(
        "`retain` is a mapping and `forget` is a tensor",
        "CL-INPUT-TYPE",
        retain={"pixels": X, "labels": y},
    )


def test_texts_of_other_lengths_or_keys():
    ids = torch.arange(40).reshape(4, 10)
    short = {"input_ids": ids[:, :7] + 100, "labels": [0, 1, 0, 1]}
    for retain, code, match in (
        (short, "CL-INPUT-SHAPE", r"'input_ids' of shape \(7,\).*Pad texts to one length"),
        ({**short, "attention_mask": ids}, "CL-INPUT-SHAPE", "has the inputs attention_mask, inp"),
    ):
        forget = {"input_ids": ids, "labels": [2] * 4}
        refused(match, code, forget=forget, retain=retain)


def test_augmentation_that_gives_something_else():
    for augment, match in (
        (lambda x, _: x[:3], r"got Tensor of shape \(3, 3, 8, 8\)"),
        (lambda x, _: None, "got NoneType"),
        (lambda x, _: {"x": x}, "got dict"),
    ):
        method = FineTune(epochs=1, augment=augment, random_state=0)
        refused(match, "CL-INPUT-SHAPE", method=method)


def test_model_that_is_none():
    refused("torch.nn.Module", "CL-INPUT-TYPE", model="resnet50")
    headless = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Tanh())
    refused("head='name'", "CL-SPLIT-LAYER", model=headless)
    refused("softmax", "CL-SPLIT-OUTPUT", model=nn.Sequential(*headless[:-1], nn.Softmax(1)))
    refused("Did you mean 'head'", "CL-SPLIT-LAYER", method=LogitMask(head="haed"))


def test_model_that_cannot_be_copied():
    model = trained()
    model.kept = model(data()[0][:2])  # a result with a graph, which deepcopy refuses
    refused("cannot be copied", "CL-INPUT-TYPE", model=model)


def test_frozen_parameters_stay_unless_all_are():
    model = trained()
    model.conv.requires_grad_(False)
    found = FineTune(epochs=1, random_state=0).unlearn(model, **request()).model
    assert torch.equal(found.conv.weight, model.conv.weight)
    assert not torch.equal(found.head.weight, model.head.weight)
    model.requires_grad_(False)
    found = FineTune(epochs=1, random_state=0).unlearn(model, **request()).model
    assert not torch.equal(found.conv.weight, model.conv.weight)
    assert not any(p.requires_grad for p in found.parameters())


# ---------------------------------------------------------------------- NaN
def test_nan_rewinds_to_the_last_good_state_and_says_so():
    calls = SimpleNamespace(n=0)

    def spoil(images, generator):
        calls.n += 1
        return images * torch.nan if calls.n > 7 else images

    plain = FineTune(epochs=2, batch_size=32, random_state=0).unlearn(trained(), **request())
    calls.n = 0
    model = trained()
    method = FineTune(epochs=4, batch_size=32, augment=spoil, random_state=0)
    with pytest.warns(UnlearningWarning, match=r"epoch 3, batch 2 .*Use a smaller lr"):
        result = method.unlearn(model, **request())
    assert result.stopped == "nan: rewound"
    assert result.certificate["stopped"] == "nan: rewound"
    assert same(result.model, plain.model)  # the state at the end of epoch 2
    assert same(model, trained())
    assert len(result.history) == 2


def test_weights_that_became_nan_without_a_loss_are_found():
    model = trained()
    with pytest.warns(UnlearningWarning):
        result = FineTune(
            lr=1e38, weight_decay=1e10, epochs=1, batch_size=96, random_state=0
        ).unlearn(model, **request())
    assert result.stopped == "nan: rewound"
    assert same(result.model, model)


def test_model_whose_weights_are_nan():
    model = trained()
    nn.init.constant_(model.conv.bias, torch.nan)
    with pytest.raises(InputError, match=r"'conv.bias' hold NaN or infinity") as caught:
        LogitMask().unlearn(model, **request())
    assert caught.value.code == "CL-INPUT-NONFINITE"


def test_weights_that_a_method_without_steps_ruins_are_the_original_s_again():
    model = trained()
    with pytest.warns(UnlearningWarning, match="weights are those of the original again"):
        result = FisherForgetting(alpha=1e38, random_state=0).unlearn(model, **request())
    assert result.stopped == "nan: rewound"
    assert same(result.model, model)


# ------------------------------------------------------------- interruptions
def test_ctrl_c_while_weights_are_loaded_in_place_comes_after_them():
    expected = LogitMask().unlearn(trained(), **request()).model

    class Slow(type(net())):
        def load_state_dict(self, *args, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return super().load_state_dict(*args, **options)

    model = Slow()
    nn.Module.load_state_dict(model, trained().state_dict())
    with pytest.raises(KeyboardInterrupt):
        LogitMask().unlearn(model.eval(), inplace=True, **request())
    assert same(model, expected)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


PLAN = SimpleNamespace(calls=0, at=-1, what=None)


def augment(images, generator):
    """Noise that is drawn, so that a resumed run must draw the same; may break on plan."""
    PLAN.calls += 1
    if PLAN.calls == PLAN.at:
        PLAN.what()
    return images + 0.05 * torch.randn(images.shape, generator=generator)


def broken(name, folder, at, what, error):
    """Run a method that breaks at a call of `augment`; give the run to its end without that."""
    PLAN.calls, PLAN.at, PLAN.what = 0, at, what
    method = small(name, augment=augment)
    with pytest.raises(error):
        method.unlearn(trained(), checkpoint=folder, **request())
    assert (folder / "manifest.json").is_file()
    PLAN.at = -1
    return method.unlearn(trained(), **request()), method.unlearn(
        trained(), checkpoint=folder, **request()
    )


@pytest.mark.parametrize("at", [1, 4, 9])
def test_ctrl_c_lets_the_step_end_and_the_run_go_on(tmp_path, at):
    before = signal.getsignal(signal.SIGINT)
    expected, found = broken(
        "NegGradPlus",
        tmp_path / "run",
        at,
        lambda: os.kill(os.getpid(), signal.SIGINT),
        KeyboardInterrupt,
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert same(found.model, expected.model)


def test_checkpoint_is_written_on_the_clock(tmp_path, monkeypatch):
    from conceptlab.training import checkpoint

    def power_cut():
        raise RuntimeError("power cut")

    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    expected, found = broken("FineTune", tmp_path / "run", 5, power_cut, RuntimeError)
    assert same(found.model, expected.model)
    assert found.certificate["steps"] == expected.certificate["steps"]


def test_checkpoint_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "run"
    small("FineTune", max_steps=1).unlearn(trained(), checkpoint=folder, **request())
    for method, model in (
        (small("FineTune", lr=0.5), trained()),
        (small("RandomLabel"), trained()),
        (small("FineTune", random_state=3), trained()),
        (small("FineTune"), net(seed=4)),
    ):
        with pytest.raises(CheckpointError, match="another run \\(") as caught:
            method.unlearn(model, checkpoint=folder, **request())
        assert caught.value.code == "CL-CHECKPOINT-KIND"
    (folder / "data.json").write_text("{}")
    with pytest.raises(CheckpointError, match="changed or truncated"):
        small("FineTune").unlearn(trained(), checkpoint=folder, **request())


def test_interrupted_run_with_a_drawn_seed_keeps_its_seed(tmp_path):
    first = small("FineTune", random_state=None, max_steps=2).unlearn(
        trained(), checkpoint=tmp_path / "run", **request()
    )
    second = small("FineTune", random_state=None).unlearn(
        trained(), checkpoint=tmp_path / "run", **request()
    )
    assert second.seed == first.seed
    assert same(
        second.model,
        small("FineTune", random_state=first.seed).unlearn(trained(), **request()).model,
    )


# ------------------------------------------------------------------- retrain
def test_retrain_refuses_what_is_no_new_model():
    model = trained()
    for build, match in (
        (lambda: "net", "torch.nn.Module"),
        (lambda: model, "the given model itself"),
        (lambda: net(classes=3), "3 outputs"),
        ("net", "callable"),
    ):
        with pytest.raises(InputError, match=match):
            Retrain(build, epochs=1).unlearn(model, **request())

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = net(), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.inner(x) * self.scale

    with pytest.raises(InputError, match=r"\(scale\).*Retrain\(build="):
        Retrain(epochs=1).unlearn(Own(), **request())


def test_another_architecture_cannot_be_loaded_in_place():
    def wider():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))

    model = trained()
    with pytest.raises(InputError, match="inplace=False"):
        Retrain(wider, epochs=1, random_state=0).unlearn(model, inplace=True, **request())
    assert same(model, trained())
    found = Retrain(wider, epochs=1, random_state=0).unlearn(model, **request()).model
    assert found(data()[0][:2]).shape == (2, 4)


def test_result_is_not_loaded_into_another_model(tmp_path):
    result = LogitMask().unlearn(trained(), **request())
    result.save(tmp_path / "result")
    with pytest.raises(CheckpointError, match="do not fit"):
        UnlearnResult.load(tmp_path / "result", nn.Linear(2, 2))


def test_sequence_needs_requests():
    with pytest.raises(InputError, match="requests is empty"):
        unlearn_sequence(LogitMask(), trained(), [], retain=request()["retain"])


def test_reading_random_data_leaves_the_global_state(global_state_untouched):
    X, y = data()

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return X[i] + torch.rand(1) + float(np.random.rand()), int(y[i])  # noqa: NPY002

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(as_samples(DataLoader(Noisy(), batch_size=3, shuffle=True))) == 8
