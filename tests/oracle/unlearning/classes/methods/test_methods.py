"""Losses and labels of the plain methods, derived again; heads and data."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conceptlab.errors import SplitError
from unlearning import (
    DELETE,
    FineTune,
    GradientAscent,
    LogitMask,
    NegGradPlus,
    RandomLabel,
    Retrain,
    SoftRelabel,
    as_samples,
    features_and_logits,
    find_head,
    split_classes,
)
from unlearning.classes.methods.retrain import redraw_parameters
from unlearning.data import concat

N = 24


def world():
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(N, 5, generator=generator), torch.arange(N) % 4
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model, *split_classes((X, y), 2)


def one_step(method, expected):
    """Compare the change of one step of plain descent with -lr times a gradient."""
    model, forget, retain = world()
    found = method.unlearn(model, forget=forget, retain=retain).model
    loss = expected(model, forget, retain)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    for before, after, slope in zip(model.parameters(), found.parameters(), slopes, strict=True):
        torch.testing.assert_close(after, before - 0.1 * slope, atol=1e-5, rtol=1e-4)


PLAIN = {
    "epochs": 1,
    "lr": 0.1,
    "batch_size": N,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "random_state": 0,
}


def error_of(model, samples, y=None):
    return functional.cross_entropy(model(samples.inputs), samples.y if y is None else y)


def test_fine_tuning_descends_on_what_is_kept():
    one_step(FineTune(**PLAIN), lambda m, forget, retain: error_of(m, retain))


def test_gradient_ascent_climbs_on_what_is_forgotten():
    one_step(GradientAscent(**PLAIN), lambda m, forget, retain: -error_of(m, forget))


def test_neggrad_plus_weighs_the_two():
    one_step(
        NegGradPlus(weight=0.3, **PLAIN),
        lambda m, forget, retain: 0.7 * error_of(m, retain) - 0.3 * error_of(m, forget),
    )


def test_soft_relabel_teaches_the_other_probabilities():
    """t_j = f_j / (1 - f_c) for all j but c, and the labels on what is kept."""

    def expected(model, forget, retain):
        with torch.no_grad():
            f = model(forget.inputs).softmax(1)
        t = f / (1 - f[:, 2:3])
        t[:, 2] = 0
        both = concat(forget, retain)
        targets = torch.cat([t, functional.one_hot(retain.y, 4).float()])
        return -(targets * model(both.inputs).log_softmax(1)).sum(1).mean()

    one_step(SoftRelabel(**PLAIN), expected)


def test_soft_relabel_can_keep_what_the_original_says():
    def expected(model, forget, retain):
        both = concat(forget, retain)
        with torch.no_grad():
            f = model(both.inputs).softmax(1)
        f[:, 2] = 0
        targets = f / f.sum(1, keepdim=True)
        return -(targets * model(both.inputs).log_softmax(1)).sum(1).mean()

    one_step(SoftRelabel(retain_targets="original", **PLAIN), expected)


def masked(model, forget):
    """Original probabilities by the definition: exp of logits, the class left out, divided."""
    with torch.no_grad():
        scores = model(forget.inputs).exp()
    scores[:, 2] = 0
    return scores / scores.sum(1, keepdim=True)


def test_delete_distils_the_masked_original_on_the_class_alone():
    def expected(model, forget, retain):
        t, f = masked(model, forget), model(forget.inputs).softmax(1)
        others = [0, 1, 3]
        return (t[:, others] * (t[:, others] / f[:, others]).log()).sum(1).mean()

    one_step(DELETE(**PLAIN), expected)
    model, forget, retain = world()
    other = as_samples((retain.inputs + 1, retain.y))  # only its labels count
    first, second = (
        DELETE(**PLAIN).unlearn(model, forget=forget, retain=kept) for kept in (retain, other)
    )
    assert first.certificate["sha256_after"] == second.certificate["sha256_after"]
    assert first.details["mean_target"] == pytest.approx(masked(model, forget).mean(0).tolist())


def test_delete_decouples_forgetting_from_retention():
    """The paper's identity: KL = -log(1 - f_c) + KL(t ‖ f without c, divided by its sum)."""
    model, forget, retain = world()
    t, f = masked(model, forget), model(forget.inputs).detach().softmax(1)
    rest = f[:, [0, 1, 3]] / (1 - f[:, 2:3])
    retention = (t[:, [0, 1, 3]] * (t[:, [0, 1, 3]] / rest).log()).sum(1)
    parts = (retention - (1 - f[:, 2]).log()).mean()
    history = DELETE(**PLAIN).unlearn(model, forget=forget, retain=retain).history
    assert history[0]["loss"] == pytest.approx(float(parts), rel=1e-4)


