"""What a model sees, which of it matters, and where: one object to look at."""

from __future__ import annotations

__all__ = ["Explanation"]

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import unknown_name
from conceptlab.explanation.names import check_names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from conceptlab.explanation.names import ConceptNames
    from conceptlab.explanation.tree import ConceptTree
    from conceptlab.importance import Decision, Importance
    from conceptlab.importance.effects import ConceptEffects

_KINDS = ("importance", "patches", "maps", "tree", "faithfulness")


@dataclass(eq=False)
class Explanation:
    """Concepts of a model on some images: importance, examples, maps, checks.

    Made by :meth:`conceptlab.CRAFT.explain`; every part is a plain array.

    Attributes
    ----------
    names : list of str
        One name a concept.
    importance : Importance
        Local and global Sobol indices on these images.
    images : numpy.ndarray of shape (m, 3, H, W), float32
        The images that are shown, as they were given.
    shown : numpy.ndarray of shape (m,)
        Their numbers among the n images.
    coefficients : numpy.ndarray of shape (n, k)
        Mean coefficient of each concept in each image (U, pooled).
    maps : numpy.ndarray of shape (m, k, H, W) or None
        For the images that are shown, where each concept is; the method stands in
        ``settings["maps"]``.
    patches : list of list of numpy.ndarray (3, s, s)
        For each concept the fitted patches in which it is strongest, the best of each image
        before the second best of any.
    logits : numpy.ndarray of shape (n, n_outputs)
        What the model answers.
    target : numpy.ndarray of shape (n,)
        The output that is explained, image by image.
    class_names : list of str or None
        Names of the outputs.
    tree : ConceptTree or None
        The recursion.
    faithfulness : FaithfulnessReport or None
        Deletion and insertion curves beside their controls.
    decision : Decision or None
        Whether the concepts carry the model's decision: are they enough for its answers, and
        are they needed?
    tried : dict of str to Decision
        Where they do not: what else was tried on these images, and how far that carries.
    stability : numpy.ndarray of shape (k,), or None
        Mean cosine of each concept with its partner in fits on resamples of the images.
    naming : ConceptNames or None
        Words for the concepts with their scores, where they were sought.
    effects : ConceptEffects or None
        What each concept does to the outputs of the images that are shown.
    places : list of numpy.ndarray of shape (n_patches, 4)
        Image, y, x and side (pixels) of each of `patches`; a side of 0 is a whole image.
    wholes : dict of int to numpy.ndarray of shape (3, H, W)
        The images that `patches` are cut from, by number.
    elsewhere : bool
        Whether these are other images than the n that are explained.
    image_names : list of str, or None
        What the n images are called, such as their files.
    labels : list of str, or None
        The class folder that each of the n images lies in.
    settings : dict
        Layer, patches, seeds, versions, fingerprint.

    Examples
    --------
    >>> from torch import nn
    >>> from conceptlab import CRAFT, SplitModel
    >>> body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU())
    >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> craft = CRAFT(SplitModel(model, at="0"), 3, patches="none", random_state=0)
    >>> images = np.random.default_rng(0).random((8, 3, 16, 16), dtype=np.float32)
    >>> explanation = craft.fit(images, target=0).explain(images, target=0)
    >>> list(explanation.to_frame().columns)[:2]
    ['concept', 'importance']
    """

    names: list[str]
    importance: Importance
    images: np.ndarray
    shown: np.ndarray
    coefficients: np.ndarray
    maps: np.ndarray | None
    patches: list[list[np.ndarray]]
    logits: np.ndarray
    target: np.ndarray
    class_names: list[str] | None = None
    tree: ConceptTree | None = None
    faithfulness: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    decision: Decision | None = None
    tried: dict[str, Decision] = field(default_factory=dict)
    stability: np.ndarray | None = None
    naming: ConceptNames | None = None
    effects: ConceptEffects | None = None
    places: list[np.ndarray] = field(default_factory=list)
    wholes: dict[int, np.ndarray] = field(default_factory=dict)
    elsewhere: bool = False
    image_names: list[str] | None = None
    labels: list[str] | None = None

    @property
    def order(self) -> np.ndarray:
        """Concepts from the most important to the least."""
        return np.argsort(-np.asarray(self.importance.mean), kind="stable")

    def class_name(self, index: int) -> str:
        """Name of an output, or ``"class 3"``."""
        known = self.class_names is not None and index < len(self.class_names)
        return str(self.class_names[index]) if known else f"class {index}"  # type: ignore[index]

    def to_frame(self) -> pd.DataFrame:
        """Give one row a concept, the most important first.

        Returns
        -------
        pandas.DataFrame
            Columns ``concept``, ``importance``, ``low``, ``high`` (confidence
            interval), ``signed`` (below zero the concept lowers
            the target), ``first_order`` (what the concept does alone),
            ``prevalence`` (share of images in which it is above a tenth of its
            maximum), and where they were measured ``stability``, ``words`` (three, with
            their scores) and ``drives`` (the outputs that the concept raises most).
            ``attrs`` hold the figures of `decision`.
        """
        import pandas as pd

        order = self.order
        peak = np.maximum(self.coefficients.max(axis=0), 1e-12)
        prevalence = (self.coefficients > 0.1 * peak).mean(axis=0)
        interval = np.asarray(self.importance.interval)
        frame = pd.DataFrame(
            {
                "concept": [self.names[i] for i in order],
                "importance": np.asarray(self.importance.mean)[order],
                "low": interval[order, 0],
                "high": interval[order, 1],
                "signed": np.asarray(self.importance.signed).mean(axis=0)[order],
                "first_order": np.asarray(self.importance.first_order).mean(axis=0)[order],
                "prevalence": prevalence[order],
            }
        )
        if self.stability is not None:
            frame["stability"] = self.stability[order]
        if self.naming is not None:
            frame["words"] = [self.naming.told(int(i)) for i in order]
        if self.effects is not None and self.effects.drives.shape[1] > 1:
            frame["drives"] = [self.drives(int(i)) for i in order]
        if self.decision is not None:
            frame.attrs |= self.decision.to_dict()
        return frame

    def drives(self, concept: int, top: int = 2) -> str:
        """Say which outputs a concept raises most, and by how much.

        Parameters
        ----------
        concept : int
            Its number.
        top : int
            How many outputs at most; those that it lowers are left out.

        Returns
        -------
        str
            Such as ``"dog +2.13, cat +0.40"``, in units of the output beyond its mean over the
            outputs; empty where that was not measured.
        """
        if self.effects is None:
            return ""
        row = self.effects.drives[concept]
        best = np.argsort(-row, kind="stable")[:top]
        return ", ".join(f"{self.class_name(int(i))} {row[i]:+.2f}" for i in best if row[i] > 0)

    def rename(self, names: Sequence[str]) -> Explanation:
        """Give the concepts other names, in the order of `names`; returns the explanation.

        Parameters
        ----------
        names : sequence of str
            One for each concept; different, none empty.

        Raises
        ------
        InputError
            Names that do not fit (``CL-INPUT-NAMES``).
        """
        self.names = check_names(names, len(self.names))
        if self.tree is not None:
            self.tree.rename(self.names)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Give names, figures and settings as JSON values, without pictures; None for unknown."""
        data: dict[str, Any] = {}
        if self.decision is not None:
            data["decision"] = self.decision.to_dict()
            data["warning"] = self.warning()
            data["tried"] = {name: found.to_dict() for name, found in self.tried.items()}
        data |= {
            "concepts": _records(self.to_frame()),
            "n_images": len(self.coefficients),
            "targets": {
                self.class_name(int(t)): int((self.target == t).sum())
                for t in np.unique(self.target)
            },
            "settings": self.settings,
        }
        if self.naming is not None:
            data["names"] = self.naming.to_dict()
        if self.tree is not None:
            data["tree"] = _records(self.tree.to_frame())
        if self.faithfulness is not None:
            data["faithfulness"] = self.faithfulness.to_dict()
        return data

    def plot(
        self,
        kind: str = "importance",
        *,
        top: int = 6,
        images: Sequence[int] | None = None,
        ax: Axes | None = None,
    ) -> Axes | Figure:
        """Draw one view of the explanation.

        Parameters
        ----------
        kind : {"importance", "patches", "maps", "tree", "faithfulness"}
            Bars with intervals; best patches of each concept; coloured maps
            over images, each concept on one scale for all images; the
            recursion; deletion and insertion curves.
        top : int
            How many concepts, the most important first.
        images : sequence of int, optional
            Which of the images shown, for ``"maps"``; by default six, by turns the ones that
            hold most of each concept.
        ax : matplotlib.axes.Axes, optional
            For the kinds that are one Axes.

        Returns
        -------
        matplotlib.axes.Axes or matplotlib.figure.Figure
            A Figure for ``"patches"`` and ``"maps"``, which are grids.
        """
        from conceptlab import plot

        shown = [int(i) for i in self.order[:top]]
        if kind == "importance":
            return plot.importance_bars(
                self.importance, self.names, top=top, ax=ax, decision=self.decision
            )
        if kind == "patches":
            notes = [f"importance {value:.2f}" for value in self.importance.mean]
            return plot.patch_grid(self.patches, self.names, order=shown, notes=notes)
        if kind == "maps" and self.maps is not None:
            chosen = list(images) if images is not None else self.telling(shown, 6)
            return plot.map_grid(
                self.images[chosen],
                self.maps[chosen],
                self.names,
                concepts=shown,
                peaks=np.maximum(self.maps, 0).max(axis=(0, 2, 3)),
                captions=[
                    self.class_name(int(self.logits[self.shown[i]].argmax())) for i in chosen
                ],
            )
        if kind == "tree" and self.tree is not None:
            return self.tree.plot(ax=ax)
        if kind == "faithfulness" and self.faithfulness is not None:
            return self.faithfulness.plot(ax=ax)
        have = {"maps": self.maps, "tree": self.tree, "faithfulness": self.faithfulness}
        absent = [name for name, value in have.items() if value is None]
        raise unknown_name(
            "kind of plot",
            kind,
            [name for name in _KINDS if name not in absent],
            hint=f"Not made for this explanation: {', '.join(absent)}." if absent else "",
        )

    def warning(self) -> str:
        """Say in words where the concepts do not carry the decision, and what would help.

        Returns
        -------
        str
            Empty where they do, or where that was not measured.
        """
        spread = np.ptp(self.logits, axis=0).max(initial=0)
        largest = np.abs(self.logits).max(initial=0)
        if len(self.logits) > 1 and spread <= 1e-6 * largest:
            return (
                f"The model gives the same outputs for all {len(self.logits)} images, so there is "
                "nothing to explain. Look at its weights, and at the size, the range and the "
                "normalisation of the images."
            )
        if self.decision is None or self.decision.carries:
            return ""
        helps = {name: found for name, found in self.tried.items() if found.carries}
        words = self.decision.warning()
        for start, some in (("This would help", helps), ("Tried in vain", self.tried)):
            if some:
                listed = "; ".join(f"{name} ({found.short()})" for name, found in some.items())
                return f"{words} {start}: {listed}."
        return words

    def telling(self, concepts: Sequence[int], limit: int) -> list[int]:
        """Choose among the images shown: by turns, the one that holds most of each concept.

        Parameters
        ----------
        concepts : sequence of int
            Their numbers, the first to have its turn first.
        limit : int
            How many images at most.

        Returns
        -------
        list of int
            Places in `images`.
        """
        ranked = np.argsort(-self.coefficients[self.shown], axis=0, kind="stable")
        turns = (int(image) for image in ranked[:, list(concepts)].ravel())
        return list(dict.fromkeys(turns))[:limit]

    def to_html(self, title: str = "What the model sees") -> str:
        """Make a self-contained HTML report: one script of its own, no link to the network."""
        from conceptlab.explanation.page import explanation_page

        return explanation_page(self, title).html()

    def save(self, path: str | os.PathLike[str], *, title: str = "What the model sees") -> Path:
        """Write the explanation, as a page or to be loaded again.

        Parameters
        ----------
        path : path-like
            A file that ends in ``.html``: the page. Any other: a folder of safetensors and JSON
            that :meth:`load` reads.
        title : str
            Heading of the page.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        CheckpointError
            If the place cannot be written (``CL-CHECKPOINT-TARGET``).
        """
        from conceptlab.explanation.files import parts_of
        from conceptlab.io.files import Bundle, atomic_write, write_bundle

        if Path(path).suffix.lower() in (".html", ".htm"):
            return atomic_write(path, self.to_html(title))
        return write_bundle(path, Bundle(type(self).__name__, *parts_of(self)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read the folder that :meth:`save` wrote.

        Raises
        ------
        CheckpointError
            Missing, damaged, newer, or another kind of object.
        """
        from conceptlab.explanation.files import explanation_from
        from conceptlab.io.files import read_bundle
        from conceptlab.io.reading import rebuilding

        bundle = read_bundle(path, cls.__name__)
        with rebuilding(path, cls.__name__):
            found: Explanation = explanation_from(cls, bundle.data, bundle.tensors)
        return found

    def strengths(self) -> pd.DataFrame:
        """Give one row an image: its name, folder, answer, target, and each concept's strength.

        Returns
        -------
        pandas.DataFrame
            Columns ``image``, ``folder`` where it is known, ``answer``, ``target``, and one for
            each concept: its mean coefficient in the image.
        """
        import pandas as pd

        n = range(len(self.coefficients))
        columns: dict[str, Any] = {"image": [self.image_name(i) for i in n]}
        if self.labels is not None:
            columns["folder"] = self.labels
        columns["answer"] = [self.answer(i) for i in n]
        columns["target"] = [self.class_name(int(t)) for t in self.target]
        told = pd.DataFrame(columns)
        return pd.concat([told, pd.DataFrame(self.coefficients, columns=self.names)], axis=1)

    def _repr_html_(self) -> str:
        from conceptlab.explanation.page import summary_body
        from conceptlab.io.pages import summary

        return summary("Explanation", self.lead(), summary_body(self))

    def image_name(self, number: int) -> str:
        """What image `number` is called, such as its file."""
        return f"image {number}" if self.image_names is None else self.image_names[number]

    def answer(self, number: int) -> str:
        """Name of the output that is largest for image `number`."""
        return self.class_name(int(self.logits[number].argmax()))

    @property
    def context(self) -> float:
        """How many times the side of its place a patch is shown with."""
        return 3.0 if self.settings.get("patches") == "none" else 1.0

    def lead(self) -> str:
        """Say in a few sentences what was explained, on what, and how far to trust it."""
        counts = {int(t): int((self.target == t).sum()) for t in np.unique(self.target)}
        same = np.array_equal(self.target, self.logits.argmax(axis=1))
        if len(counts) == 1:
            told = self.class_name(next(iter(counts)))
        else:
            often = sorted(counts, key=lambda t: -counts[t])[:6]
            listed = ", ".join(f"{self.class_name(t)} {counts[t]}" for t in often)
            more = f", and {len(counts) - 6} more" if len(counts) > 6 else ""
            what = "the predicted class of each image" if same else "one output for each image"
            told = f"{what} ({listed}{more})"
        lines = [] if self.decision is None else [self.decision.figures()]
        where = self.settings.get("layer_words") or self.settings.get("layer", "the layer")
        images = self.settings.get("images") or f"{len(self.coefficients)} images"
        lines.append(f"{len(self.names)} concepts of {where}; {images}; explained output: {told}.")
        if self.naming is not None:
            lines.append(
                f"{int(self.naming.named.sum())} of {len(self.names)} concepts have names, of "
                f"{len(self.naming.texts)} words by {self.naming.encoder}; the others follow no "
                "word better than chance."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Say how much is in it, and the three strongest concepts."""
        strongest = ", ".join(
            f"{self.names[i]} {self.importance.mean[i]:.2f}" for i in self.order[:3]
        )
        size = f"{len(self.coefficients)} images, {len(self.names)} concepts"
        return f"Explanation({size}: {strongest}, ...)"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Give rows as JSON values, which have no NaN."""
    rows: list[dict[str, Any]] = frame.to_dict(orient="records")
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]
