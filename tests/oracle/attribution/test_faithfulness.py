"""Curves, agreement and sparsity against loops and figures worked out by hand."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from attribution.faithfulness import faithfulness, gini, hoyer
from attribution.faithfulness_report import FaithfulnessReport
from conceptlab.errors import InputError
from conceptlab.importance import HeadOnCoefficients, SobolImportance
from conceptlab.models import SplitModel


def problem(seed=0, n=12, k=5, outputs=4, positions=()):
    rng = np.random.default_rng(seed)
    U = torch.from_numpy(rng.random((n, *positions, k)))
    first = torch.from_numpy(rng.normal(size=(k, 9)))
    second = torch.from_numpy(rng.normal(size=(9, outputs)))

    def fn(u):
        hidden = torch.relu(u @ first - 0.3)
        return (hidden.amax(tuple(range(1, u.ndim - 1))) if u.ndim > 2 else hidden) @ second

    return fn, U


def by_loops(fn, U, ranks, targets, metric, kind):
    """Take concepts out (or put them in) one after another, image by image."""
    k = U.shape[-1]
    curve = np.zeros(k + 1)
    for u, order, t in zip(U, ranks, targets, strict=True):
        mask = torch.ones(k) if kind == "deletion" else torch.zeros(k)
        for step in range(k + 1):
            if step:
                mask[order[step - 1]] = 0 if kind == "deletion" else 1
            z = fn((u * mask)[None])[0].numpy()
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            curve[step] += {"logit": z[t], "probability": p[t], "accuracy": z.argmax() == t}[metric]
    return curve / len(U)


@pytest.mark.parametrize("positions", [(), (2, 3)])
@pytest.mark.parametrize("order", ["global", "local"])
def test_curves_are_those_of_the_loops(positions, order):
    fn, U = problem(positions=positions)
    values = np.random.default_rng(1).random((12, 5))
    targets = np.arange(12) % 4
    report = faithfulness(fn, U, values, target=targets, order=order, n_random=3, random_state=0)
    ranked = np.argsort(-(values if order == "local" else np.tile(values.mean(0), (12, 1))), axis=1)
    for kind in ("deletion", "insertion"):
        for metric in ("logit", "probability", "accuracy"):
            found = report.curve(kind, metric)
            expected = by_loops(fn, U, ranked, targets, metric, kind)
            np.testing.assert_allclose(found.importance, expected, atol=1e-6)
            expected = by_loops(fn, U, ranked[:, ::-1].copy(), targets, metric, kind)
            np.testing.assert_allclose(found.reverse, expected, atol=1e-6)
            np.testing.assert_allclose(found.auc(), np.trapezoid(found.importance, dx=0.2))
            assert (found.interval[:, 0] <= found.importance + 1e-12).all()
            assert (found.importance <= found.interval[:, 1] + 1e-12).all()
            assert found.random.shape == (3, 6)


def test_random_orders_are_orders_and_average_to_the_shapley_like_line():
    """For an additive output the mean over orders falls in equal steps."""
    weights = torch.tensor([[5.0, 3.0, 1.0, 0.5]], dtype=torch.float64).T
    U = torch.ones(3, 4, dtype=torch.float64)
    report = faithfulness(
        lambda u: u @ weights, U, [4, 3, 2, 1], metric="logit", n_random=4000, random_state=0
    )
    line = np.linspace(9.5, 0, 5)
    np.testing.assert_allclose(report.curve("deletion").random.mean(0), line, atol=0.15)
    np.testing.assert_allclose(report.curve("insertion").random.mean(0), line[::-1], atol=0.15)
    np.testing.assert_allclose(report.curve("deletion").importance, [9.5, 4.5, 1.5, 0.5, 0])
    np.testing.assert_allclose(report.curve("insertion").importance, [0, 5, 8, 9, 9.5])
    assert report.deletion_auc == pytest.approx(11.25 / 4)
    assert report.p_value("deletion") < 0.1
    steps = report.curve("deletion").random
    assert len(np.unique(steps.round(6), axis=0)) == 24


def test_sobol_ranking_beats_the_controls_on_a_known_head():
    """Concepts that saturate together speak for class 0; the others hardly count."""
    U = torch.from_numpy(np.random.default_rng(3).random((30, 8))) + 0.5
    weights = torch.tensor([4, 3, 2, 1, 0.1, 0.1, 0.05, 0.02], dtype=torch.float64)

    def fn(u):
        evidence = torch.tanh(u @ weights / 5) * 4
        return torch.stack([evidence, torch.full_like(evidence, 2)], 1)

    importance = SobolImportance(random_state=0)(fn, U, target=0)
    assert importance.ranking()[:3].tolist() == [0, 1, 2]
    report = faithfulness(fn, U, importance, target=0, random_state=0, n_random=50)
    for metric in ("probability", "logit", "accuracy"):
        curve = report.curve("deletion", metric)
        assert curve.auc() < curve.auc("random") < curve.auc("reverse")
        curve = report.curve("insertion", metric)
        assert curve.auc() > curve.auc("random") > curve.auc("reverse")
    assert report.p_value() < 0.06
    assert report.p_value("insertion") < 0.06


def test_a_pooled_head_gives_the_same_numbers_for_less():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 9),
            nn.ReLU(),
            nn.Linear(9, 3),
        ).eval()
        images = torch.rand(5, 3, 8, 8)
        W, U = torch.rand(4, 6), torch.rand(5, 6, 6, 4)
    split = SplitModel(model, at="1")
    A = split.to_positions(split.g(images)).detach()
    head = HeadOnCoefficients(split, W)
    scores = np.arange(4)

    def plain(u):
        return split.h(split.from_positions(u @ W))

    kwargs = {"target": 1, "n_random": 4, "random_state": 0}
    one = faithfulness(head, U, scores, activations=A, logits=split.f(images).detach(), **kwargs)
    two = faithfulness(plain, U, scores, **kwargs)
    for kind in ("deletion", "insertion"):
        np.testing.assert_allclose(
            one.curve(kind).importance, two.curve(kind).importance, atol=1e-5
        )
        np.testing.assert_allclose(one.curve(kind).random, two.curve(kind).random, atol=1e-5)
    decoded = (U @ W).numpy()
    error = np.linalg.norm(A.numpy() - decoded) / np.linalg.norm(A.numpy())
    assert one.reconstruction_error == pytest.approx(error, rel=1e-5)
    assert two.reconstruction_error is None
    with pytest.raises(InputError, match="decode"):
        faithfulness(plain, U, scores, activations=A, **kwargs)
    with pytest.raises(InputError, match="CL-INPUT-SHAPE"):
        faithfulness(head, U, scores, activations=A[:, 1:], **kwargs)


def test_agreement_with_the_model():
    from scipy.special import log_softmax
    from sklearn.metrics import r2_score

    fn, U = problem()
    mine = fn(U).numpy()
    true = mine + np.random.default_rng(0).normal(size=mine.shape)
    report = faithfulness(fn, U, np.arange(5), target=0, logits=true, n_random=1, random_state=0)
    assert report.agreement == np.mean(mine.argmax(1) == true.argmax(1))
    p, q = log_softmax(true, axis=1), log_softmax(mine, axis=1)
    assert report.kl == pytest.approx((np.exp(p) * (p - q)).sum(1).mean())
    assert report.logit_r2 == pytest.approx(r2_score(true, mine, multioutput="variance_weighted"))
    perfect = faithfulness(fn, U, np.arange(5), target=0, logits=mine, n_random=1)
    assert (perfect.agreement, perfect.kl, perfect.logit_r2) == (1, pytest.approx(0), 1)


def test_single_outputs_use_the_sigmoid():
    U = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    report = faithfulness(lambda u: u.sum(1) - 1.5, U, [0, 1], logits=[[2.0]], n_random=1)
    z = np.array([1.5, -0.5, -1.5])
    np.testing.assert_allclose(report.curve("deletion", "logit").importance, z)
    np.testing.assert_allclose(report.curve("deletion").importance, 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(report.curve("deletion", "accuracy").importance, [1, 0, 0])
    assert report.agreement == 1


def test_sparsity_measures():
    values = np.random.default_rng(0).random(9)
    pairs = abs(values[:, None] - values[None]).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(pairs)
    assert gini(np.zeros(4)) == 0
    assert gini(-values) == pytest.approx(gini(values))
    assert hoyer(np.ones((3, 4))) == pytest.approx(0)
    assert hoyer(np.eye(4)) == pytest.approx(1)
    assert hoyer(np.array([[3.0, 4.0]])) == pytest.approx((2**0.5 - 7 / 5) / (2**0.5 - 1))
    assert hoyer(np.zeros((2, 3))) == 0
    assert hoyer(np.ones((2, 1))) == 0


def test_report_tables_files_and_picture(tmp_path, global_state_untouched):
    fn, U = problem()
    report = faithfulness(
        fn, U, np.arange(5), target="predicted", logits=fn(U), n_random=5, random_state=1
    )
    frame = report.to_frame()
    assert len(frame) == 6 + 3 + 2
    row = frame.loc["deletion AUC, probability"]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["random_low"] <= row["random"] <= row["random_high"]
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["measures"]["KL of h(UW) from f"]["low"] is None
    again = FaithfulnessReport.load(report.save(tmp_path / "report"))
    assert again.to_dict() == report.to_dict()
    assert again.seed == 1
    html = report._repr_html_()
    assert "deletion AUC" in html
    assert "nan" not in html
    assert "deletion AUC" in repr(report)
    same = faithfulness(
        fn, U, np.arange(5), target="predicted", logits=fn(U), n_random=5, random_state=1
    )
    assert same.to_dict() == report.to_dict()
    ax = report.plot()
    assert len(ax.lines) == 6
    assert len(report.plot("deletion", metric="accuracy").lines) == 3
    with pytest.raises(InputError, match="Did you mean 'deletion'"):
        report.plot("deletions")
    with pytest.raises(InputError, match="Unknown metric"):
        report.plot(metric="loss")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"importance": [1.0, 2.0]}, "CL-INPUT-SHAPE"),
        ({"importance": [np.nan] * 5}, "CL-INPUT-NONFINITE"),
        ({"importance": np.ones(5), "order": "local"}, "CL-INPUT-SHAPE"),
        ({"order": "lokal"}, "CL-INPUT-OPTION"),
        ({"metric": "loss"}, "CL-INPUT-OPTION"),
        ({"target": None}, "CL-INPUT-TARGET"),
        ({"target": 9}, "CL-INPUT-TARGET"),
        ({"n_random": 0}, "CL-INPUT-RANGE"),
        ({"confidence": 95}, "CL-INPUT-RANGE"),
        ({"logits": np.ones((12, 3))}, "CL-INPUT-SHAPE"),
    ],
)
def test_bad_input(settings, code):
    fn, U = problem()
    kwargs = {"importance": np.arange(5), "target": 0, **settings}
    with pytest.raises(InputError) as info:
        faithfulness(fn, U, **kwargs)
    assert info.value.code == code


def test_an_interval_of_half_is_narrower_than_one_of_nearly_all_and_is_one():
    fn, U = problem(n=40)
    wide, half = (
        faithfulness(fn, U, np.arange(5.0), target=0, confidence=c, random_state=0)
        for c in (0.95, 0.5)
    )
    widths = [np.diff(r.curves["deletion"]["logit"].interval[1:-1]) for r in (half, wide)]
    # Of a normal law: 0.674 over 1.960.
    assert (widths[0] / widths[1]).mean() == pytest.approx(0.344, abs=0.08)
