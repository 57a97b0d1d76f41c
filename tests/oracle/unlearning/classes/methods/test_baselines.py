"""Formulas of the baselines of class unlearning, derived again by hand or by a library."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from conceptlab.errors import InputError
from unlearning import (
    SCRUB,
    SSD,
    UNSIR,
    BadTeacher,
    BoundaryExpand,
    BoundaryShrink,
    FisherForgetting,
    L1Sparse,
    SalUn,
    split_classes,
)
from unlearning.classes.curvature import fisher_diagonal, squared_gradients
from unlearning.classes.distillation import kl_to_teacher, random_teacher
from unlearning.classes.methods.boundary import nearest_labels, perturb
from unlearning.classes.methods.fisher import noise_variance
from unlearning.classes.methods.salun import other_labels, saliency_mask
from unlearning.classes.methods.ssd import dampening


def small_net(seed=0):
    """Make a convolutional net with batch norm in eval mode, with its own statistics."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        yield


# -- divergence to a teacher
@given(st.integers(0, 1000), st.sampled_from([0.5, 1.0, 4.0]))
def test_divergence_against_torch_distributions(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        3 * torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    p, q = (torch.distributions.Categorical(logits=v / temperature) for v in (teacher, student))
    expected = torch.distributions.kl_divergence(p, q).mean()
    assert float(kl_to_teacher(student, teacher, temperature)) == pytest.approx(float(expected))


def test_divergence_is_the_batch_mean_of_torch():
    student, teacher = torch.randn(4, 6), torch.randn(4, 6)
    expected = nn.functional.kl_div(
        student.log_softmax(1), teacher.softmax(1), reduction="batchmean"
    )
    assert float(kl_to_teacher(student, teacher)) == pytest.approx(float(expected), rel=1e-5)


def test_divergence_of_the_far_tail_is_finite():
    student = torch.tensor([[0.0, 200.0]])
    value = kl_to_teacher(student, -student)
    assert float(value) == pytest.approx(200.0)


def test_divergence_refuses_other_shapes():
    with pytest.raises(InputError, match="one shape"):
        kl_to_teacher(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="above 0"):
        kl_to_teacher(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)


# -- teacher that knows nothing
def test_random_teacher_is_new_at_every_depth():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.arange(6.0))
            self.block = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.BatchNorm1d(4))
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.block(x + self.token[:4]))

    model = Deep()
    model.block[1].running_mean.fill_(7.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (random_teacher(model, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    for name in ("token", "block.0.0.weight", "head.weight"):
        new = first.get_parameter(name)
        assert not torch.equal(new, before[name])
        assert torch.equal(new, again.get_parameter(name))
        assert not torch.equal(new, other.get_parameter(name))
    assert torch.equal(first.token.sort().values, before["token"])  # shuffled: the scale stays
    assert float(first.block[1].running_mean.abs().max()) == 0.0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())


# -- Fisher information
def logistic():
    """Make a softmax classifier with data."""
    generator = torch.Generator().manual_seed(3)
    net = nn.Linear(4, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    return net, torch.randn(40, 4, generator=generator, dtype=torch.float64)


def closed_form(net, x):
    """F of W_cj is mean p_c (1 - p_c) x_j², and of b_c mean p_c (1 - p_c)."""
    p = net(x).softmax(1).detach()
    v = p * (1 - p)
    return {"weight": v.T @ x.square() / len(x), "bias": v.mean(0)}


def test_fisher_of_a_logistic_model_is_its_closed_form():
    net, x = logistic()
    found = fisher_diagonal(net, x.split(16))
    for name, expected in closed_form(net, x).items():
        torch.testing.assert_close(found[name], expected)


def test_sampled_fisher_agrees_in_the_mean():
    net, x = logistic()
    generator = torch.Generator().manual_seed(0)
    draws = [
        fisher_diagonal(net, x.split(16), labels="sampled", generator=generator) for _ in range(400)
    ]
    for name, expected in closed_form(net, x).items():
        values = torch.stack([d[name] for d in draws])
        error = (values.mean(0) - expected).abs() / (values.std(0) / len(draws) ** 0.5)
        assert float(error.max()) < 4


def test_vectorised_fisher_is_that_of_single_samples(monkeypatch):
    net, x = small_net(), torch.randn(5, 1, 4, 4)
    fast = fisher_diagonal(net, [x])

    def refuse(*_, **__):
        raise RuntimeError("data-dependent control flow")

    monkeypatch.setattr("unlearning.classes.curvature.vmap", lambda *_, **__: refuse)
    slow = fisher_diagonal(net, [x])
    for name, value in fast.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-4, atol=1e-7)


def test_fisher_takes_dicts_tuples_and_frozen_parameters():
    class Dicts(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, scale):
            return type("Answer", (), {"logits": self.net(x) * scale[:, None]})()

    net, x = logistic()
    net.bias.requires_grad_(False)
    found = fisher_diagonal(Dicts(net), [{"x": x, "scale": torch.ones(len(x)).double()}])
    assert list(found) == ["net.weight"]
    torch.testing.assert_close(found["net.weight"], closed_form(net, x)["weight"])


def test_squared_gradients_by_hand():
    net = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -1.0]]))
    batches = [torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 5.0]])]
    # The loss is the mean output of a batch: its gradient is the mean row.
    found = squared_gradients(net, batches, lambda x: net(x).mean())
    expected = (np.array([2.0, 1.0]) ** 2 + np.array([0.0, 5.0]) ** 2) / 2
    np.testing.assert_allclose(found["weight"][0].numpy(), expected)
    assert net.weight.grad is None


