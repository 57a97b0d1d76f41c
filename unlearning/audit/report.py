"""The report of an audit: what was found, told as tables, pictures, pages and files."""

from __future__ import annotations

__all__ = ["Report"]

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.pages import HtmlReport, Page
from conceptlab.io.reading import rebuilding
from unlearning.audit.drawing import draw
from unlearning.audit.evidence import Evidence, Verdict
from unlearning.audit.findings import Findings
from unlearning.audit.page import audit_page, audit_summary
from unlearning.audit.relearning import RelearnCurve

_KIND = "UnlearningReport"


@dataclass(eq=False)
class Report(Findings, HtmlReport):
    """Results of :func:`unlearning.audit.audit`.

    Attributes
    ----------
    values : dict of str to dict of str to float
        By model (``before``, ``after``, ``mask``, and ``retrained``, ``retrained_b`` where
        they were given) the figures; see :doc:`/reference/audit-figures`.
    verdict : Verdict
        On ``after``.
    baselines : dict of str to str
        What the same rules call the original and its logit mask.
    forgotten : list of int
        The forgotten classes.
    class_names : list of str
        Names of all classes.
    sizes : dict of str to int
        Numbers of samples.
    destinations : dict of str to ndarray of shape (C,)
        Mean probability of each class on test samples of the forgotten ones.
    curves : dict of str to RelearnCurve
        Relearning, by model.
    concept_names : list of str
        Names of the concepts, empty without.
    class_concepts, exclusive : list of int
        Concepts of the forgotten class, and those that are its own.
    attributions : dict of str to ndarray of shape (C, k)
        What each concept adds to each logit on samples of the class, by model.
    encoded : dict of str to ndarray of shape (k,)
        AUC of a probe for each concept, by model; NaN where it was not asked.
    earlier : dict of str to dict of int to float
        Test accuracy on classes of earlier requests, by model.
    notes : list of str
        What a reader has to know.
    certificate : dict or None
        Of the unlearned model.
    settings, provenance : dict
        How it was run; versions, seed, sha256 of models and samples.
    pictures : ndarray of shape (m, channels, H, W) or None
        Some test samples of the class, where inputs are images.
    answers : dict of str to list of int
        What each model says of them.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import LogitMask
    >>> from unlearning.audit import audit
    >>> X, y = torch.rand(90, 3, 4, 4), torch.arange(90) % 3
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    >>> Z, z = X[60:], y[60:]  # for the test
    >>> X, y = X[:60], y[:60]
    >>> parts = {"forget": (X[y == 0], y[y == 0]), "retain": (X[y > 0], y[y > 0])}
    >>> result = LogitMask().unlearn(model, **parts)
    >>> report = audit(model, result, **parts, test=(Z, z), relearn=False, bits=())
    >>> report.value("fa_test")
    0.0
    """

    def plot(self, kind: str = "figures", *, top: int = 10, ax: Any = None) -> Any:
        """Draw the report.

        Parameters
        ----------
        kind : {"figures", "concepts", "relearn", "destinations", "pictures"}
            Shares of the unlearned model beside reference and noise floor; what concepts add
            to the class's logit before and after, side by side; forget accuracy while the
            class is learned again; where samples of the class go; some of them, with what the
            model says before and after.
        top : int
            Concepts or classes to show.
        ax : matplotlib.axes.Axes, optional
            Where to draw; concepts make a figure of their own.

        Returns
        -------
        matplotlib.axes.Axes or matplotlib.figure.Figure

        Raises
        ------
        InputError
            An unknown kind, or one for which nothing was measured.
        """
        return draw(self, kind, top=top, ax=ax)

    def _page(self, title: str | None) -> Page:
        return audit_page(self, title or "Is the class forgotten?")

    def _summary(self) -> tuple[str, str]:
        return audit_summary(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`.

        Parameters
        ----------
        path : path-like
            The folder.

        Returns
        -------
        pathlib.Path
        """
        tensors: dict[str, np.ndarray] = {}
        for name, values in self.destinations.items():
            tensors[f"destinations/{name}"] = values
        for name, values in self.attributions.items():
            tensors[f"attributions/{name}"] = values
        for name, values in self.encoded.items():
            tensors[f"encoded/{name}"] = values
        if self.pictures is not None:
            tensors["pictures"] = self.pictures
        curves = {}
        for name, curve in self.curves.items():
            for part in ("steps", "forget", "test"):
                tensors[f"curves/{name}/{part}"] = getattr(curve, part)
            curves[name] = {
                "target": curve.target,
                "reached": curve.reached,
                "max_steps": curve.max_steps,
                "broken": curve.broken,
                "start": curve.start,
            }
        data = self.to_dict() | {
            "curves": curves,
            "concept_names": self.concept_names,
            "class_concepts": self.class_concepts,
            "exclusive": self.exclusive,
            "answers": self.answers,
        }
        return write_bundle(path, Bundle(_KIND, data, tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder.

        Returns
        -------
        Report
        """
        bundle = read_bundle(path, _KIND)
        with rebuilding(path, "audit report"):
            data, tensors = bundle.data, bundle.tensors

            def part(prefix: str) -> dict[str, np.ndarray]:
                return {
                    name.removeprefix(f"{prefix}/"): value
                    for name, value in tensors.items()
                    if name.startswith(f"{prefix}/")
                }

            said = data["verdict"]
            return cls(
                values={
                    name: {k: float("nan") if v is None else float(v) for k, v in own.items()}
                    for name, own in data["figures"].items()
                },
                verdict=Verdict(
                    said["word"], said["summary"], tuple(Evidence(**e) for e in said["evidence"])
                ),
                curves={
                    name: RelearnCurve(
                        tensors[f"curves/{name}/steps"],
                        tensors[f"curves/{name}/forget"],
                        tensors[f"curves/{name}/test"],
                        **facts,
                    )
                    for name, facts in data["curves"].items()
                },
                destinations=part("destinations"),
                attributions=part("attributions"),
                encoded=part("encoded"),
                pictures=tensors.get("pictures"),
                answers=data.get("answers", {}),  # older reports have none
                earlier={
                    name: {int(c): v for c, v in own.items()}
                    for name, own in data["earlier"].items()
                },
                **{
                    key: data[key]
                    for key in (
                        "baselines",
                        "forgotten",
                        "class_names",
                        "sizes",
                        "concept_names",
                        "class_concepts",
                        "exclusive",
                        "notes",
                        "certificate",
                        "settings",
                        "provenance",
                    )
                },
            )

    def __repr__(self) -> str:
        beside = "a retrained model" if self.has_reference else "its logit mask"
        return f"Report({self.classes()}: {self.verdict.word}, beside {beside})"