def test_random_labels_are_even_over_what_is_kept_and_never_the_class():
    X, y = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)), torch.arange(3000) % 5
    forget, retain = split_classes((X, y), [1, 4])
    retain = retain.select(retain.y != 3)  # a class of an earlier request
    model = nn.Linear(2, 5)
    result = RandomLabel(**PLAIN).unlearn(model, forget=forget, retain=retain)
    counts = np.bincount(result.details["labels"], minlength=5)
    assert counts[[1, 3, 4]].tolist() == [0, 0, 0]
    assert counts.sum() == 1200
    assert abs(counts[0] - 600) < 100  # four standard deviations


def test_random_labels_are_what_is_learnt():
    model, forget, retain = world()
    labels = RandomLabel(**PLAIN).unlearn(model, forget=forget, retain=retain).details["labels"]
    y = torch.cat([torch.tensor(labels), retain.y])
    one_step(RandomLabel(**PLAIN), lambda m, forget, retain: error_of(m, concat(forget, retain), y))


def test_retraining_is_a_plain_training_from_new_weights():
    model, forget, retain = world()
    method = Retrain(
        lambda: nn.Linear(5, 4), epochs=2, batch_size=6, lr=0.2, weight_decay=0.0, random_state=5
    )
    found = method.unlearn(model, forget=forget, retain=retain).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        reference = nn.Linear(5, 4)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.2, momentum=0.9)
    for epoch in range(2):
        seed = np.random.SeedSequence([5, 0, epoch]).generate_state(1)[0]
        order = torch.randperm(18, generator=torch.Generator().manual_seed(int(seed)))
        for i in range(3):
            rows = order[6 * i : 6 * i + 6]
            loss = functional.cross_entropy(reference(retain.inputs[rows]), retain.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step = 3 * epoch + i + 1
            optimizer.param_groups[0]["lr"] = 0.1 * (1 + np.cos(np.pi * step / 6))
    torch.testing.assert_close(found.weight, reference.weight)
    torch.testing.assert_close(found.bias, reference.bias)


def test_every_layer_is_drawn_anew_at_any_depth():
    """A reference in which only the last layer is new has seen the class."""
    model = nn.Sequential(
        nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), nn.ReLU()),
        nn.Flatten(),
        nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 3)),
    )
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(7)
    with torch.random.fork_rng(devices=[]):
        redraw_parameters(model)
    assert not any(bool((tensor == 7).any()) for tensor in model.state_dict().values())
    attention = nn.TransformerEncoderLayer(8, 2, 8)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for p in attention.parameters():
            p.fill_(7)
        redraw_parameters(attention)
    assert not any(bool((p == 7).any()) for p in attention.parameters())


def test_logit_mask_leaves_every_other_output_as_it_was():
    model, forget, retain = world()
    with torch.no_grad():
        model[2].bias -= 60  # all logits far below the usual
    found = LogitMask().unlearn(model, forget=forget, retain=retain).model
    X = concat(forget, retain).inputs
    others = [0, 1, 3]
    assert torch.equal(found(X)[:, others], model(X)[:, others])
    assert bool((found(X).softmax(1)[:, 2] < 1e-6).all())
    assert not bool((found(X).argmax(1) == 2).any())