def test_no_batch_is_an_error():
    net, _ = logistic()
    for call in (lambda: fisher_diagonal(net, []), lambda: squared_gradients(net, [], net)):
        with pytest.raises(InputError, match="no "):
            call()
    with pytest.raises(InputError, match="exact"):
        fisher_diagonal(net, [], labels="exat")


# -- methods
def problem(n=90, classes=3):
    """Make images of which the class is a bright pixel, and a net that knows them."""
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(n) % classes
    x = 0.3 * torch.randn(n, 1, 4, 4, generator=generator)
    x[torch.arange(n), 0, 1, y] += 2.0
    net = small_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.requires_grad_(True), *split_classes((x, y), 0)


def accuracy(model, samples):
    with torch.no_grad():
        return float((model(samples.inputs).argmax(1) == samples.y).float().mean())


def test_mask_is_that_of_a_linear_net_by_hand():
    net, x = logistic()
    y = torch.arange(40) % 3
    p = net(x).softmax(1).detach()
    slope = (p - torch.eye(3, dtype=p.dtype)[y]).T  # of CE in the logits
    by_hand = torch.cat([(slope @ x).abs().flatten(), slope.sum(1).abs()])
    bound = by_hand.sort(descending=True).values[round(0.4 * 15) - 1]
    mask = saliency_mask(net, zip(x.split(7), y.split(7), strict=True), 0.4)
    assert torch.equal(torch.cat([mask["weight"].flatten(), mask["bias"]]), by_hand >= bound)


@given(st.floats(0.05, 1.0))
def test_mask_marks_as_many_as_asked(share):
    net, x = logistic()
    mask = saliency_mask(net, [(x, torch.zeros(40, dtype=torch.int64))], share)
    assert sum(int(m.sum()) for m in mask.values()) == max(1, round(share * 15))


def test_salun_keeps_the_bits_of_all_other_weights():
    net, forget, retain = problem()
    # Weight decay and momentum pull at every entry.
    method = SalUn(3, 0.05, share=0.3, batch_size=16, weight_decay=0.1, random_state=0)
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    mask = saliency_mask(net, [(forget.inputs, forget.y)], 0.3)
    for name, p in net.named_parameters():
        new = result.model.get_parameter(name)
        assert torch.equal(new[~mask[name]], p[~mask[name]])
        assert not mask[name].any() or not torch.equal(new[mask[name]], p[mask[name]])
    assert result.details["share"] == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("order", ["mixed", "forget first"])
