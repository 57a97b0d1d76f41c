"""Routes, targets, memory, files and errors of the importance package."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from conceptlab.errors import CheckpointError, InputError
from conceptlab.importance import (
    Design,
    HeadOnCoefficients,
    Importance,
    SobolImportance,
    ablate,
    directional_derivatives,
    sample_design,
)
from conceptlab.importance.evaluate import Evaluator
from conceptlab.models import SplitModel


class Net(nn.Module):
    """Convolutions, global average pooling, and a linear or a deep head."""

    def __init__(self, deep):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(inplace=True))
        self.two = nn.Sequential(nn.Conv2d(12, 10, 3), nn.ReLU(inplace=True))
        self.end = (
            nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4))
            if deep
            else nn.Linear(10, 4)
        )

    def forward(self, x):
        return self.end(self.two(self.one(x)).mean((2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.act = nn.GELU()
        self.end = nn.Linear(8, 3)

    def forward(self, x):
        return self.end(self.act(self.embed(x)).amax(1))


def make(seed, module, *args):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return module(*args).eval()


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def images():
    return rand(5, 3, 10, 10)


def split_and_head(images, at, deep=False, k=4):
    split = SplitModel(make(0, Net, deep), at=at)
    grid = split.to_positions(split.g(images)).shape[1:-1]
    W = rand(k, split.n_channels, seed=1)
    return split, W, rand(len(images), *grid, k, seed=2)


@pytest.mark.parametrize(
    ("at", "deep", "route"),
    [("two", False, "linear-pooled"), ("two", True, "pooled"), ("one", False, "general")],
)
def test_route_of_a_head_and_equal_values_on_all_routes(images, at, deep, route):
    split, W, U = split_and_head(images, at, deep)
    how = {"random_state": 3, "n_bootstrap": 0}
    head = HeadOnCoefficients(split, W)
    found = SobolImportance(**how)(head, U, target="predicted")
    assert found.route == route
    assert found.exact is (route == "linear-pooled")

    def slow(u):
        return split.h(split.from_positions(u @ W))

    plain = SobolImportance(**how)(slow, U, target="predicted")
    np.testing.assert_allclose(found.values, plain.values, atol=2e-5)
    np.testing.assert_allclose(found.signed, plain.signed, atol=2e-5)
    np.testing.assert_array_equal(found.target, split.h(split.from_positions(U @ W)).argmax(1))
    forced = SobolImportance(exact=False, **how)(slow, U, target="predicted")
    assert forced.route == "general"
    np.testing.assert_allclose(found.values, forced.values, atol=2e-5)


def test_affine_per_image_where_positions_count():
    weights = rand(3, 3, 4, seed=5, dtype=torch.float64)
    U = rand(6, 3, 3, 4, dtype=torch.float64)

    def fn(u):
        return (u * weights).sum((1, 2, 3)) - 1

    found = SobolImportance(random_state=0)(fn, U)
    assert found.route == "linear"
    assert found.exact
    c = (U * weights).sum((1, 2)).numpy()
    np.testing.assert_allclose(found.values, c**2 / (c**2).sum(1, keepdims=True), atol=1e-12)
    assert SobolImportance(exact=True, random_state=0)(fn, U).exact


@pytest.mark.parametrize("bend", [1e-2, 0.1, 1.0])
def test_a_bent_function_is_never_called_linear(bend):
    U = rand(4, 5, dtype=torch.float64)

    def fn(u):
        return u.sum(1) + bend * u[:, 0] * u[:, 1]

    assert not SobolImportance(random_state=0)(fn, U).exact
    with pytest.raises(InputError, match=r"is not.*CL-INPUT-OPTION"):
        SobolImportance(exact=True, random_state=0)(fn, U)


def test_a_kink_that_one_image_meets_is_found():
    U = rand(40, 3, dtype=torch.float64)
    U[17] += 5

    def fn(u):
        return u.sum(1) + 3 * torch.relu(u.sum(1) - 6)

    assert not SobolImportance(random_state=0)(fn, U).exact


def test_pooled_is_refused_where_positions_count():
    U = rand(4, 3, 3, 5)

    def by_maximum(u):
        return u.amax((1, 2)) ** 2

    assert SobolImportance(random_state=0)(by_maximum, U, target=1).route == "general"


def test_constant_functions_give_zeros(images):
    for fn in (lambda u: torch.full((len(u),), 3.0), lambda u: (u * 0).sum(1) + 1e6):
        for exact in ("auto", False):
            found = SobolImportance(exact=exact, random_state=0)(fn, rand(3, 4))
            for name in (
                "values",
                "first_order",
                "signed",
                "variance",
                "local_interval",
                "interval",
            ):
                assert not getattr(found, name).any(), name
    split, W, U = split_and_head(images, "one")
    dead = HeadOnCoefficients(split, W * 0)
    assert not SobolImportance(exact=False, random_state=0)(dead, U, target=0).values.any()


def test_noise_of_rounding_is_no_importance():
    """A large constant plus rounding errors: there is nothing to explain."""

    def fn(u):
        return 1e4 + 1e-4 * u.sum(1)

    found = SobolImportance(exact=False, random_state=0)(fn, rand(3, 4))
    assert not found.values.any()


def test_absent_concepts_have_no_importance(images):
    split, W, U = split_and_head(images, "one")
    U[..., 2] = 0
    found = SobolImportance(random_state=0)(HeadOnCoefficients(split, W), U, target=0)
    assert not found.values[:, 2].any()
    assert (found.values[:, [0, 1, 3]] > 0).all()


def test_one_concept_explains_all():
    for fn in (lambda u: torch.exp(u[:, 0]), lambda u: u[:, 0]):
        found = SobolImportance(64, exact=False, random_state=0)(fn, rand(3, 1) + 0.5)
        np.testing.assert_allclose(found.values, 1, atol=0.05)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_and_functions_of_numpy(dtype):
    U = np.random.default_rng(0).random((4, 3)).astype(dtype)

    def fn(u):
        assert isinstance(u, torch.Tensor)
        return np.asarray(u).sum(1) ** 2

    found = SobolImportance(random_state=0)(fn, U)
    assert found.values.dtype == np.float64
    assert found.values.shape == (4, 3)


def test_a_row_never_depends_on_its_batch(images):
    split, W, U = split_and_head(images, "one")
    head = HeadOnCoefficients(split, W)
    importance = SobolImportance(random_state=0, n_bootstrap=50)
    whole = importance(head, U, target=1)
    for i in (0, 3):
        alone = importance(head, U[i : i + 1], target=1)
        np.testing.assert_allclose(alone.values[0], whole.values[i], atol=1e-6)
        np.testing.assert_allclose(alone.local_interval[0], whole.local_interval[i], atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_changes_nothing(batch_size):
    fn = lambda u: torch.relu(u.sum(1) - 1) ** 2  # noqa: E731
    U = rand(3, 4, dtype=torch.float64)
    one = SobolImportance(random_state=0)(fn, U)
    two = SobolImportance(random_state=0, batch_size=batch_size)(fn, U)
    np.testing.assert_allclose(one.values, two.values, atol=1e-12)


def test_batches_halve_when_memory_runs_out(light_heap):
    largest = []

    def fn(u):
        if len(u) > 20:
            raise RuntimeError("CUDA out of memory (not really)")
        largest.append(len(u))
        return u.sum(1) ** 2

    found = SobolImportance(random_state=0, exact=False)(fn, rand(3, 4))
    assert max(largest) <= 20
    assert found.n_evaluations >= 3 * 6 * 32
    with pytest.raises(RuntimeError, match="out of memory"):
        SobolImportance(random_state=0, batch_size=64)(fn, rand(3, 4))


def test_a_general_head_is_run_in_bounded_batches():
    sizes = []

    def fn(u):
        sizes.append(u.numel())
        return (u**2).amax((1, 2, 3))

    SobolImportance(64, exact=False, random_state=0, n_bootstrap=0)(fn, rand(2, 40, 40, 10))
    assert max(sizes) <= 2**23
    assert len(sizes) > 3


def test_seed_decides_and_is_recorded(global_state_untouched):
    fn = lambda u: torch.relu(u.sum(1) - 1)  # noqa: E731
    U = rand(4, 5, dtype=torch.float64)
    one, two, other = (SobolImportance(random_state=s)(fn, U) for s in (4, 4, 5))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.interval, two.interval)
    assert abs(one.values - other.values).max() > 1e-6
    fresh = SobolImportance()(fn, U)
    again = SobolImportance(random_state=fresh.seed)(fn, U)
    np.testing.assert_array_equal(fresh.values, again.values)


def test_parameters_clone_and_show():
    importance = SobolImportance(64, "janon", sampler="halton", random_state=1)
    copy = clone(importance)
    assert copy.get_params() == importance.get_params()
    assert "janon" in repr(copy)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "No target was given"),
        (3, "target 3 is out of range"),
        (-1, "target -1 is out of range"),
        (1.5, "must be integer"),
        (True, "must be integer"),
        ("best", "Unknown target 'best'"),
        ([0, 1], "there are 4 images"),
        ([0, 1, 2, 3], "target 3 is out of range"),
    ],
)
@pytest.mark.parametrize("exact", ["auto", False])
def test_bad_targets(target, message, exact):
    W = rand(5, 3)
    with pytest.raises(InputError, match=rf"{message}.*3 outputs.*0 to 2.*CL-INPUT-TARGET"):
        SobolImportance(exact=exact)(lambda u: u @ W, rand(4, 5), target=target)


def test_targets_image_by_image():
    W = rand(5, 3, seed=8)
    U = rand(4, 5)
    each = SobolImportance(random_state=0)(lambda u: u @ W, U, target=[2, 0, 1, 2])
    for i, t in enumerate([2, 0, 1, 2]):
        one = SobolImportance(random_state=0)(lambda u: u @ W, U, target=t)
        np.testing.assert_allclose(each.values[i], one.values[i])
    assert each.target.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("U", "code"),
    [
        (np.ones(3), "CL-INPUT-RANK"),
        (np.ones((0, 3)), "CL-INPUT-EMPTY"),
        (np.array([[1.0, np.nan]]), "CL-INPUT-NONFINITE"),
        (np.array([["a", "b"]]), "CL-INPUT-TYPE"),
    ],
)
def test_bad_coefficients(U, code):
    with pytest.raises(InputError) as info:
        SobolImportance()(lambda u: u.sum(1), U)
    assert info.value.code == code


@pytest.mark.parametrize(
    ("fn", "code"),
    [
        (3, "CL-INPUT-TYPE"),
        (lambda u: [1.0], "CL-INPUT-TYPE"),
        (lambda u: u.sum(), "CL-INPUT-SHAPE"),
        (lambda u: u[:1], "CL-INPUT-SHAPE"),
        (lambda u: u[:, :, None], "CL-INPUT-SHAPE"),
        (lambda u: u.sum(1) / 0, "CL-INPUT-NONFINITE"),
    ],
)
def test_bad_functions(fn, code):
    with pytest.raises(InputError) as info:
        SobolImportance()(fn, rand(4, 3))
    assert info.value.code == code


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "janssen"}, "Unknown estimator 'janssen'. Did you mean 'jansen'"),
        ({"sampler": "sobel"}, "Did you mean 'sobol'"),
        ({"control": "cubic"}, "Unknown control 'cubic'"),
        ({"n_design": 1}, "n_design must be a whole number of at least 2"),
        ({"n_design": 8.0}, "n_design must be a whole number of at least 2"),
        ({"confidence": 95.0}, "a number above 0 and below 1"),
        ({"n_bootstrap": -1}, "n_bootstrap"),
        ({"exact": "yes"}, "Unknown exact 'yes'.*Or True or False"),
        ({"batch_size": 0}, "batch_size"),
        ({"random_state": "x"}, "random_state"),
        ({"sampler": sample_design(8, 3, random_state=0)}, "has 3 columns, but U has 4"),
    ],
)
def test_bad_parameters(settings, message):
    with pytest.raises(InputError, match=message):
        SobolImportance(**settings)(lambda u: u.sum(1) ** 2, rand(2, 4))


def test_designs():
    design = sample_design(8, 3, random_state=0)
    stacked = design.stacked().reshape(5, 8, 3)
    np.testing.assert_array_equal(stacked[0], design.A)
    np.testing.assert_array_equal(stacked[1], design.B)
    for i in range(3):
        np.testing.assert_array_equal(stacked[2 + i], design.mixture(i))
        np.testing.assert_array_equal(design.mixture(i)[:, i], design.B[:, i])
        np.testing.assert_array_equal(np.delete(design.mixture(i), i, 1), np.delete(design.A, i, 1))
    odd = sample_design(33, 3, random_state=0)
    assert odd.n_design == 33
    with pytest.raises(InputError, match="at most 21201 dimensions"):
        sample_design(4, 20_000)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        Design(np.full((2, 2), 1.5), np.zeros((2, 2)))
    with pytest.raises(InputError, match="shape"):
        Design(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(InputError, match="shape"):
        Design(np.zeros(2), np.zeros(2))


def test_masks_of_your_own_are_used_as_they_are():
    seen = []

    def fn(u):
        seen.append(u.clone())
        return u.sum(1) ** 2

    own = Design(np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[0.5, 0.6], [0.7, 0.8]]))
    U = torch.tensor([[1.0, 10.0]], dtype=torch.float64)
    found = SobolImportance(sampler=own, exact=False)(fn, U)
    np.testing.assert_allclose(seen[-1], own.stacked() * U.numpy())
    assert (found.sampler, found.n_design, found.control) == ("custom", 2, None)


def test_save_load_and_tables(tmp_path):
    found = SobolImportance(16, random_state=0)(lambda u: torch.relu(u.sum(1) - 1), rand(4, 3))
    again = Importance.load(found.save(tmp_path / "importance"))
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert type(getattr(again, name)) is type(value)
    frame = again.to_frame(["<a>", "b", "c"])
    assert frame.index[0] == ["<a>", "b", "c"][found.ranking()[0]]
    assert list(frame.columns) == ["importance", "low", "high", "first_order", "signed", "effect"]
    assert frame["importance"].is_monotonic_decreasing
    assert "<table>" in again._repr_html_()
    assert "jansen on 16 sobol masks" in repr(again)
    with pytest.raises(InputError, match="names has 1"):
        found.to_frame(["a"])
    (tmp_path / "importance" / "data.json").write_text("{}")
    with pytest.raises(CheckpointError, match="changed or truncated"):
        Importance.load(tmp_path / "importance")


# ----------------------------------------------------------------- the head
def test_masked_decoding_is_the_plain_one(images):
    for at in ("one", "two"):
        split, W, U = split_and_head(images, at)
        masks = rand(9, 4, seed=4)
        offset = rand(split.n_channels, seed=5)
        head = HeadOnCoefficients(split, W, offset=offset, transform=lambda z: z.softmax(1))
        expected = (U[1] * masks[:, None, None]) @ W + offset
        decoded = head.decode_masks(U[1], masks)
        torch.testing.assert_close(split.to_positions(decoded), expected)
        outputs = split.h(split.from_positions(expected)).softmax(1)
        torch.testing.assert_close(head.mask_outputs(U[1], masks), outputs)
        torch.testing.assert_close(head(U[1] * masks[:, None, None]), outputs)


def test_memory_that_is_used_again_changes_no_earlier_answer():
    """A head that hands its activations on as they are."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Flatten()).double()
    split = SplitModel(model, at="1")
    split.g(rand(2, 5, 6, dtype=torch.float64))
    U, W = rand(2, 5, 3, seed=1, dtype=torch.float64), rand(3, 8, seed=2, dtype=torch.float64)
    masks = rand(40, 3, seed=3, dtype=torch.float64)
    evaluate = Evaluator(HeadOnCoefficients(split, W), batch_size=16)
    found = [evaluate.masked(U_i, masks) for U_i in U]
    for U_i, values in zip(U, found, strict=True):
        expected = torch.einsum("tk,mk,kc->mtc", U_i, masks, W).flatten(1)
        torch.testing.assert_close(values, expected)


