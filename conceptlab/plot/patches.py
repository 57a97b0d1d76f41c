"""The patches in which a concept is strongest."""

from __future__ import annotations

__all__ = ["patch_grid"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from conceptlab.plot.style import bare, concept_color, new_figure, shorten, to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def patch_grid(
    patches: Sequence[Sequence[Any]],
    names: Sequence[str],
    *,
    order: Sequence[int] | None = None,
    notes: Sequence[str] | None = None,
    size: float = 0.95,
) -> Figure:
    """Draw one row of patches a concept.

    Parameters
    ----------
    patches : sequence of sequences of arrays (3, s, s)
        For each concept its best patches, the best first.
    names : sequence of str
        One name a concept.
    order : sequence of int, optional
        Which concepts to show, in which order.
    notes : sequence of str, optional
        A second line under each name, such as the importance.
    size : float
        Side of a patch in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> patches = np.random.default_rng(0).random((2, 3, 3, 8, 8))  # three of each concept
    >>> figure = patch_grid(patches, ["red", "round"])
    """
    rows = [int(i) for i in (order if order is not None else range(len(names)))]
    columns = max([len(patches[i]) for i in rows], default=1) or 1
    figure = new_figure(1.5 + columns * size, max(1, len(rows)) * size + 0.1)
    grid = figure.add_gridspec(
        max(1, len(rows)), columns + 1, width_ratios=[1.5 / size] + [1.0] * columns, wspace=0.03
    )
    for row, concept in enumerate(rows):
        label = figure.add_subplot(grid[row, 0])
        bare(label)
        label.set_xlim(0, 1)
        label.set_ylim(0, 1)
        label.add_patch(_swatch(concept))
        label.text(0.14, 0.58, shorten(names[concept], 20), va="center", fontsize=9)
        if notes is not None:
            label.text(
                0.14, 0.3, shorten(notes[concept], 60), va="center", fontsize=8, color="#555555"
            )
        for column, patch in enumerate(patches[concept]):
            ax = figure.add_subplot(grid[row, column + 1])
            ax.imshow(to_picture(patch), interpolation="nearest")
            bare(ax)
    return figure


def _swatch(concept: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0.0, 0.12), 0.07, 0.76, color=concept_color(concept), linewidth=0)
