"""Gradient attributions of outputs to concepts and of concepts to inputs, by captum."""

from __future__ import annotations

__all__ = ["METHODS", "ConceptGradients"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from conceptlab.arrays import ArrayKind, ArrayLike, as_numpy, as_tensor
from conceptlab.batching import AutoInt, iter_batches
from conceptlab.errors import DependencyError, InputError, unknown_name
from conceptlab.importance.evaluate import check_coefficients, resolve_target
from conceptlab.importance.head import HeadOnCoefficients
from conceptlab.parameters import Whole
from conceptlab.progress import Progress

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel

METHODS = ("integrated_gradients", "gradient_x_input", "saliency", "occlusion")
_ON_INPUTS = METHODS[:3]


class ConceptGradients:
    """Attributions in the space of concepts, and from concepts to the input.

    Parameters
    ----------
    split : SplitModel
        The model cut at the extractor's layer.
    extractor : ConceptExtractor
        Fitted; its decoder is affine, its code differentiable
        (``as_module()``).
    method : {"integrated_gradients", "gradient_x_input", "saliency", "occlusion"}
        Integrated gradients from zero coefficients (Sundararajan et al., 2017)
        add up to the change of the output; gradient times coefficient; absolute
        gradient; the drop when a concept is taken out. The first two and the
        last are equal for a linear head.
    n_steps : int
        Gauss-Legendre points of integrated gradients.
    batch_size : int or "auto"
        Images in one pass.

    Notes
    -----
    The computation is captum's (Kokhlikyan et al., 2020); here are the two
    functions that it attributes: coefficients -> h(U W), and x -> u_k(x). At the
    last layer, where the head is linear in U, gradient x input, integrated
    gradients and occlusion coincide (Fel et al., *A holistic approach to unifying
    automatic concept extraction and concept importance estimation*, 2023).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from conceptlab import NMFConcepts, SplitModel
    >>> model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    ...                       nn.Flatten(), nn.Linear(6, 2))
    >>> split = SplitModel(model, at="1")
    >>> images = torch.rand(4, 3, 8, 8)
    >>> A = split.to_positions(split.g(images)).detach()
    >>> extractor = NMFConcepts(2, random_state=0).fit(A.reshape(-1, 6))
    >>> gradients = ConceptGradients(split, extractor)
    >>> tuple(gradients.coefficients(extractor.as_module()(A), target=1).shape)
    (4, 2)
    >>> tuple(gradients.inputs(images, concept=0).shape)
    (4, 3, 8, 8)
    """

    def __init__(
        self,
        split: SplitModel,
        extractor: Any,
        method: str = "integrated_gradients",
        *,
        n_steps: int = 50,
        batch_size: AutoInt = "auto",
    ) -> None:
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        Whole(1).check("n_steps", n_steps)
        self.split = split
        self.extractor = extractor
        self.method = method
        self.n_steps = n_steps
        self.batch_size = batch_size

    def coefficients(
        self,
        U: ArrayLike,
        *,
        target: Any = None,
        positions: bool = False,
        progress: Progress = None,
    ) -> Any:
        """Attribute an output to the concepts of each image.

        Parameters
        ----------
        U : array-like of shape (n, k) or (n, *positions, k)
            Coefficients.
        target : int, sequence of int, "predicted" or None
            The output.
        positions : bool
            Keep the positions (not for ``"occlusion"``, which takes a concept
            out everywhere at once).
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        array of shape (n, k), or (n, *positions, k)
            Sums over positions, of the kind of `U`. Integrated gradients add up
            to output(U) - output(0).
        """
        kind = ArrayKind.of(U)
        head = HeadOnCoefficients.from_extractor(self.split, self.extractor)
        coefficients = check_coefficients(U).to(head.device, head.W.dtype)
        chosen = _targets(head, coefficients, target, self.batch_size)
        if positions and self.method == "occlusion":
            raise InputError(
                "method='occlusion' takes a concept out at all positions at once, so there is one "
                "figure for an image. Leave out positions=True.",
                code="CL-INPUT-OPTION",
            )
        # One mask entry a concept, so that occlusion leaves it out everywhere.
        groups = torch.arange(coefficients.shape[-1], device=head.device)
        found = self._attribute(
            head, coefficients, chosen, groups.expand(1, *coefficients.shape[1:]), None, progress
        )
        if self.method == "occlusion":
            # Every position carries the drop of the whole concept.
            found = found.flatten(1, -2)[:, 0] if found.ndim > 2 else found
        elif not positions and found.ndim > 2:
            found = found.flatten(1, -2).sum(1)
        return kind.restore(found)

    def inputs(
        self,
        x: Any,
        *,
        concept: int,
        baseline: Any = None,
        progress: Progress = None,
    ) -> Any:
        """Attribute a concept's coefficient to the input.

        Parameters
        ----------
        x : array-like of shape (n, 3, H, W)
            As the split model takes it.
        concept : int
            Which concept; its coefficient is averaged over positions.
        baseline : array-like, optional
            Where integrated gradients start, such as a blurred image; zeros by
            default.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        array of the shape and kind of `x`
        """
        if self.method not in _ON_INPUTS:
            raise unknown_name(
                "method on inputs",
                self.method,
                _ON_INPUTS,
                hint="conceptlab.maps.concept_maps(..., method='occlusion') hides parts of images.",
            )
        kind = ArrayKind.of(x)
        images = as_tensor(x, device=self.split.device)
        code = self.extractor.as_module().to(self.split.device)
        k = len(self.extractor.components_)
        if not isinstance(concept, int) or isinstance(concept, bool) or not 0 <= concept < k:
            raise InputError(
                f"concept must be an integer from 0 to {k - 1}, got {concept!r}.",
                code="CL-INPUT-RANGE",
            )

        def coefficient(batch: torch.Tensor) -> torch.Tensor:
            u = code(self.split.to_positions(self.split.g(batch)))
            return u.flatten(1, -2).mean(1) if u.ndim > 2 else u

        chosen = torch.full((len(images),), concept, device=images.device)
        start = None if baseline is None else as_tensor(baseline).to(images)
        return kind.restore(self._attribute(coefficient, images, chosen, None, start, progress))

    def completeness(self, U: ArrayLike, *, target: Any = None) -> Any:
        """Measure how far attributions are from adding up to output(U) - output(0).

        Parameters
        ----------
        U : array-like of shape (n, k) or (n, *positions, k)
            Coefficients.
        target : int, sequence of int, "predicted" or None
            The output.

        Returns
        -------
        numpy.ndarray of shape (n,), float64
            Sum of the attributions minus the change of the output; near zero for
            integrated gradients with enough steps.
        """
        coefficients = check_coefficients(U)
        head = HeadOnCoefficients.from_extractor(self.split, self.extractor)
        chosen = _targets(head, coefficients, target, self.batch_size)
        found = as_tensor(self.coefficients(coefficients, target=chosen)).double().sum(1).cpu()
        change = [
            value
            for _, _, value in iter_batches(
                lambda a, b: (
                    (
                        head(coefficients[a:b]).double()
                        - head(torch.zeros_like(coefficients[:1])).double()
                    )
                    .detach()
                    .cpu()
                    .gather(1, chosen[a:b, None].cpu())[:, 0]
                ),
                len(coefficients),
                batch_size=self.batch_size,
                progress=False,
            )
        ]
        return as_numpy(found - torch.cat(change))

    # --------------------------------------------------------------- private
    def _attribute(
        self,
        fn: Callable[[torch.Tensor], torch.Tensor],
        values: torch.Tensor,
        target: torch.Tensor,
        groups: torch.Tensor | None,
        baseline: torch.Tensor | None,
        progress: Progress,
    ) -> torch.Tensor:
        """Run captum on batches."""
        attr = _captum()

        def step(start: int, stop: int) -> torch.Tensor:
            part = values[start:stop].detach().clone().requires_grad_(True)
            chosen = target[start:stop].to(part.device)
            first: Any = 0
            if baseline is not None:
                whole = baseline.shape == values.shape
                first = baseline[start:stop] if whole else baseline.expand_as(part)
            if self.method == "integrated_gradients":
                found = attr.IntegratedGradients(fn).attribute(
                    part,
                    baselines=first,
                    target=chosen,
                    n_steps=self.n_steps,
                    internal_batch_size=max(len(part), 64),
                )
            elif self.method == "gradient_x_input":
                found = attr.InputXGradient(fn).attribute(part, target=chosen)
            elif self.method == "saliency":
                found = attr.Saliency(fn).attribute(part, target=chosen, abs=True)
            else:
                with torch.no_grad():
                    found = attr.FeatureAblation(fn).attribute(
                        part.detach(), baselines=0, target=chosen, feature_mask=groups
                    )
            return torch.as_tensor(found).detach().to(values.dtype)

        parts = [
            value
            for _, _, value in iter_batches(
                step,
                len(values),
                batch_size=self.batch_size,
                device=values.device,
                description="attribute",
                progress=progress,
            )
        ]
        return torch.cat(parts)


def _targets(
    head: HeadOnCoefficients, U: torch.Tensor, target: Any, batch_size: AutoInt
) -> torch.Tensor:
    with torch.no_grad():
        rows = len(U) if isinstance(target, str) else 1
        outputs = torch.cat(
            [
                value
                for _, _, value in iter_batches(
                    lambda a, b: head(U[a:b]), rows, batch_size=batch_size, progress=False
                )
            ]
        )
    if isinstance(target, str):
        return resolve_target(target, outputs, len(U))
    return resolve_target(target, int(outputs.shape[1]), len(U))


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise DependencyError(
            f"ConceptGradients needs captum, which cannot be imported ({error}). Install it with: "
            "pip install captum"
        ) from error
    return attr