def test_random_labels_are_never_the_forgotten_class(order, monkeypatch):
    net, forget, retain = problem()
    seen = []

    def record(job, n):
        seen.append(other_labels(job, n))
        return seen[-1]

    monkeypatch.setattr("unlearning.classes.methods.salun.other_labels", record)
    SalUn(4, order=order, random_state=0).unlearn(net, forget=forget, retain=retain)
    assert len(seen) == 4
    assert not torch.equal(seen[0], seen[1])
    assert {int(c) for labels in seen for c in labels} == {1, 2}


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), min_size=1, max_size=20),
    st.floats(0.5, 50),
    st.floats(0.05, 5),
)
def test_dampening_follows_its_formula(pairs, alpha, lam):
    whole, forget = (torch.tensor(v, dtype=torch.float64) for v in zip(*pairs, strict=True))
    found = dampening(whole, forget, alpha, lam)
    for w, f, factor in zip(whole.tolist(), forget.tolist(), found.tolist(), strict=True):
        expected = min(lam * w / f, 1.0) if f > alpha * w else 1.0
        assert factor == pytest.approx(expected)


def test_dampening_with_gradients_by_hand():
    # One sample a batch, one weight vector: the loss of (x, 0) is log(1 + exp(w·x)).
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

        def forward(self, x):
            z = x @ self.w
            return torch.stack([torch.zeros_like(z), z], dim=1)

    x = torch.tensor([[1.0, 0.0, 0.2], [0.0, 3.0, 0.2], [0.0, 1.0, 0.2], [0.1, 2.0, 0.2]])
    y = torch.tensor([0, 1, 1, 1])

    # Two outputs leave one class only, which the interface refuses: three, of which one is spare.
    class Three(Two):
        def forward(self, x):
            return torch.cat([super().forward(x), torch.full((len(x), 1), -9.0)], dim=1)

    y[-1] = 2
    model = Three()
    gradients = []
    for row, label in zip(x, y, strict=True):
        p = model(row[None]).softmax(1)[0, 1]
        gradients.append(((p - float(label == 1)) * row).detach())
    squares = torch.stack(gradients).square()
    whole, forget = squares.mean(0), squares[0]
    factor = torch.where(forget > 2 * whole, (whole / forget).clamp(max=1), 1.0)
    method = SSD(alpha=2.0, batch_size=1, random_state=0)
    result = method.unlearn(model, forget=(x[:1], y[:1]), retain=(x[1:], y[1:]))
    torch.testing.assert_close(result.model.w, model.w * factor)
    assert result.details["dampened"] == int((factor < 1).sum()) > 0


def test_fast_gradient_sign_by_hand():
    net, x = logistic()
    y = torch.arange(40) % 3
    p = net(x).softmax(1).detach()
    slope = (p - torch.eye(3, dtype=p.dtype)[y]) @ net.weight.detach()
    moved = perturb(net, x, y, 0.25)
    torch.testing.assert_close(moved, x + 0.25 * slope.sign())
    assert float(perturb(net, x, y, 0.25, (-0.5, 0.5)).abs().max()) == 0.5
    assert net.weight.grad is None


def test_shrink_gives_labels_of_neighbours():
    net, forget, retain = problem()
    run = {"forget": forget, "retain": retain, "progress": False}
    result = BoundaryShrink(lr=0.02, batch_size=16, random_state=0).unlearn(net, **run)
    assert "0" not in result.details["labels"]
    assert sum(result.details["labels"].values()) == len(forget)
    assert accuracy(result.model, forget) < 0.1
    kept = BoundaryShrink(bound=1e-6, stay="keep", random_state=0).unlearn(net, **run)
    assert kept.details["labels"] == {"0": len(forget)}  # a tiny step leaves the class


def test_expand_cuts_its_output_off():
    net, forget, retain = problem()
    method = BoundaryExpand(lr=0.02, batch_size=16, random_state=0)
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    before, after = net.state_dict(), result.model.state_dict()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    assert accuracy(result.model, forget) < 0.1
    # The further output pushed the class's own one down.
    fall = (result.model(forget.inputs) - net(forget.inputs)).detach()
    assert float(fall[:, 0].mean()) < 0


