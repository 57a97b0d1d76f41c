"""What an evaluation found, with its plots, its page and its files."""

from __future__ import annotations

__all__ = ["RemovalReport"]

import os
from pathlib import Path
from typing import Any

import numpy as np

from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.pages import HtmlReport, Page
from conceptlab.io.reading import rebuilding
from unlearning.removal.class_result import ClassResult
from unlearning.removal.findings import MEAN, RemovalFindings
from unlearning.removal.page import removal_page, removal_summary
from unlearning.removal.views import draw


class RemovalReport(RemovalFindings, HtmlReport):
    """Results of :meth:`RemovalBenchmark.run`.

    Parameters
    ----------
    results : sequence of ClassResult
        One for each class.
    skipped : dict of str to str
        Classes that could not be judged, with the reason.
    failed : dict of str to str
        Removers that failed, with the reason.
    settings : dict
        How it was run.
    provenance : dict
        Versions, machine, seed, fingerprints.

    Attributes
    ----------
    removers : list of str
        Those with scores in all classes.
    classes : list of str
        The classes that were judged.

    Examples
    --------
    >>> from unlearning.removal import RemovalBenchmark, SceneRemovals
    >>> data = SceneRemovals(("star",), n=24, size=32)
    >>> benchmark = RemovalBenchmark(lambda x: x.mean(dim=(2, 3)), n_min=8, n_bootstrap=2)
    >>> report = benchmark.run(data, ["blur"])
    >>> list(report.to_frame().columns)[:2]
    ['class', 'remover']
    """

    def plot(
        self,
        kind: str = "ranking",
        *,
        score: str = "fid",
        of: str = MEAN,
        ax: Any = None,
        remover: str | None = None,
    ) -> Any:
        """Draw the report.

        Parameters
        ----------
        kind : {"ranking", "classes", "concepts", "pictures", "agreement", "dilation"}
            Values with intervals; bars for each class; what a remover leaves and makes; its
            worst and best pictures; a score against FID to the truth (or to the original); a
            score over the dilation of the masks, for removers that were run with several.
        score : str
            Which score, for the first two and the last; FID* is ranked debiased.
        of : str
            A class, or ``"mean"``; pictures and concepts take the first class for the mean.
        ax : matplotlib.axes.Axes, optional
            Where to draw; pictures make a figure of their own.
        remover : str, optional
            For concepts and pictures; the one of the best FID* that is no control by default.

        Returns
        -------
        matplotlib.axes.Axes or matplotlib.figure.Figure
        """
        return draw(self, kind, score=score, of=of, ax=ax, remover=remover)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`."""
        tensors: dict[str, np.ndarray] = {}
        classes = []
        for number, result in enumerate(self.results):
            values, arrays = result.packed()
            classes.append(values)
            tensors |= {f"{number}/{name}": array for name, array in arrays.items()}
        data = {
            "classes": classes,
            "skipped": self.skipped,
            "failed": self.failed,
            "settings": self.settings,
            "provenance": self.provenance,
        }
        return write_bundle(path, Bundle("RemovalReport", data, tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RemovalReport:
        """Read what :meth:`save` wrote."""
        bundle = read_bundle(path, "RemovalReport")
        with rebuilding(path, "RemovalReport"):
            results = []
            for number, values in enumerate(bundle.data["classes"]):
                own = f"{number}/"
                arrays = {
                    name.removeprefix(own): array
                    for name, array in bundle.tensors.items()
                    if name.startswith(own)
                }
                results.append(ClassResult.unpacked(values, arrays))
            data = bundle.data
            return cls(
                results,
                skipped=data["skipped"],
                failed=data["failed"],
                settings=data["settings"],
                provenance=data["provenance"],
            )

    def __repr__(self) -> str:
        frame = self.ranking("fid")
        best = ", ".join(frame.remover[frame["rank"] == 1])
        return (
            f"RemovalReport({len(self.removers)} removers, classes {', '.join(self.classes)}; "
            f"best FID*: {best})"
        )

    def _page(self, title: str | None) -> Page:
        return removal_page(self, title or "Which remover is better?")

    def _summary(self) -> tuple[str, str]:
        return removal_summary(self)
