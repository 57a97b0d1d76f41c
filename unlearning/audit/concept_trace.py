"""The same concepts and the same maps, on a model before and after it forgot."""

from __future__ import annotations

__all__ = ["ConceptTrace", "trace_concepts"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError, unknown_name
from conceptlab.io.html import escape, picture, table
from conceptlab.progress import Progress
from unlearning.audit.subjects import as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from conceptlab import CRAFT, SplitModel

_BATCH = 128


@dataclass(frozen=True, eq=False)
class ConceptTrace:
    """Concepts of a model in that model and in its successor.

    Attributes
    ----------
    names : list of str
        The k concepts.
    coefficients : dict of str to ndarray of shape (n, k)
        ``"before"`` and ``"after"``: U of every image, averaged over positions.
    forgotten : ndarray of shape (n,), bool
        Which images are of forgotten classes.
    maps : dict of str to ndarray of shape (m, k, H, W), float32
        ``"before"`` and ``"after"``, of the first m forgotten images.
    images : ndarray of shape (m, 3, H, W)
        Those images.
    relative_error : dict of str to float
        ``"before"`` and ``"after"``: mean over the forgotten images of ``‖A - U W‖ / ‖A‖``,
        what the concepts leave unexplained. When it rises, the model left their span.
    activation_norm : dict of str to float
        ``"before"`` and ``"after"``: mean over all images of ``‖A‖``. Training may scale a
        whole layer down; a concept is gone when its coefficients fall far below that.

    Examples
    --------
    >>> from torch import nn
    >>> from conceptlab import CRAFT, SplitModel
    >>> body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU())
    >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(8, 3, 16, 16)
    >>> craft = CRAFT(SplitModel(model, at="0"), 3, patches="none", random_state=0)
    >>> trace = trace_concepts(craft.fit(images, target=0), model, images, [0, 1] * 4, [1])
    >>> list(trace.to_frame().columns)[:2], sorted(trace.maps)
    (['concept', 'before'], ['after', 'before'])
    """

    names: list[str]
    coefficients: dict[str, np.ndarray]
    forgotten: np.ndarray
    maps: dict[str, np.ndarray]
    images: np.ndarray
    relative_error: dict[str, float]
    activation_norm: dict[str, float]

    def to_frame(self) -> pd.DataFrame:
        """Tabulate mean coefficients.

        Returns
        -------
        pandas.DataFrame
            A row a concept, the one that lost most first: ``concept``, ``before`` and
            ``after`` on the forgotten images, their quotient ``kept``, and the same on the
            others (``kept_elsewhere``). NaN where a concept was never there.
        """
        import pandas as pd

        before, after = self.coefficients["before"], self.coefficients["after"]
        mine = self.forgotten
        frame = pd.DataFrame(
            {
                "concept": self.names,
                "before": before[mine].mean(axis=0),
                "after": after[mine].mean(axis=0),
                "kept": _quotient(after[mine], before[mine]),
                "kept_elsewhere": _quotient(after[~mine], before[~mine]),
            }
        )
        order = np.argsort(frame["after"] - frame["before"], kind="stable")
        return frame.iloc[order].reset_index(drop=True)

    def plot(self, concepts: Sequence[int | str] | None = None, *, top: int = 3) -> Figure:
        """Draw each image with its maps before and after, at one scale for both.

        Parameters
        ----------
        concepts : sequence of int or str, optional
            Which; by default those that lost most.
        top : int
            How many, when `concepts` is left out.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from conceptlab.plot.maps import map_pairs

        chosen = list(self.to_frame()["concept"][:top]) if concepts is None else concepts
        return map_pairs(
            self.images,
            self.maps["before"],
            self.maps["after"],
            self.names,
            concepts=[self._place(name) for name in chosen],
        )

    def _place(self, name: int | str) -> int:
        if isinstance(name, str):
            if name not in self.names:
                raise unknown_name("concept", name, self.names)
            return self.names.index(name)
        return int(name)

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        head = escape("Concepts on images of the forgotten class, before and after")
        body = picture(self.plot(), "concept maps before and after", dpi=80)
        rows = frame.round(3).itertuples(index=False, name=None)
        return f"<div><p>{head}</p>{body}{table(list(frame.columns), rows)}</div>"


def trace_concepts(
    craft: CRAFT,
    after: Any,
    images: Any,
    y: ArrayLike,
    forgotten: Sequence[int],
    *,
    method: str = "implicit",
    n_maps: int = 4,
    progress: Progress = None,
) -> ConceptTrace:
    """Look for the concepts that CRAFT found, in the model that forgot.

    Parameters
    ----------
    craft : CRAFT
        Fitted on the original; its layer and its concepts are taken.
    after : torch.nn.Module or UnlearnResult
        The unlearned model: the original's architecture, trained on from its weights.
    images : images
        As for :meth:`CRAFT.fit`, of forgotten and of other classes.
    y : array-like of shape (n,)
        Their classes.
    forgotten : sequence of int
        The forgotten classes.
    method : str
        How maps are made; see :func:`conceptlab.maps.concept_maps`.
    n_maps : int
        How many forgotten images get maps.
    progress : bool or callable, optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    ConceptTrace

    Raises
    ------
    InputError
        Labels that do not fit the images, no forgotten image among them, none of another
        class, or no map asked for.
    SplitError
        A model without the layer.

    Notes
    -----
    The coefficients are those of the original's concepts, ``U = argmin ‖A - U W‖`` with
    U ≥ 0, on the activations A of either model: eq. 1 of Fel et al. (2023) with W held. That
    is meaningful as long as the second model was trained on from the first; a model that was
    trained anew has other directions, and reads as if all concepts were gone.
    Coefficients that fall show that the layer no longer answers; they do not prove that
    nothing can be read off it, which is what the probes of :func:`audit` are for.

    References
    ----------
    Fel et al., "CRAFT: Concept Recursive Activation FacTorization for Explainability", CVPR
    2023, equation 1.

    Examples
    --------
    >>> from torch import nn
    >>> from conceptlab import CRAFT, SplitModel
    >>> with torch.random.fork_rng():
    ...     _ = torch.manual_seed(0)
    ...     body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU())
    ...     model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    ...     images = torch.rand(12, 3, 32, 32)
    >>> craft = CRAFT(SplitModel(model, at="0"), 3, patches="none", random_state=0)
    >>> trace = trace_concepts(craft.fit(images, target=1), model, images, [0, 1] * 6, [1])
    >>> trace.to_frame()["kept"].round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    from conceptlab.datasets.images import as_image_batch
    from conceptlab.maps import concept_maps

    if n_maps < 1:
        raise InputError(f"n_maps must be at least 1, got {n_maps}.", code="CL-INPUT-RANGE")
    split = craft.split
    batch = as_image_batch(images, value_range="any" if split.preprocess is None else "unit")
    labels = as_numpy(y).ravel()
    if len(labels) != len(batch):
        raise InputError(
            f"y must have a class for each of the {len(batch)} images, got {len(labels)}.",
            code="CL-INPUT-SHAPE",
        )
    mine = np.isin(labels, [int(c) for c in forgotten])
    if not mine.any() or mine.all():
        raise InputError(
            f"Expected images of the classes {list(forgotten)} and of others, got "
            f"{int(mine.sum())} of them among {len(mine)}. Give test images of all classes.",
            code="CL-INPUT-LABELS",
        )
    shown = batch[np.flatnonzero(mine)[:n_maps]]
    splits = {"before": split, "after": split.at_layer(split.layer, as_model(after, "after")[0])}
    coefficients, maps, left, norms = {}, {}, {}, {}
    for name, cut in splits.items():
        U, unexplained, norm = _code(cut, craft.extractor_, batch)
        coefficients[name] = U
        left[name], norms[name] = float(unexplained[mine].mean()), float(norm.mean())
        maps[name] = concept_maps(
            cut, craft.extractor_, shown, method=method, random_state=0, progress=progress
        )
    return ConceptTrace(
        names=list(craft.concept_names_),
        coefficients=coefficients,
        forgotten=mine,
        maps=maps,
        images=as_numpy(shown),
        relative_error=left,
        activation_norm=norms,
    )


def _code(
    split: SplitModel, extractor: Any, images: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give each image's mean coefficients (n, k), relative error and norm of activations (n,)."""
    U, left, norms = [], [], []
    for part in images.split(_BATCH):
        with torch.no_grad():
            A = as_numpy(split.to_positions(split.g(part)))
        rows = A.reshape(-1, A.shape[-1])
        codes = as_numpy(extractor.transform(rows))
        rest = rows - as_numpy(extractor.inverse_transform(codes))
        norm = np.linalg.norm(A.reshape(len(A), -1), axis=1)
        error = np.linalg.norm(rest.reshape(len(A), -1), axis=1)
        left.append(error / np.where(norm > 0, norm, 1))
        norms.append(norm)
        U.append(codes.reshape(len(A), -1, codes.shape[-1]).mean(axis=1))
    return np.concatenate(U).astype(np.float64), np.concatenate(left), np.concatenate(norms)


def _quotient(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Divide the means of columns; NaN where nothing was there."""
    first = before.mean(axis=0)
    return np.where(first > 0, after.mean(axis=0) / np.where(first > 0, first, 1), np.nan)
