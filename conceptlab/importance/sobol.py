"""Sobol indices of concepts: which of them drives an output."""

from __future__ import annotations

__all__ = ["SobolImportance"]

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator

from conceptlab.arrays import as_numpy
from conceptlab.batching import AutoInt
from conceptlab.errors import InputError, unknown_name
from conceptlab.importance.control import estimate, slopes
from conceptlab.importance.design import Design, check_design, sample_design
from conceptlab.importance.estimators import ESTIMATORS
from conceptlab.importance.evaluate import Evaluator, check_coefficients, resolve_target
from conceptlab.importance.intervals import mean_interval
from conceptlab.importance.probing import affine_in_mean, affine_per_image, depends_on_mean, pool
from conceptlab.importance.remainder import rest_of
from conceptlab.importance.result import Importance
from conceptlab.parameters import Flag, OneOf, Real, Rules, Whole
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, numpy_generator, torch_generator

# float64 numbers that outputs and their products may hold while images are worked on.
_NUMBERS_AT_ONCE = 2**24
_BY_CONCEPT = ("first_order", "signed")
_RULES = Rules(
    control=OneOf("linear") | None,
    confidence=Real(above=0, below=1),
    n_bootstrap=Whole(0),
    exact=Flag() | OneOf("auto"),
)


