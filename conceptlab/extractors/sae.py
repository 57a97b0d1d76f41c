"""Sparse autoencoders: overcomplete dictionaries of activations, of which few fire at a time."""

from __future__ import annotations

__all__ = ["SparseAutoencoder"]

import os
import warnings
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor, resolve_device
from conceptlab.errors import InputError
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.sparse_coder import (
    ACTIVATIONS,
    DICTIONARIES,
    Autoencoder,
    SparseCoder,
    geometric_median,
)
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint
from conceptlab.seeds import RandomState, draw_seed, torch_generator
from conceptlab.training import Engine

_RULES = Rules(
    activation=OneOf(*ACTIVATIONS),
    k=Whole(1) | None,
    l1=Real(least=0),
    aux_k=Whole(0) | None,
    aux_weight=Real(least=0),
    dead_after=Whole(1),
    dictionary=OneOf(*DICTIONARIES),
    relaxation=Real(least=0),
    n_steps=Whole(1),
    batch_size=Whole(1),
    lr=Real(above=0),
)
_SAMPLE = 4096  # rows from which a fit starts
_MEASURED = 65536  # rows that figures are taken from


class SparseAutoencoder(ConceptExtractor):
    """Concepts as the decoder of a sparse autoencoder, A ~ U D + b with few positive U a row.

    The encoder is one linear layer, ``z = act(E (a - b) / s + c)``, and U = s z, with s the root
    mean square length of a - b; rows of D have length one. Latents that no row of the last
    `dead_after` fires learn from what the others leave (AuxK [1]_).

    Parameters
    ----------
    n_concepts : int, default=64
        Latents; may exceed the number of features and that of rows.
    activation : {"topk", "batchtopk", "jumprelu", "l1", "matryoshka"}, default="topk"
        - "topk": the `k` largest of each row [1]_;
        - "batchtopk": `k` a row on average over a batch [2]_; afterwards a threshold, so that a
          row's code never depends on its batch;
        - "jumprelu": a threshold for each latent, learned by a straight-through estimate of the
          number that fire, which is drawn to `k` [3]_;
        - "l1": ReLU under a penalty `l1` on the sum of z;
        - "matryoshka": "batchtopk" whose first 1/16, 1/8, 1/4 and 1/2 latents must reconstruct
          by themselves as well [4]_.
    k : int, optional
        Latents that fire for a row; by default a sixteenth of `n_concepts`, at least 1. Not for
        "l1".
    l1 : float, default=0.05
        Weight of the penalty of "l1".
    aux_k : int, optional
        Dead latents that learn from the residual at each step; half the features by default, 0
        for none.
    aux_weight : float, default=1/32
        Of that term.
    dead_after : int, default=20000
        Rows without firing after which a latent is dead.
    dictionary : {"free", "archetypal"}, default="free"
        "archetypal": atoms are convex combinations of points of the data (centres of k-means)
        and a rest of at most `relaxation` in length (RA-SAE [5]_): several fits agree more.
    relaxation : float, default=0.1
        Of "archetypal", against points of length one.
    n_steps : int, default=2000
        Steps of Adam; the last fifth lets the rate fall to 0.
    batch_size : int, default=1024
        Rows in a step.
    lr : float, default=3e-3
        Rate.
    device : str or torch.device, default="auto"
        Where to compute.
    random_state : int, RandomState, Generator or None, default=None
        Of start and batches.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (n_concepts, p)
        D.
    encoder_ : numpy.ndarray of shape (n_concepts, p)
        E / s.
    bias_ : numpy.ndarray of shape (n_concepts,)
        c.
    offset_ : numpy.ndarray of shape (p,)
        b, learned from the geometric median on.
    scale_ : float
        s.
    threshold_ : numpy.ndarray of shape (n_concepts,)
        Least z that fires; 0 for "topk" and "l1".
    density_ : numpy.ndarray of shape (n_concepts,)
        Share of the rows of the fit that fire each latent (of at most 65536 rows).
    dead_ : numpy.ndarray of shape (n_concepts,), bool
        Latents that none of them fires.
    r2_ : float
        Share of the variance about the mean that U D + b explains in these rows.
    l0_ : float
        Mean number of latents that fire.
    history_ : numpy.ndarray of shape (n_looks,)
        Loss, means over a hundred steps.
    stopped_ : str
        ``"done"``, or what ended the training.
    n_steps_, n_concepts_, n_features_in_, seed_ : int
        Steps, latents, p and the seed that was used.

    References
    ----------
    .. [1] L. Gao et al., "Scaling and evaluating sparse autoencoders", 2024.
    .. [2] B. Bussmann, P. Leask and N. Nanda, "BatchTopK sparse autoencoders", 2024.
    .. [3] S. Rajamanoharan et al., "Jumping ahead: improving reconstruction fidelity with
       JumpReLU sparse autoencoders", 2024.
    .. [4] B. Bussmann et al., "Learning multi-level features with Matryoshka sparse
       autoencoders", 2025.
    .. [5] T. Fel et al., "Archetypal SAE: adaptive and stable dictionary learning for concept
       extraction in large vision models", 2025.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> atoms = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    >>> A = (rng.random((500, 12)) * (rng.random((500, 12)) < 0.2)) @ atoms
    >>> model = SparseAutoencoder(16, k=3, n_steps=30, random_state=0).fit(A)
    >>> U = model.transform(A)
    >>> U.shape, int((U > 0).sum(1).max()) <= 3
    ((500, 16), True)
    """

    _overcomplete = True

    def __init__(
        self,
        n_concepts: int = 64,
        *,
        activation: str = "topk",
        k: int | None = None,
        l1: float = 0.05,
        aux_k: int | None = None,
        aux_weight: float = 1 / 32,
        dead_after: int = 20000,
        dictionary: str = "free",
        relaxation: float = 0.1,
        n_steps: int = 2000,
        batch_size: int = 1024,
        lr: float = 3e-3,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.activation = activation
        self.k = k
        self.l1 = l1
        self.aux_k = aux_k
        self.aux_weight = aux_weight
        self.dead_after = dead_after
        self.dictionary = dictionary
        self.relaxation = relaxation
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.lr = lr
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        progress: Progress = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on rows of activations.

        Parameters
        ----------
        X : array-like of shape (n, p), or a store of activations
            Of any sign. Of a store (``ActivationStore``) one shard is in memory at a time.
        y : None
            Ignored.
        progress : bool, callable or None
            Bar over the steps; silent by default.
        checkpoint : path-like, optional
            Folder from which an interrupted fit goes on, to the same bits.

        Returns
        -------
        SparseAutoencoder

        Raises
        ------
        InputError
            ``CL-INPUT-RANGE`` for a `k` above `n_concepts`; ``CL-INPUT-ZERO`` where all rows are
            the same; what any extractor refuses.
        """
        _RULES.check(self)
        n_latents = Whole(1).check("n_concepts", self.n_concepts)
        k = max(1, n_latents // 16) if self.k is None else int(self.k)
        Whole(1, n_latents, hint="At most n_concepts latents can fire.").check("k", k)
        self.seed_ = draw_seed(self.random_state)
        sample, rows, n = self._read(X)
        if n < n_latents:
            warnings.warn(
                f"SparseAutoencoder has {n_latents} latents for {n} rows: most will stand for a "
                "single row. Lower n_concepts, or give positions or crops as rows.",
                UserWarning,
                stacklevel=2,
            )
        offset = geometric_median(sample)
        scale = float((sample - offset).square().sum(1).mean().sqrt())
        if not scale > 1e-12 * float(sample.abs().max()):
            raise InputError(
                "X is constant: all rows are equal, and there is nothing to tell apart. Give rows "
                "of several images or positions.",
                code="CL-INPUT-ZERO",
            )
        generator = torch_generator(self.seed_)
        body = Autoencoder(
            (sample - offset) / scale,
            n_latents,
            k,
            activation=self.activation,
            l1=float(self.l1),
            aux=(sample.shape[1] // 2 if self.aux_k is None else int(self.aux_k)),
            aux_weight=float(self.aux_weight),
            dead_after=int(self.dead_after),
            relaxation=float(self.relaxation) if self.dictionary == "archetypal" else None,
            generator=generator,
        )
        engine = Engine(
            {"autoencoder": body},
            seed=self.seed_,
            progress=progress,
            checkpoint=checkpoint,
            key={"parameters": {"settings": self._key(sample, n)}},
        )

        def batches(epoch: int) -> Iterable[torch.Tensor]:
            for part in self._batches(X, rows, engine.order):
                yield (part.to(sample) - offset) / scale

        engine.train(
            batches,
            body.loss,
            torch.optim.Adam(body.parameters(), lr=float(self.lr)),
            steps=int(self.n_steps),
            schedule=_plateau,
            clip=1.0,
            after_step=body.normalise,
            row_every=100,
            description="train the dictionary",
        )
        self.stopped_, self.n_steps_ = engine.stopped, engine.steps
        self.history_ = np.array([row["loss"] for row in engine.history])
        for words in engine.warnings:
            warnings.warn(words, UserWarning, stacklevel=2)
        with torch.no_grad():
            offset = offset + scale * body.shift
            self.components_ = as_numpy(body.dictionary())
            self.encoder_ = as_numpy(body.encoder / scale)
            self.bias_ = as_numpy(body.bias)
            self.threshold_ = as_numpy(body.least())
        self.offset_, self.scale_, self.k_ = as_numpy(offset), scale, k
        self._measure(X, rows)
        return self

    def as_module(self) -> SparseCoder:
        """Give the encoder as a module (..., p) -> (..., k).

        Returns
        -------
        SparseCoder
        """
        check_is_fitted(self)
        most = self.k_ if self.activation == "topk" else None
        return SparseCoder(
            self.encoder_, self.bias_, self.offset_, self.threshold_, self.scale_, most
        )

    def _read(self, X: Any) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Give rows to start from, all rows where they are in memory, and their number."""
        if not hasattr(X, "batches"):
            rows = self._check_data(X)
            order = torch.randperm(len(rows), generator=torch_generator(self.seed_))
            return rows[order[:_SAMPLE].to(rows.device)], rows, len(rows)
        numbers = np.sort(np.random.default_rng(self.seed_).permutation(len(X))[:_SAMPLE])
        sample = self._check_data(X[numbers])
        return sample, torch.empty(0), len(X)

    def _batches(
        self, X: Any, rows: torch.Tensor, order: torch.Generator
    ) -> Iterable[torch.Tensor]:
        """Go through all rows once, in random order."""
        if hasattr(X, "batches"):
            seed = int(torch.randint(2**31, (1,), generator=order))
            for batch in X.batches(self.batch_size, shuffle=True, seed=seed):
                yield as_tensor(batch)
            return
        for part in torch.randperm(len(rows), generator=order).split(self.batch_size):
            yield rows[part.to(rows.device)]

    def _key(self, sample: torch.Tensor, n: int) -> str:
        settings = {name: repr(value) for name, value in self.get_params().items()}
        return fingerprint(settings, as_numpy(sample), n)

    def _measure(self, X: Any, rows: torch.Tensor) -> None:
        """Take the figures on the rows of the fit, or on the first of them."""
        fired, n, left, squares = np.zeros(len(self.bias_)), 0, 0.0, 0.0
        total = np.zeros(len(self.offset_))
        coder = self.as_module().to(resolve_device(self.device, like=rows))
        source = X.batches(4096) if hasattr(X, "batches") else rows.split(4096)
        for batch in source:
            A = as_tensor(batch, device=coder.bias.device).to(coder.bias)
            with torch.no_grad():
                U = coder(A)
                rest = A - (U @ as_tensor(self.components_).to(A) + coder.offset)
            centred = A.double() - coder.offset
            fired += as_numpy((U > 0).sum(0))
            left += float(rest.double().square().sum())
            squares += float(centred.square().sum())
            total += as_numpy(centred.sum(0))
            n += len(A)
            if n >= _MEASURED:
                break
        self.density_ = fired / n
        self.dead_ = fired == 0
        self.l0_ = float(self.density_.sum())
        self.r2_ = 1 - left / max(squares - float(total @ total) / n, 1e-300)


def _plateau(step: int, steps: int) -> float:
    """Rise over a twentieth of the steps, stay, and fall to 0 in the last fifth."""
    rise, fall = max(steps // 20, 1), max(steps // 5, 1)
    return min((step + 1) / rise, 1.0, (steps - step) / fall)