def test_coefficients_without_positions_are_put_on_the_grid(images):
    split, W, U = split_and_head(images, "two")
    head = HeadOnCoefficients(split, W)
    pooled = U.mean((1, 2))
    torch.testing.assert_close(head(pooled), head(U))
    torch.testing.assert_close(
        head.mask_outputs(pooled[0], rand(3, 4)), head(pooled[0] * rand(3, 4))
    )


def test_head_on_tokens_and_on_vectors():
    x = rand(4, 7, 6)
    split = SplitModel(make(0, Tokens), at="act")
    A = split.g(x)
    W = rand(3, 8, seed=3)
    head = HeadOnCoefficients(split, W)
    U = rand(4, 7, 3)
    torch.testing.assert_close(head(U), split.h(U @ W))
    torch.testing.assert_close(head.mask_outputs(U[0], torch.ones(2, 3))[0], head(U)[0])
    assert A.shape == (4, 7, 8)
    with pytest.raises(InputError, match="no fixed grid"):
        head(rand(4, 3))
    vectors = SplitModel(
        make(0, nn.Sequential, nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), at="1"
    )
    vectors.g(rand(3, 6))
    flat = HeadOnCoefficients(vectors, rand(2, 5))
    assert SobolImportance(random_state=0)(flat, rand(3, 2), target=0).route == "linear-pooled"


