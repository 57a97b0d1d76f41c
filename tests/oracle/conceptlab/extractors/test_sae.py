"""Sparse autoencoders: planted atoms, codes worked out by hand, streams, interruptions."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, nnls

from conceptlab.errors import InputError
from conceptlab.extractors import ConceptExtractor, SparseAutoencoder
from conceptlab.extractors.sparse_coder import Autoencoder, SparseCoder, geometric_median
from conceptlab.models.store import ActivationStore


def planted(n_atoms, p, active, n=20000, seed=0, orthonormal=False):
    """Atoms (n_atoms, p), and rows that are sums of a few of them, each by 0.5 to 1.5."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(n_atoms, p))
    if orthonormal:
        atoms = np.linalg.qr(rng.normal(size=(p, p)))[0][:n_atoms]
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    shown = rng.random((n, n_atoms)).argsort(1)[:, :active]
    U = np.zeros((n, n_atoms))
    np.put_along_axis(U, shown, 0.5 + rng.random((n, active)), 1)
    return atoms, (U @ atoms).astype(np.float32)


def matched(atoms, found):
    cosine = atoms @ found.T
    pairs = linear_sum_assignment(-cosine)
    return cosine[pairs]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_planted_atoms_are_found(activation, seed):
    atoms, A = planted(24, 32, 3, seed=seed, orthonormal=True)
    model = SparseAutoencoder(24, activation=activation, k=3, dead_after=5000, random_state=seed)
    assert matched(atoms, model.fit(A).components_).min() >= 0.999
    assert model.r2_ >= 0.999
    atoms, A = planted(64, 32, 3, seed=seed)
    model = SparseAutoencoder(64, activation=activation, k=3, dead_after=5000, random_state=seed)
    assert matched(atoms, model.fit(A).components_).mean() >= 0.99


