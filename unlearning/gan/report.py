"""The report of an assessment."""

from __future__ import annotations

__all__ = ["GanReport"]

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import unknown_name
from conceptlab.io.html import escape, picture, table
from conceptlab.io.pages import HtmlReport, Page, Section

if TYPE_CHECKING:
    import pandas as pd

_PLOTS = ("grids", "scores", "figures")


@dataclass
class GanReport(HtmlReport):
    """What a generator forgot; made by :func:`unlearning.gan.assess`.

    Attributes
    ----------
    figures : dict of str to float
        ``"judge: removed"``: share of latents that had the concept whose image no longer
        shows it; ``"judge: kept ..."``: share of them whose other attributes stay;
        ``"judge: unchanged, never had it"``: share of the other latents with all
        attributes unchanged; ``"judge: unclear"``: share of latents that had the concept whose
        image fits no value of some family (a probability of 0.7 for none), beside the share
        before, since a judge that knows four colours calls a blend one of them;
        ``"judge: leak"``: share of those that show the concept now;
        the same by the guide; ``"degree, guide"`` and ``"degree, second encoder"``, see
        :func:`degree_of_unlearning`; ``"fid"`` and ``"kid"`` to images of the original
        without the concept, beside those of further such images (the ideal);
        ``"diversity / before"``; attacks that were added.
    facts : dict
        Targets, number of latents, seed, scores, and under ``"missed"`` the aims (90 %
        removed, 97 % unchanged) that are not reached.
    pictures : dict of str to ndarray of shape (m, 3, height, width)
        The same latents before and after.
    notes : list of str
    provenance : dict

    Examples
    --------
    >>> GanReport({"judge: removed": 0.9}, {"target": "red"}).figures
    {'judge: removed': 0.9}
    """

    figures: dict[str, float]
    facts: dict[str, Any]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = {k: v for k, v in self.figures.items() if k.endswith(("removed", "never had it"))}
        body = ", ".join(f"{k} {v:.3f}" for k, v in shown.items() if not k.startswith("pixel"))
        return f"GanReport({self._missed()}{self._targets()}: {body})"

    def add(self, attack: str, figures: dict[str, float]) -> GanReport:
        """Add the figures of an attack, each named ``"attack: figure"``; gives the report."""
        self.figures.update({f"{attack}: {name}": value for name, value in figures.items()})
        return self

    def to_frame(self) -> pd.DataFrame:
        """Give the figures as a table with the columns figure and value."""
        import pandas as pd

        return pd.DataFrame({"figure": list(self.figures), "value": list(self.figures.values())})

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the pictures as JSON values; a figure that is NaN becomes None."""
        facts = {k: v for k, v in self.facts.items() if k != "scores"}
        figures = {k: float(v) if np.isfinite(v) else None for k, v in self.figures.items()}
        return {
            "figures": figures,
            "facts": facts,
            "notes": self.notes,
            "provenance": self.provenance,
        }

    def plot(self, kind: str = "grids", **options: Any) -> Any:
        """Draw the report.

        Parameters
        ----------
        kind : {"grids", "scores", "figures"}
            The same latents before and after; distributions of the guide's scores; the
            shares as bars.
        **options
            For the function of ``conceptlab.plot.generators``.

        Returns
        -------
        matplotlib.figure.Figure or matplotlib.axes.Axes
        """
        from conceptlab.plot.generators import before_after_grid, score_distributions, share_bars

        if kind not in _PLOTS:
            raise unknown_name("plot", kind, _PLOTS)
        if kind == "grids":
            return before_after_grid(self.pictures, **options)
        if kind == "scores":
            return score_distributions(self.facts["scores"], self.facts["targets"][0], **options)
        shares = {
            k: v
            for k, v in self.figures.items()
            if k.startswith(("judge", "guide"))
            and "share" not in k
            and "shift" not in k
            and np.isfinite(v)
        }
        return share_bars(shares, **options)

    def _page(self, title: str | None) -> Page:
        sections = [
            Section(
                "Before and after",
                picture(self.plot("grids"), "the same latents before and after"),
                "The same latents in the old and in the new generator: those that showed the "
                "concept, and those that never had it.",
            ),
            Section(
                "Who says so",
                picture(self.plot("figures"), "shares by judge and guide") + self._table(),
                "Shares of latents, by the independent judge and by the guide that the training "
                "has pleased. Removed: had the concept, no longer shows it. Leak: never had it, "
                "shows it now.",
            ),
            Section(
                "Scores of the guide",
                picture(self.plot("scores"), "distributions of scores"),
                "A degree of unlearning of 1 means that the scores after lie on those of latents "
                "that never had the concept.",
            ),
        ]
        facts = {"facts": self.to_dict()["facts"], "provenance": self.provenance}
        lead = f"{self._missed()}{self.facts['n']} latents, seed {self.facts['seed']}."
        return Page(title or f"Forgotten: {self._targets()}", lead, sections, self.notes, facts)

    def _summary(self) -> tuple[str, str]:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return self._missed() + self._targets(), notes + self._table()

    def _missed(self) -> str:
        falls = self.facts.get("missed")
        return f"Missed: {', '.join(falls)}. " if falls else ""

    def _table(self) -> str:
        return table(["figure", "value"], [[k, float(v)] for k, v in self.figures.items()])

    def _targets(self) -> str:
        return " and ".join(self.facts["targets"])