def test_head_is_differentiable_and_from_an_extractor(images):
    from sklearn.decomposition import PCA

    split, _, _ = split_and_head(images, "two")
    rows = split.to_positions(split.g(images)).reshape(-1, 10).detach().numpy()
    pca = PCA(4, random_state=0).fit(rows)
    head = HeadOnCoefficients.from_extractor(split, pca)
    codes = pca.transform(rows).reshape(5, 8, 8, 4).astype(np.float32)
    decoded = pca.inverse_transform(codes.reshape(-1, 4)).reshape(5, 8, 8, 10)
    expected = split.h(split.from_positions(torch.from_numpy(decoded.astype(np.float32))))
    U = torch.from_numpy(codes).requires_grad_(True)
    out = head(U)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    out.sum().backward()
    assert float(U.grad.abs().sum()) > 0


def test_head_errors(images):
    split, W, _ = split_and_head(images, "two")
    with pytest.raises(InputError, match=r"\(k, p\)"):
        HeadOnCoefficients(split, W[0])
    with pytest.raises(InputError, match="offset"):
        HeadOnCoefficients(split, W, offset=torch.ones(3))
    with pytest.raises(InputError, match="5 concepts, W has 4"):
        HeadOnCoefficients(split, W)(rand(2, 8, 8, 5))