def test_expand_takes_one_step_as_by_hand():
    net, forget, retain = problem()
    method = BoundaryExpand(1, 0.1, batch_size=1000, momentum=0.0, norm="frozen", random_state=7)
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    generator = torch.Generator().manual_seed(7)
    drawn = (2 * torch.rand(17, generator=generator) - 1) * 16**-0.5
    features = net[:4](forget.inputs).detach()
    wide = torch.cat([net[4](features), (features @ drawn[:-1] + drawn[-1])[:, None]], dim=1)
    p = wide.softmax(1).detach()[:, :3]
    torch.testing.assert_close(
        result.model[4].weight, net[4].weight - 0.1 * p.T @ features / len(p)
    )


def test_scrub_takes_turns(monkeypatch):
    net, forget, retain = problem()
    steps = []

    class Watched(SCRUB):
        def _unlearn(self, job):
            train = job.train

            def watch(batches, loss, optimizer, **options):
                def look(step):
                    steps.append((job.epoch, step[0]))
                    return loss(step)

                return train(batches, look, optimizer, **options)

            job.train = watch
            return super()._unlearn(job)

    method = Watched(4, max_epochs=2, batch_size=20, forget_batch_size=15, random_state=0)
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    first = ["forget"] * 2 + ["retain"] * 3  # 30 and 60 samples
    expected = [(e, part) for e in range(4) for part in (first if e < 2 else first[2:])]
    assert steps == expected
    assert len(result.history) == 4