class SobolImportance(BaseEstimator):
    """Total-order and first-order Sobol indices of masked concept coefficients.

    With masks m uniform on [0, 1]^k, the output of an image is a random
    variable y(m) = fn(U * m). The total index of concept i is
    ST_i = E[Var(y | all m but m_i)] / Var(y): the share of the variance that
    involves the concept, alone or together with others (Fel et al., *CRAFT*,
    2023, section 3.3). It is computed for each image; one mask entry scales a
    concept at all positions of the image.

    Parameters
    ----------
    n_design : int
        Masks in each of the two samples; an image costs ``n_design * (k + 2)``
        evaluations. Scrambled Sobol sequences are best at powers of two.
    estimator : {"jansen", "saltelli", "sobol", "homma", "janon", "martinez", "glen"}
        See :mod:`conceptlab.importance.estimators`.
    sampler : {"sobol", "halton", "latin", "random"} or Design
        Scrambled design, or masks of your own; see
        :func:`~conceptlab.importance.design.sample_design`.
    control : {"linear", None}
        ``"linear"`` estimates only what a linear function of the masks leaves
        over; see :mod:`conceptlab.importance.control`. None uses the published
        formulas as they are, and so does a `Design` of your own.
    confidence : float
        Level of the bootstrap intervals.
    n_bootstrap : int
        Resamples; 0 leaves the intervals NaN. Those over images are a Bayesian bootstrap
        (:mod:`conceptlab.importance.intervals`); those of one image resample the design.
    exact : bool or "auto"
        ``"auto"`` probes whether `fn` is linear in the masked coefficients and
        then takes the closed form ST_i = c_i² / sum of c². False always samples.
        True raises where `fn` is not linear.
    batch_size : int or "auto"
        Rows of coefficients in one call of `fn`.
    random_state : int, RandomState, Generator or None
        Seed of design, probes and bootstrap; the result records it.
    remainder : {"drop", "hold", "player"}
        What becomes of A - U W, which the concepts do not code; see
        :mod:`conceptlab.importance.remainder`. ``"hold"`` and ``"player"`` need the
        activations and :class:`~conceptlab.importance.HeadOnCoefficients`.

    Notes
    -----
    *Routes.* By probing, in this order: ``"linear-pooled"``, fn(U) = b +
    mean over positions(U) M, where k + 1 evaluations serve all images;
    ``"pooled"``, fn depends on the mean over positions, so that it alone is
    masked; ``"linear"``, affine in the mask image by image, k + 1 evaluations
    each; ``"general"``. ``exact=False`` leaves out the linear ones, `inputs` those that
    hold for all images at once. A function that bends by less than 1e-4 of its spread counts
    as linear.

    *No order effect.* Columns of a sequence differ in quality, so each image's
    concepts take them in the order of the image's own coefficients, the largest
    first. Permuting the concepts permutes the indices and changes nothing else,
    and a row never depends on its batch. A `Design` of your own is used as it is.

    *Accuracy.* The largest error of an index, measured on heads of 10 concepts
    (two layers with ReLU; softmax of a linear one): 0.02 with 32 masks, 0.002 with
    1024. Without the control 0.07 to 0.1, and 0.004. Functions that are
    interactions through and through need more masks either way.

    Examples
    --------
    >>> import torch
    >>> U = torch.rand(6, 3)
    >>> found = SobolImportance(random_state=0)(lambda u: u @ torch.tensor([3.0, 1.0, 0.0]), U)
    >>> found.exact, found.values.shape
    (True, (6, 3))
    >>> bool(abs(found.values.sum(1) - 1).max() < 1e-6)
    True
    """

    def __init__(
        self,
        n_design: int = 32,
        estimator: str = "jansen",
        sampler: str | Design = "sobol",
        control: str | None = "linear",
        confidence: float = 0.95,
        n_bootstrap: int = 400,
        exact: bool | Literal["auto"] = "auto",
        batch_size: AutoInt = "auto",
        random_state: RandomState = None,
        remainder: str = "drop",
    ) -> None:
        self.n_design = n_design
        self.estimator = estimator
        self.sampler = sampler
        self.control = control
        self.confidence = confidence
        self.n_bootstrap = n_bootstrap
        self.exact = exact
        self.batch_size = batch_size
        self.random_state = random_state
        self.remainder = remainder

    def __call__(
        self,
        fn: Callable[[torch.Tensor], Any],
        U: Any,
        *,
        target: Any = None,
        activations: Any = None,
        inputs: Any = None,
        progress: Progress = None,
    ) -> Importance:
        """Measure the importance of every concept for every image.

        Parameters
        ----------
        fn : callable
            Maps coefficients, a tensor (m, *positions, k) of the dtype and on
            the device of `U`, to outputs (m, n_outputs) or (m,), row by row.
            :class:`~conceptlab.importance.HeadOnCoefficients` is one, with a
            faster way to mask.
        U : array-like of shape (n, k) or (n, *positions, k)
            Coefficients of n images.
        target : int, sequence of int, "predicted" or None
            The output to explain: one for all, one for each image, the largest
            at the full coefficients, or the only one.
        activations : array-like of shape (n, *positions, p), optional
            What `U` codes, channels last; only where the rest is kept.
        inputs : sequence of n, optional
            What the images come from, in slices, where `fn` needs more than coefficients, such
            as numbers that join an image later: it gets those of its rows as ``inputs=``.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        Importance

        Raises
        ------
        InputError
            ``CL-INPUT-TARGET`` for a target that is no output; else for
            parameters or arrays that do not fit, and for ``exact=True`` with a
            function that is not linear.
        """
        U = check_coefficients(U)
        rest = rest_of(fn, U, activations, self.remainder)
        player = self.remainder == "player"
        self._check_parameters(U.shape[-1] + player)
        seed = draw_seed(self.random_state)
        evaluate = Evaluator(fn, self.batch_size, inputs)
        generator = torch_generator(seed)

        full = evaluate(U, rest)
        chosen = resolve_target(target, full, len(U))
        if self.exact is not False and inputs is None:
            affine = affine_in_mean(evaluate, U, full, generator, rest)
            if affine is not None:
                c = pool(U).to("cpu", torch.float64) * affine.M[:, chosen].T
                if player and affine.rest is not None:
                    c = torch.cat([c, affine.rest.gather(1, chosen[:, None])], dim=1)
                floor = 32 * evaluate.precision * full.abs().amax(1)
                return self._closed_form(c, floor, chosen, "linear-pooled", evaluate, seed)
        pooled = None
        if self.exact is not True and inputs is None:
            pooled = depends_on_mean(evaluate, U, full, generator, rest)
        if pooled is None and self.exact is not False:
            found = affine_per_image(evaluate, U, chosen, generator, rest, player)
            if found is not None:
                return self._closed_form(*found, chosen, "linear", evaluate, seed)
            if self.exact is True:
                raise InputError(
                    "exact=True needs a function that is linear in the masked coefficients, but "
                    "probing found that this one is not. Use exact='auto' or False, which sample.",
                    code="CL-INPUT-OPTION",
                )
        route = "general" if pooled is None else "pooled"
        U, rest = (U, rest) if pooled is None else pooled
        return self._sample(evaluate, U, rest, chosen, route, seed, progress)

    # --------------------------------------------------------------- private
    def _check_parameters(self, k: int) -> None:
        if self.estimator not in ESTIMATORS:
            raise unknown_name("estimator", self.estimator, ESTIMATORS)
        if isinstance(self.sampler, Design):
            if self.sampler.n_concepts != k:
                raise InputError(
                    f"The design has {self.sampler.n_concepts} columns, but U has {k} concepts.",
                    code="CL-INPUT-SHAPE",
                )
        else:
            check_design(self.n_design, k, self.sampler)
        _RULES.check(self)

    def _design(self, k: int, seed: int) -> Design:
        if isinstance(self.sampler, Design):
            return self.sampler
        return sample_design(self.n_design, k, sampler=self.sampler, random_state=seed)

    def _closed_form(
        self,
        slopes: torch.Tensor,
        floor: torch.Tensor,
        target: torch.Tensor,
        route: str,
        evaluate: Evaluator,
        seed: int,
    ) -> Importance:
        """ST_i = S_i = c_i² / sum of c², for y = b + sum of c_i m_i with independent masks."""
        squares = slopes.square()
        total = squares.sum(1)
        moves = total > floor.square()
        share = torch.where(moves, 1 / total, 0.0)[:, None]
        values = as_numpy(squares * share)
        return self._result(
            values=values,
            local_interval=np.repeat(values[..., None], 2, axis=-1),
            first_order=values,
            signed=as_numpy(slopes * share.sqrt()),
            variance=as_numpy(torch.where(moves, total / 12, 0.0)),
            target=target,
            exact=True,
            route=route,
            n_design=0,
            evaluate=evaluate,
            seed=seed,
        )

    def _sample(
        self,
        evaluate: Evaluator,
        U: torch.Tensor,
        rest: torch.Tensor | None,
        target: torch.Tensor,
        route: str,
        seed: int,
        progress: Progress,
    ) -> Importance:
        player = self.remainder == "player"
        n, k = len(U), U.shape[-1] + player
        design = self._design(k, seed)
        size = design.n_design
        masks = torch.from_numpy(design.stacked()).to(U)
        columns = torch.arange(k).expand(n, k)
        if not isinstance(self.sampler, Design):
            columns = torch.cat([_columns(U), columns[:, k - 1 :]], 1) if player else _columns(U)
        A, steps = torch.from_numpy(design.A), torch.from_numpy(design.B - design.A)
        weights = self._weights(size, seed)
        results: list[tuple[torch.Tensor, ...]] = []
        at_once = max(1, _NUMBERS_AT_ONCE // (8 * size * (k + 2) + 8 * len(weights) * k))
        starts = range(0, n, at_once)
        for start in track(starts, description="mask concepts", progress=progress, unit="batch"):
            part = slice(start, start + at_once)
            order = columns[part]
            left = None if rest is None else rest[part]
            y = evaluate.grid(U[part], masks, order.to(U.device), target[part], left, start)
            y = y.reshape(len(y), k + 2, size)
            results.append(self._indices(y, order, A, steps, weights, evaluate.precision))
        values, first, signed, variance, local = (
            as_numpy(torch.cat(parts)) for parts in zip(*results, strict=True)
        )
        return self._result(
            values=values,
            local_interval=local,
            first_order=first,
            signed=signed,
            variance=variance,
            target=target,
            exact=False,
            route=route,
            n_design=size,
            evaluate=evaluate,
            seed=seed,
        )

    def _indices(
        self,
        y: torch.Tensor,
        columns: torch.Tensor,
        A: torch.Tensor,
        steps: torch.Tensor,
        weights: torch.Tensor,
        precision: float,
    ) -> tuple[torch.Tensor, ...]:
        """Turn outputs (q, k + 2, n_design) into indices, concept by concept.

        The mixture that concept j of an image belongs to is ``columns[:, j]``.
        """
        rows = torch.arange(len(y))[:, None]
        a, b = y[:, 0].T, y[:, 1].T
        c = y[:, 2:][rows, columns].permute(2, 0, 1)  # (n_design, q, k)
        A, steps = A[:, columns], steps[:, columns]
        beta = slopes(a, c, steps)
        how: dict[str, Any] = {
            "A": A,
            "steps": steps,
            "beta": beta if self._controlled() else None,
            "estimator": self.estimator,
            "precision": precision,
        }
        found = estimate(a, b, c, **how)
        moves = (found.variance > 0)[:, None]
        signed = torch.where(moves, beta / (12 * found.variance).sqrt()[:, None], 0.0)
        if len(weights):
            drawn = estimate(a, b, c, weights=weights, **how).total
            local = torch.stack([torch.quantile(drawn, p, dim=0) for p in self._levels()], dim=-1)
            local = torch.where(moves[..., None], local, 0.0)
        else:
            local = torch.full((*found.total.shape, 2), torch.nan, dtype=torch.float64)
        return found.total, found.first, signed, found.variance, local

    def _controlled(self) -> bool:
        # The control needs masks that are uniform on [0, 1], as sampled ones are.
        return self.control == "linear" and not isinstance(self.sampler, Design)

    def _weights(self, size: int, seed: int) -> torch.Tensor:
        """Draw how often each row of the design is in a resample: (n_bootstrap, n_design)."""
        counts = numpy_generator(seed).multinomial(
            size, np.full(size, 1 / size), size=self.n_bootstrap
        )
        return torch.from_numpy(counts / size)

    def _levels(self) -> tuple[float, float]:
        return (1 - self.confidence) / 2, (1 + self.confidence) / 2

    def _result(
        self,
        *,
        values: np.ndarray,
        local_interval: np.ndarray,
        target: torch.Tensor,
        evaluate: Evaluator,
        seed: int,
        **fields: Any,
    ) -> Importance:
        n, k = values.shape
        if n == 1:
            interval = local_interval[0]
        else:
            # Another stream than the design's: the two must not be tied to each other.
            draw = np.random.default_rng([seed, 1])
            interval = mean_interval(values, self.confidence, self.n_bootstrap, draw)
            if not fields["variance"].any():
                interval = np.where(np.isnan(interval), np.nan, 0.0)  # nothing moves the output
        if self.remainder == "player":
            fields = {
                name: value[:, : k - 1] if name in _BY_CONCEPT else value
                for name, value in fields.items()
            }
            fields |= {"rest": values[:, -1].copy(), "rest_interval": interval[-1].copy()}
            values, interval = values[:, :-1].copy(), interval[:-1]
            local_interval = local_interval[:, :-1]
        return Importance(
            values=values,
            mean=values.mean(0),
            interval=np.ascontiguousarray(interval),
            local_interval=np.ascontiguousarray(local_interval),
            remainder=self.remainder,
            target=as_numpy(target),
            estimator=self.estimator,
            sampler=self.sampler.sampler if isinstance(self.sampler, Design) else self.sampler,
            control="linear" if self._controlled() else None,
            n_evaluations=evaluate.n_evaluations,
            confidence=self.confidence,
            seed=seed,
            **fields,
        )


def _columns(U: torch.Tensor) -> torch.Tensor:
    """Rank each image's concepts by the size of their coefficients: (n, k) int64.

    Concepts that an image lacks come last; which of them comes first is of no
    importance, for none of them changes an output.
    """
    size = U.abs().flatten(1, -2).double().sum(1) if U.ndim > 2 else U.abs().double()
    order = torch.argsort(size, dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(U.shape[-1], device=U.device).expand_as(order))
    return ranks.cpu()