# ----------------------------------------------------------------- ablation
def test_ablation_of_known_functions():
    U = rand(6, 4, dtype=torch.float64)
    weights = torch.tensor([2.0, -1.0, 0.0, 0.5], dtype=torch.float64)
    found = ablate(lambda u: u @ weights + 3, U, random_state=0)
    np.testing.assert_allclose(found.drop, U * weights)
    np.testing.assert_allclose(found.gain, found.drop)
    np.testing.assert_allclose(found.mean, found.drop.mean(0))
    assert (found.interval[:, 0] <= found.mean).all()
    assert (found.mean <= found.interval[:, 1]).all()
    product = ablate(lambda u: u[:, 0] * u[:, 1], U)
    np.testing.assert_allclose(product.drop[:, 0], U[:, 0] * U[:, 1])
    assert not product.gain.any()
    assert product.to_frame(list("abcd")).index[-1] in {"c", "d"}
    with pytest.raises(InputError, match="CL-INPUT-TARGET"):
        ablate(lambda u: u, U)
    assert ablate(lambda u: u, U, target="predicted").target.tolist() == U.argmax(1).tolist()


# -------------------------------------------------------------------- TCAV
def test_directional_derivatives_are_derivatives():
    A = rand(8, 3, 3, 6, dtype=torch.float64) - 0.5
    V = rand(4, 6, seed=1, dtype=torch.float64) - 0.5

    def fn(a):
        return torch.stack([torch.sin(a).sum((1, 2, 3)), (a**3).mean((1, 2)).amax(1)], 1)

    found = directional_derivatives(fn, A, V, target=0, n_random=50, random_state=0)
    unit = V / V.norm(dim=1, keepdim=True)
    step = 1e-6
    for k in range(4):
        numeric = (fn(A + step * unit[k]) - fn(A - step * unit[k]))[:, 0] / (2 * step)
        np.testing.assert_allclose(found.derivatives[:, k], numeric, atol=1e-6)
    np.testing.assert_allclose(found.share, (found.derivatives > 0).mean(0))
    batched = directional_derivatives(
        fn, A, V, target=[0, 1] * 4, n_random=50, random_state=0, batch_size=3
    )
    np.testing.assert_allclose(batched.derivatives[::2], found.derivatives[::2])
    predicted = directional_derivatives(fn, A, V, target="predicted", n_random=5, batch_size=3)
    np.testing.assert_array_equal(predicted.target, fn(A).argmax(1))