def test_scrub_minimises_its_losses_by_hand():
    net, forget, retain = problem()
    settings = {"max_epochs": 1, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    method = SCRUB(
        1,
        0.1,
        **settings,
        alpha=0.7,
        gamma=0.3,
        temperature=3.0,
        batch_size=1000,
        decay_epochs=(),
        random_state=0,
    )
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    twin = copy.deepcopy(net)
    for part in (forget, retain):
        student, teacher = twin(part.inputs), net(part.inputs).detach()
        p, q = (torch.distributions.Categorical(logits=v / 3) for v in (teacher, student))
        kl = 9 * torch.distributions.kl_divergence(p, q).mean()
        entropy = nn.functional.cross_entropy(student, part.y)
        loss = -kl if part is forget else 0.3 * entropy + 0.7 * kl
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, g in zip(twin.parameters(), gradients, strict=True):
                p -= 0.1 * g
    for p, expected in zip(result.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-6)


def test_scrub_rewinds_to_the_nearest_error():
    net, forget, retain = problem()
    half = forget.select(torch.arange(len(forget)) % 2 == 0)
    held = forget.select(torch.arange(len(forget)) % 2 == 1)
    method = SCRUB(6, 0.02, max_epochs=6, batch_size=16, rewind=True, random_state=0)
    result = method.unlearn(net, forget=half, retain=retain, valid=held, progress=False)
    facts = result.details
    distances = [abs(e - facts["reference_error"]) for e in facts["forget_error"]]
    assert distances[facts["rewound_to_epoch"] - 1] == min(distances)
    assert 1 - accuracy(result.model, half) == pytest.approx(
        facts["forget_error"][facts["rewound_to_epoch"] - 1]
    )
    with pytest.raises(InputError, match="no `valid`"):
        method.unlearn(net, forget=half, retain=retain)
    with pytest.raises(InputError, match=r"classes \[1, 2\]"):
        method.unlearn(net, forget=half, retain=retain, valid=retain)


def test_scrub_lowers_its_rate():
    net, forget, retain = problem()
    method = SCRUB(4, 0.01, decay_epochs=(1, 3), random_state=0)
    history = method.unlearn(net, forget=forget, retain=retain, progress=False).history
    assert [row["lr"] for row in history] == pytest.approx([0.01, 1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize("augment", [None, lambda images, generator: images])
def test_bad_teacher_takes_one_step_as_by_hand(augment):
    net, forget, retain = problem()
    teacher = small_net(9)
    method = BadTeacher(
        1,
        1e-3,
        teacher=teacher,
        retain_share=1.0,
        temperature=2.0,
        batch_size=1000,
        augment=augment,
        random_state=0,
    )
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    # Adam's first step is the sign of the gradient, times the rate.
    inputs = torch.cat([forget.inputs, retain.inputs])
    target = torch.cat([teacher(forget.inputs), net(retain.inputs)]).detach()
    p, q = (torch.distributions.Categorical(logits=v / 2) for v in (target, net(inputs)))
    torch.distributions.kl_divergence(p, q).mean().backward()
    for old, new in zip(net.parameters(), result.model.parameters(), strict=True):
        clear = old.grad.abs() > 1e-5
        expected = old - 1e-3 * old.grad.sign()
        torch.testing.assert_close(new[clear], expected[clear], rtol=1e-3, atol=2e-5)


def test_noise_raises_the_loss_of_its_class_and_impairs():
    net, forget, retain = problem()
    method = UNSIR(2, 0.02, n_noise=32, repeats=3, batch_size=32, random_state=0)
    result = method.unlearn(net, forget=forget, retain=retain, progress=False)
    assert result.details["noise_loss"] > 5
    assert [row["stage"] for row in result.history] == [
        "learn noise",
        *["impair"] * 2,
        *["repair"] * 2,
    ]
    old, new = (m(forget.inputs).softmax(1)[:, 0].mean() for m in (net, result.model))
    assert float(new.detach()) < float(old.detach())


def test_l1_weight_falls_to_zero():
    net, forget, retain = problem()
    method = L1Sparse(4, alpha=0.01, random_state=0)
    history = method.unlearn(net, forget=forget, retain=retain, progress=False).history
    assert [row["alpha"] for row in history] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_noise_variance_by_hand():
    F = torch.tensor([[1e-2, 1e-5], [0.5, 0.0]], dtype=torch.float64)
    inverse = np.minimum(1 / (F.numpy() + 1e-8), 1e3)
    expected = 1e-6 * inverse.mean(axis=1, keepdims=True).repeat(2, axis=1)
    np.testing.assert_allclose(noise_variance(F, 1e-6).numpy(), expected)
    np.testing.assert_allclose(
        noise_variance(F, 1e-6, head=True).numpy(),
        1e-5 * np.minimum(1 / (F.numpy() + 1e-8), 1e2).mean(axis=1, keepdims=True).repeat(2, 1),
    )
    np.testing.assert_allclose(noise_variance(F[0], 1e-6).numpy(), 1e-5 * inverse[0])


def test_fisher_forgetting_has_the_variance_it_says():
    net, forget, retain = problem()
    fisher = fisher_diagonal(net, [retain.inputs])
    draws = [
        FisherForgetting(1e-4, random_state=seed)
        .unlearn(net, forget=forget, retain=retain, progress=False)
        .model
        for seed in range(30)
    ]
    for name, head in (("0.weight", False), ("4.weight", True)):
        moved = torch.stack([d.get_parameter(name).detach() for d in draws])
        expected = noise_variance(fisher[name], 1e-4, head=head).clone()
        mean = net.get_parameter(name).detach().clone()
        if head:
            expected[0], mean[0] = 1e-3, 0.0
        spread = ((moved - mean).square() / expected).mean()
        assert float(spread) == pytest.approx(1.0, abs=0.2)


def test_texts_are_refused_where_inputs_are_changed():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, input_ids):
            return self.head(self.embed(input_ids).mean(1))

    ids = torch.arange(24).view(12, 2) % 9
    y = torch.arange(12) % 3
    parts = dict(zip(("forget", "retain"), split_classes(({"input_ids": ids}, y), 0), strict=True))
    for method in (BoundaryShrink(), UNSIR()):
        with pytest.raises(InputError, match="float tensor, got a mapping"):
            method.unlearn(Words(), **parts)
    for method in (
        SalUn(1),
        BadTeacher(),
        SCRUB(1),
        SSD(),
        L1Sparse(1),
        BoundaryExpand(1),
        FisherForgetting(labels="exact"),
    ):
        model = Words()
        assert method.unlearn(model, **parts, progress=False).model(ids).shape == (12, 3)


def test_one_forgotten_class_is_never_taught_as_another():
    logits, y = torch.tensor([[5.0, 4.0, 1.0], [5.0, 4.0, 1.0]]), torch.tensor([0, 1])
    assert nearest_labels(logits, y, [0, 1]).tolist() == [2, 2]