def test_logit_mask_without_intercepts():
    model, forget, retain = world()
    bare = nn.Sequential(model[0], nn.Tanh(), nn.Linear(7, 4, bias=False))
    found = LogitMask().unlearn(bare, forget=forget, retain=retain).model
    X = torch.randn(500, 5, generator=torch.Generator().manual_seed(1)) * 5
    assert not bool((found(X).argmax(1) == 2).any())


# ------------------------------------------------------------------ the head
class Net(nn.Module):
    """The head is registered first, and an auxiliary one last."""

    def __init__(self, convolution=False):
        super().__init__()
        self.head = nn.Conv2d(6, 3, 1) if convolution else nn.Linear(6, 3)
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
        self.side = nn.Linear(6, 5)
        self.convolution = convolution

    def forward(self, x):
        maps = self.body(x)
        pooled = maps.mean((2, 3))
        self.side(pooled)
        return self.head(maps).mean((2, 3)) if self.convolution else self.head(pooled)


@pytest.mark.parametrize("convolution", [False, True])
def test_head_is_found_by_its_answer_and_features_are_what_enters_it(convolution):
    model, x = Net(convolution), torch.rand(4, 1, 6, 6)
    head = find_head(model, x)
    assert (head.name, head.n_classes, head.n_features) == ("head", 3, 6)
    assert find_head(model).name == "side"  # without an example: the last one registered
    x.requires_grad_()
    features, logits = features_and_logits(model, x)
    torch.testing.assert_close(features, model.body(x).mean((2, 3)))
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)
    (slope,) = torch.autograd.grad(features.sum(), x)
    assert float(slope.abs().sum()) > 0
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("pooled", [True, False])
def test_features_over_tokens_are_those_of_the_token_that_is_pooled(pooled):
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.score = nn.Embedding(9, 6), nn.Linear(6, 3)

        def forward(self, input_ids, last):
            scores = self.score(self.embed(input_ids).cumsum(dim=1))
            if not pooled:
                return scores.mean(dim=1)
            return scores[torch.arange(len(last)), last]

    model, ids = Causal(), torch.randint(9, (5, 7))
    last = torch.tensor([6, 2, 4, 0, 5])
    features, logits = features_and_logits(model, {"input_ids": ids, "last": last}, "score")
    sums = model.embed(ids).cumsum(dim=1)
    expected = sums[torch.arange(5), last] if pooled else sums.mean(dim=1)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(model.score(features), logits)


def test_hook_is_gone_after_an_exception():
    model = Net()
    with pytest.raises(RuntimeError):
        features_and_logits(model, torch.rand(2, 4, 6, 6), "head")
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_head_that_something_follows_is_told():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    with pytest.raises(SplitError, match="head='name'"):
        find_head(model, torch.rand(2, 4))
    assert find_head(model, torch.rand(2, 4), head="0").n_classes == 3


# ------------------------------------------------------------------ the data
def test_samples_keep_order_and_hash_content():
    X, y = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    samples = as_samples((X, y))
    assert samples.hashes[0] == as_samples((X[:1].double().numpy(), [2])).hashes[0]
    assert len(set(samples.hashes)) == 6
    assert samples.digest != as_samples((X.flip(0), y.flip(0))).digest
    assert samples.select(y == 1).inputs.tolist() == X[y == 1].tolist()
    batches = list(samples.batches(4))
    assert [len(b[1]) for b in batches] == [4, 2]
    assert torch.equal(torch.cat([b[0] for b in batches]), X)
    mixed = torch.cat([b[1] for b in samples.batches(4, torch.Generator().manual_seed(1))])
    assert sorted(mixed.tolist()) == sorted(y.tolist())
    assert len(list(samples.batches(4, drop_last=True))) == 1
    assert [len(b[1]) for b in samples.batches(5)] == [6]  # nothing trains on one sample
    assert [len(b[1]) for b in samples.batches(1)] == [1] * 6
    assert [len(b[1]) for b in samples.batches(5, drop_last=True)] == [5]
    texts = as_samples({"input_ids": torch.arange(6)[:, None], "labels": y})
    assert [b[0]["input_ids"].shape for b in texts.batches(4)] == [(4, 1), (2, 1)]