def test_tcav_finds_a_planted_direction_and_nothing_else():
    A = torch.randn(300, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    planted = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.randn(30, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def fn(a):
        return torch.exp(0.5 * (a @ planted) / planted.norm())

    found = directional_derivatives(
        fn, A, torch.cat([planted[None], noise]), n_random=1999, random_state=0
    )
    assert found.share[0] == 1
    assert found.q_mean[0] < 0.05
    assert (found.p_mean[1:] < 0.05).mean() < 0.2


@pytest.mark.parametrize("null", ["data", "isotropic"])
def test_p_values_are_uniform_under_the_null(null):
    """Directions drawn like the null itself: small p-values are as rare as they should be."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    A = A * torch.linspace(0.2, 3, 12)
    V = torch.randn(400, 200, generator=generator, dtype=torch.float64) @ (A - A.mean(0))
    if null == "isotropic":
        V = torch.randn(400, 12, generator=generator, dtype=torch.float64)

    def fn(a):
        return torch.tanh(a[:, :1] + a[:, 3:4] * a[:, 5:6])

    found = directional_derivatives(fn, A, V, n_random=999, null=null, random_state=1)
    for p in (found.p_share, found.p_mean):
        assert 0.02 < (p <= 0.05).mean() < 0.09
        assert 0.42 < np.median(p) < 0.58


def test_a_linear_head_has_no_significant_share():
    A = rand(30, 5)
    found = directional_derivatives(lambda a: a[:, :1], A, torch.eye(5)[:1], random_state=0)
    assert found.share[0] == 1
    assert found.p_share[0] == 1
    assert found.to_frame(["x"]).loc["x", "share"] == 1


def test_directional_errors():
    A = rand(4, 5)
    fn = lambda a: a[:, :1]  # noqa: E731
    with pytest.raises(InputError, match="CL-INPUT-SHAPE"):
        directional_derivatives(fn, A, torch.eye(4))
    with pytest.raises(InputError, match="Vector 1 has length zero"):
        directional_derivatives(fn, A, torch.stack([torch.ones(5), torch.zeros(5)]))
    with pytest.raises(InputError, match="no gradient"):
        directional_derivatives(lambda a: a[:, :1].detach(), A, torch.eye(5))
    with pytest.raises(InputError, match="no random direction"):
        directional_derivatives(fn, torch.ones(4, 5), torch.eye(5))
    with pytest.raises(InputError, match="Did you mean 'isotropic'"):
        directional_derivatives(fn, A, torch.eye(5), null="isotropc")
    with pytest.raises(InputError, match="CL-INPUT-TARGET"):
        directional_derivatives(lambda a: a, A, torch.eye(5))