def test_codes_worked_out_by_hand():
    """Two latents of three fire: z = (x - b) E + c with the threshold, the largest first."""
    E, c = np.array([[1.0, 0], [0, 1], [1, 1]]), np.array([0.0, 0.5, -1.0])
    b, none = np.array([1.0, 1.0]), np.zeros(3)
    x = torch.tensor([[3.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    # x - b = (2, 1), (-1, 0): z = (2, 1.5, 2), (-1, 0.5, -2)
    two = SparseCoder(E, c, b, none, 10.0, 2)(x)
    assert two.tolist() == [[20.0, 0.0, 20.0], [0.0, 5.0, 0.0]]
    high = SparseCoder(E, c, b, np.array([0.0, 1.6, 0.0]), 1.0, None)(x)
    assert high.tolist() == [[2.0, 0.0, 2.0], [0.0, 0.0, 0.0]]


def test_loss_of_topk_and_what_revives():
    """The dead latent gets the gradient of the residual, by one unit vector in closed form."""
    body = Autoencoder(
        torch.eye(2, dtype=torch.float64), 2, 1, activation="topk", l1=0.0, aux=1, aux_weight=0.5,
        dead_after=1, relaxation=None, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    with torch.no_grad():
        body.atoms.copy_(torch.eye(2))
        body.encoder.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.1]]))
    x = torch.tensor([[2.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    body.quiet.fill_(5)
    loss, told = body.loss(x)
    # Latent 0 explains the first feature whole; 1 is left of each row. Latent 1, which is dead,
    # gives 0.1 of it: (0.9)^2 of the residual is left.
    assert float(told["error"]) == pytest.approx(1.0)
    assert loss.item() == pytest.approx(1.0 + 0.5 * 0.81)
    assert body.quiet.tolist() == [0, 7]


def test_the_number_that_jumprelu_lets_fire_has_the_window_for_its_derivative():
    body = Autoencoder(
        torch.randn(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 3, 1,
        activation="jumprelu", l1=0.0, aux=0, aux_weight=0.0, dead_after=9, relaxation=None,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    with torch.no_grad():
        body.log_threshold.copy_(torch.log(torch.tensor([0.5, 0.5, 0.5])))
    before = torch.tensor([[0.51, 0.2, 0.9], [0.7, 0.49, 0.1]], dtype=torch.float64)
    z, penalty = body._act(before)
    assert z.tolist() == [[0.51, 0.0, 0.9], [0.7, 0.0, 0.0]]
    assert float(penalty) == pytest.approx((1.5 - 1) ** 2)  # three of two rows, one was asked for
    penalty.backward()
    # Within 0.025 of the threshold: one of latent 0, one of latent 1. d/dlog t is t d/dt.
    expected = 2 * 0.5 * (-1 / 0.05 / 2) * 0.5
    assert body.log_threshold.grad.tolist() == pytest.approx([expected, expected, 0.0])


def test_the_geometric_median_of_a_triangle():
    """All angles at it are 120 degrees (Fermat)."""
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    toward = corners - geometric_median(corners, n_iter=2000)
    unit = toward / toward.norm(dim=1, keepdim=True)
    assert torch.allclose(unit.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-4)


def test_archetypal_atoms_are_made_of_points_of_the_data():
    _, A = planted(6, 5, 2, n=60)
    body = Autoencoder(
        torch.from_numpy(A).double(), 8, 2, activation="topk", l1=0.0, aux=0, aux_weight=0.0,
        dead_after=9, relaxation=0.2, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    points = body.get_buffer("points").numpy().T
    with torch.no_grad():
        body.rest[3] = 10 * torch.ones(5)  # cut back to 0.2
    for i, atom in enumerate(body.dictionary().detach().numpy()):
        assert np.linalg.norm(atom) == pytest.approx(1)
        assert i == 3 or nnls(points, atom)[1] < 1e-9
    mixed = body.mixing.detach()[3].softmax(0).numpy() @ points.T + 0.2 / 5**0.5
    assert np.allclose(body.dictionary().detach().numpy()[3], mixed / np.linalg.norm(mixed))


def test_a_stream_and_an_interruption(tmp_path):
    _, A = planted(6, 8, 2, n=900)
    settings = {"k": 2, "n_steps": 40, "batch_size": 128, "random_state": 0}
    store = ActivationStore()
    for part in np.array_split(A, 7):
        store.append(part)
    streamed = SparseAutoencoder(9, **settings).fit(store)
    assert streamed.transform(A).shape == (900, 9)

    def stop(done, total):
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SparseAutoencoder(9, **settings).fit(A, progress=stop, checkpoint=tmp_path / "run")
    again = SparseAutoencoder(9, **settings).fit(A, checkpoint=tmp_path / "run")
    whole = SparseAutoencoder(9, **settings).fit(A)
    assert np.array_equal(again.components_, whole.components_)
    assert np.array_equal(again.history_, whole.history_)


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu", "l1", "matryoshka"])
def test_a_code_depends_on_its_row_alone_and_files_keep_it(activation, tmp_path):
    _, A = planted(6, 8, 2, n=400)
    model = SparseAutoencoder(12, activation=activation, k=3, n_steps=30, random_state=0).fit(A)
    U = model.transform(A)
    alone = np.concatenate([model.transform(A[i : i + 1]) for i in range(20)])
    assert np.allclose(U[:20], alone, atol=1e-5)
    assert ConceptExtractor.load(model.save(tmp_path / "sae")).transform(A).tobytes() == U.tobytes()
    assert model.l0_ == pytest.approx((U > 0).sum(1).mean())
    rest = A - model.inverse_transform(U)
    share = 1 - (rest**2).sum() / ((A - A.mean(0)) ** 2).sum()
    assert model.r2_ == pytest.approx(float(share), abs=1e-4)
    assert np.array_equal(model.dead_, (U > 0).sum(0) == 0)


def test_what_cannot_be_is_refused():
    _, A = planted(6, 8, 2, n=50)
    with pytest.raises(InputError, match="k must be a whole number of at least 1 and at most 4"):
        SparseAutoencoder(4, k=5).fit(A)
    with pytest.raises(InputError, match="Did you mean 'topk'"):
        SparseAutoencoder(4, activation="top_k").fit(A)
