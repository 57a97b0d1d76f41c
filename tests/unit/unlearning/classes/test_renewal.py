"""New weights: when, from what they learn, what a failure leaves."""

import pytest
import torch
from torch import nn
from unlearning_world import data, net, trained

from unlearning import ConceptPoisoning, split_classes
from unlearning.classes.concepts import renewal
from unlearning.classes.concepts.renewal import mix_with_new
from unlearning.classes.distillation import random_teacher


@pytest.fixture(scope="module")
def parts():
    forget, retain = split_classes(data(240), 1)
    return {"forget": forget, "retain": retain}


@pytest.fixture(scope="module")
def result(parts):
    return ConceptPoisoning(random_state=0).unlearn(trained(), **parts)


def weights(model):
    return torch.cat([v.float().flatten() for v in model.state_dict().values()])


def test_weights_are_a_mean_of_old_and_new():
    model, old = net(), net()
    new = random_teacher(model, 3)
    model.head.bias.requires_grad_(False)
    mix_with_new(model, 0.25, 3)
    for (name, own), a, b in zip(
        model.named_parameters(), old.parameters(), new.parameters(), strict=True
    ):
        expected = a if name == "head.bias" else 0.75 * a + 0.25 * b
        torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-5)


def test_the_default_learns_from_retained_samples_alone(parts, result):
    assert result.details["renewed"] == renewal.SHARE
    assert result.details["not_renewed"] == ""
    X, y = parts["forget"].inputs, parts["forget"].y
    # Other samples of the class, that are told to be it as little: the same bits come out.
    other = ConceptPoisoning(random_state=0).unlearn(
        trained(), forget=(X.flip(0) * 0.999, y), retain=parts["retain"]
    )
    assert other.details["renewed"] == renewal.SHARE
    assert torch.equal(weights(result.model), weights(other.model))


def test_running_statistics_are_those_of_one_pass(parts, result):
    """Of samples in batches of 256, the mean over batches; here less than one batch is kept."""
    kept = parts["retain"]
    seen = []
    handle = result.model.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        result.model(kept.inputs)
    handle.remove()
    mean = seen[0].mean(dim=(2, 3))
    n_held = round(0.05 * len(kept))
    # The training part lacks n_held samples; its mean lies within what they can move it.
    reach = (mean.amax(0) - mean.amin(0)) * n_held / (len(kept) - n_held)
    assert bool(((result.model.norm.running_mean - mean.mean(0)).abs() <= reach + 1e-5).all())
    assert result.model.norm.momentum == 0.1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": "soft"}, "labels is asked for"),
        ({"poison": "mask"}, "poison is asked for"),
        ({"lr": 1e-3}, "lr is asked for"),
        ({"renew": 0}, "renew=0"),
        ({"max_steps": 2}, "max_steps=2 is too few"),
    ],
)
def test_what_is_asked_for_is_done_instead(parts, changes, reason):
    method = ConceptPoisoning(**{"random_state": 0, "max_steps": 1, **changes})
    found = method.unlearn(trained(), **parts)
    assert found.details["not_renewed"] == reason
    assert found.details["renewed"] == 0
    assert found.certificate["steps"] <= 2


class Wide(nn.Module):
    """A network with weights that take no part in its answers."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.spare = inner, nn.Linear(192, 200)

    def forward(self, x):
        return self.inner(x)


def test_few_samples_and_many_weights_are_seen_beforehand(parts):
    forget, retain = parts["forget"], parts["retain"]
    method = ConceptPoisoning(random_state=0, max_seconds=1e-3)
    few = retain.select(torch.cat([torch.where(retain.y == c)[0][:39] for c in (0, 2, 3)]))
    found = method.unlearn(trained(), forget=forget, retain=few)
    assert "only 39 samples" in found.details["not_renewed"]
    found = method.unlearn(Wide(trained()), **parts)
    assert "180 retained samples are few for" in found.details["not_renewed"]
    part = trained()
    part.conv.weight.requires_grad_(False)
    found = method.unlearn(part, **parts)
    assert found.details["not_renewed"] == "parts of the network are frozen"


def test_where_the_samples_do_not_bring_it_back_its_own_weights_are_taught(parts, monkeypatch):
    monkeypatch.setattr(renewal, "LOST", -1.0)  # nothing can be good enough
    monkeypatch.setattr(renewal, "_STEPS", 1)
    monkeypatch.setattr(renewal, "_EPOCHS", 1)
    method = ConceptPoisoning(random_state=0)
    found = method.unlearn(trained(), **parts)
    assert found.details["renewed"] == 0
    assert "did not bring back" in found.details["not_renewed"]
    assert found.details["labels"] == "retained_head"
    assert any("New weights did not learn again" in text for text in found.warnings)
    stages = [row["stage"] for row in found.history]
    assert stages.count("renew") == 2
    assert "concept poisoning" in stages


@pytest.mark.parametrize("steps", [7, 121])
def test_an_interrupted_run_goes_on_to_the_same_bits(parts, tmp_path, steps):
    """In the first stage, and in the one that follows where a share was asked for."""
    options = {"renew": 0.5, "epochs": 1, "min_steps": 0, "stop": False, "random_state": 0}
    whole = ConceptPoisoning(**options).unlearn(trained(), **parts)
    folder = tmp_path / "run"
    first = ConceptPoisoning(max_steps=steps, **options).unlearn(
        trained(), **parts, checkpoint=folder
    )
    assert first.stopped == "max_steps"
    second = ConceptPoisoning(**options).unlearn(trained(), **parts, checkpoint=folder)
    assert torch.equal(weights(whole.model), weights(second.model))
    assert [row["stage"] for row in second.history].count("renew") > 1
