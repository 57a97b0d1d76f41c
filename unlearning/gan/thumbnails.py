"""Pictures beside the progress bar of a notebook."""

from __future__ import annotations

__all__ = ["Thumbnails"]

import base64
import io
import time
from collections.abc import Mapping
from typing import Any

import torch

from conceptlab.io.html import escape
from conceptlab.progress import Progress, in_notebook

_SIDE = 48  # of a thumbnail on the page, in pixels


class Thumbnails:
    """Strips of images in the output of a notebook's cell, drawn over at every look.

    Outside a notebook, and where progress is silenced, nothing is shown.

    Parameters
    ----------
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.
    delay : float
        Seconds before the first picture, so that short jobs show none; with
        ``progress=True`` there is no delay.
    """

    def __init__(self, progress: Progress = None, *, delay: float = 2.0) -> None:
        self.wanted = in_notebook(progress)
        self._from = time.monotonic() + (delay if progress is None else 0.0)
        self._place: Any = None

    def show(self, strips: Mapping[str, torch.Tensor]) -> None:
        """Show strips under each other, over those that were shown before.

        Parameters
        ----------
        strips : mapping of str to Tensor of shape (n, 3, height, width)
            In [0, 1]; the same columns are the same latents.
        """
        if not self.wanted or time.monotonic() < self._from:
            return
        from IPython.display import HTML, display

        view = HTML(self.html(strips))
        if self._place is None:
            self._place = display(view, display_id=True)
        else:
            self._place.update(view)

    @staticmethod
    def html(strips: Mapping[str, torch.Tensor]) -> str:
        """Make the HTML of strips, pictures inside."""
        rows = "".join(
            f"<tr><td style='padding-right:.6em'>{escape(name)}</td><td>{_picture(name, images)}"
            "</td></tr>"
            for name, images in strips.items()
        )
        return f"<table style='border-collapse:collapse;font-size:.85em'>{rows}</table>"


def _picture(name: str, images: torch.Tensor) -> str:
    """Set images side by side with a little white between them."""
    from PIL import Image

    gap = max(1, images.shape[-1] // 16)
    spaced = torch.nn.functional.pad(images.detach().float().cpu(), (0, gap), value=1.0)
    strip = torch.cat(list(spaced), dim=2).mul(255).round().clamp(0, 255).byte()
    stream = io.BytesIO()
    Image.fromarray(strip.permute(1, 2, 0).contiguous().numpy()).save(stream, "png")
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f"<img alt='{escape(name)}' src='data:image/png;base64,{data}' "
        f"style='height:{_SIDE}px;max-width:none;image-rendering:pixelated'>"
    )
