"""Figures that show themselves in a notebook, outside pyplot's global list."""

from __future__ import annotations

__all__ = ["ShownAxes", "ShownFigure"]

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure with a canvas of its own; a notebook draws it as a cell's answer.

    pyplot's figures are drawn since pyplot holds them all; these are held by
    nobody but the user.
    """

    def _repr_png_(self) -> bytes:
        if not isinstance(self.canvas, FigureCanvasAgg):
            FigureCanvasAgg(self)
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        return buffer.getvalue()


class ShownAxes(Axes):
    """The Axes of a plot of its own; as a cell's answer it is its figure's picture."""

    def _repr_png_(self) -> bytes | None:
        figure = self.get_figure(root=True)
        return figure._repr_png_() if isinstance(figure, ShownFigure) else None
