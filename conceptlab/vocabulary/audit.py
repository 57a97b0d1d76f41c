"""What is wrong with concepts: duplicates, leaked class names, poor margins, empty classes."""

from __future__ import annotations

__all__ = ["BankAudit", "audit"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError
from conceptlab.vocabulary.concepts import ClassConcepts, encode_unique
from conceptlab.vocabulary.filters import ClassNames, fold
from conceptlab.vocabulary.margins import Prototypes, concept_margins, unit_rows
from conceptlab.vocabulary.prompts import PromptPreset

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder

FAULTS = {
    "duplicate": "the class has the text already, up to case and blanks",
    "near-duplicate": "the embedding is nearly that of an earlier concept of the class",
    "own name": "the text names its class",
    "other name": "the text names another class",
    "negative margin": "the embedding is nearer to another class",
    "too long": "the text is longer than the encoder reads",
}
"""What a concept can have, with its meaning."""


@dataclass(frozen=True)
class BankAudit:
    """What an audit found.

    Attributes
    ----------
    concepts : ClassConcepts
        What was audited.
    faults : dict of str to ndarray of shape (n,), bool
        Fault to concepts that have it; the keys are those of ``FAULTS``
        that could be looked for.
    margins : ndarray of shape (n,) or None
        Cosine with the own class minus the largest with another; NaN where
        it cannot be measured.
    rivals : ndarray of shape (n,) or None
        Index of that other class.
    named : list of n lists of str
        Classes that each text names.
    twin : ndarray of shape (n,), int64
        Row of the concept that a duplicate or near-duplicate repeats, else -1.
    shared : dict of str to list of str
        Texts that stand in several classes, with the classes.
    empty : tuple of str
        Classes without concepts.
    near_empty : tuple of str
        Classes with fewer than `min_concepts`, empty ones included.
    min_concepts : int

    Examples
    --------
    >>> from conceptlab.vocabulary import ClassConcepts, audit
    >>> found = audit(ClassConcepts({"newt": ["a newt", "a tail"], "frog": ["a tail", "no tail"]}))
    >>> found.shared
    {'a tail': ['newt', 'frog']}
    """

    concepts: ClassConcepts
    faults: dict[str, np.ndarray]
    margins: np.ndarray | None
    rivals: np.ndarray | None
    named: list[list[str]]
    twin: np.ndarray
    shared: dict[str, list[str]]
    empty: tuple[str, ...]
    near_empty: tuple[str, ...]
    min_concepts: int
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def faulty(self) -> np.ndarray:
        """Which concepts have any fault, (n,) bool."""
        none = np.zeros(self.concepts.n_concepts, dtype=bool)
        return np.logical_or.reduce(list(self.faults.values()), initial=False) | none

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.faulty.any() and not self.near_empty

    def counts(self) -> dict[str, int]:
        """Give the number of concepts with each fault."""
        return {name: int(mask.sum()) for name, mask in self.faults.items()}

    def to_frame(self) -> Any:
        """Give one row for each concept, as a pandas DataFrame.

        Columns are ``class``, ``concept``, ``margin``, ``rival`` (where margins
        were measured), ``named``, ``twin`` (the text that is repeated) and one
        boolean for each fault.
        """
        import pandas

        pairs = list(self.concepts.items())
        columns: dict[str, Any] = {
            "class": [label for label, _ in pairs],
            "concept": [text for _, text in pairs],
        }
        if self.margins is not None and self.rivals is not None:
            columns["margin"] = self.margins
            columns["rival"] = [self.concepts.classes[int(j)] for j in self.rivals]
        columns["named"] = [", ".join(labels) for labels in self.named]
        columns["twin"] = [pairs[int(j)][1] if j >= 0 else "" for j in self.twin]
        return pandas.DataFrame({**columns, **self.faults})

    def by_class(self) -> Any:
        """Give one row for each class: number of concepts, faults, mean and least margin."""
        import pandas

        labels, n_classes = self.concepts.labels, len(self.concepts)
        columns: dict[str, Any] = {"concepts": self.concepts.counts}
        for name, mask in self.faults.items():
            columns[name] = np.bincount(labels[mask], minlength=n_classes)
        columns["clean"] = np.bincount(labels[~self.faulty], minlength=n_classes)
        if self.margins is not None:
            rows = [self.margins[a:b] for a, b in self.concepts.ranges]
            seen = [row[np.isfinite(row)] for row in rows]
            columns["mean margin"] = [float(row.mean()) if len(row) else np.nan for row in seen]
            columns["least margin"] = [float(row.min()) if len(row) else np.nan for row in seen]
        return pandas.DataFrame(columns, index=pandas.Index(self.concepts.classes, name="class"))

    def to_dict(self) -> dict[str, Any]:
        """Give the summary as JSON values."""
        margins = None
        if self.margins is not None and np.isfinite(self.margins).any():
            finite = self.margins[np.isfinite(self.margins)]
            margins = {"mean": float(finite.mean()), "least": float(finite.min())}
        return {
            "classes": len(self.concepts),
            "concepts": self.concepts.n_concepts,
            "clean": int((~self.faulty).sum()),
            "faults": self.counts(),
            "margins": margins,
            "shared": len(self.shared),
            "empty": list(self.empty),
            "near_empty": list(self.near_empty),
            "min_concepts": self.min_concepts,
            "skipped": dict(self.skipped),
        }

    def clean(self, *, keep: Sequence[str] = (), min_concepts: int = 1) -> ClassConcepts:
        """Give the concepts without those that have a fault.

        Parameters
        ----------
        keep : sequence of str
            Faults that may stay, such as ``("negative margin",)``.
        min_concepts : int
            A class that would keep fewer keeps its best so many: of least
            faults, then of largest margin.

        Returns
        -------
        ClassConcepts
            ``meta["audit"]`` has the number dropped and the classes kept up.
        """
        unknown = [name for name in keep if name not in FAULTS]
        if unknown:
            raise InputError(
                f"{unknown[0]!r} is no fault. Known: {', '.join(FAULTS)}.", code="CL-INPUT-OPTION"
            )
        masks = [mask for name, mask in self.faults.items() if name not in keep]
        count = np.sum(masks, axis=0) if masks else np.zeros(self.concepts.n_concepts, int)
        margins = np.zeros(len(count)) if self.margins is None else np.nan_to_num(self.margins)
        kept, short = {}, []
        for label, (start, stop) in zip(self.concepts.classes, self.concepts.ranges, strict=True):
            held = count[start:stop] == 0
            least = min(min_concepts, len(held))
            if held.sum() < least:
                order = np.lexsort((-margins[start:stop], count[start:stop]))
                held = np.zeros(len(held), dtype=bool)
                held[order[:least]] = True
                short.append(label)
            kept[label] = np.flatnonzero(held).tolist()
        cleaned = self.concepts.take(kept)
        dropped = self.concepts.n_concepts - cleaned.n_concepts
        cleaned.meta["audit"] = {"dropped": dropped, "kept_up": short}
        return cleaned

    def plot(self, *, max_classes: int = 20) -> Any:
        """Draw margins and faults by class; see :func:`conceptlab.plot.audit_plot`."""
        from conceptlab.plot.audit import audit_plot

        return audit_plot(self, max_classes=max_classes)

    def __str__(self) -> str:
        found = self.to_dict()
        lines = [
            f"{found['classes']} classes, {found['concepts']} concepts, {found['clean']} of them "
            "without fault"
        ]
        width = max(len(name) for name in FAULTS)
        for name, n in self.counts().items():
            lines.append(f"  {name:<{width}}  {n:>6}  {FAULTS[name]}")
        for name, why in self.skipped.items():
            lines.append(f"  {name:<{width}}  {'-':>6}  not looked for: {why}")
        if found["margins"]:
            lines.append(
                f"margins: {found['margins']['mean']:.3f} on average, at least "
                f"{found['margins']['least']:.3f}"
            )
        lines.append(f"texts in several classes: {len(self.shared)}")
        few = ", ".join(self.near_empty[:8]) + (", ..." if len(self.near_empty) > 8 else "")
        lines.append(
            f"classes with fewer than {self.min_concepts} concepts: {len(self.near_empty)}"
            + (f" ({few})" if few else "")
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, table

        rows = [(name, n, FAULTS[name]) for name, n in self.counts().items()]
        frame = self.by_class().reset_index()
        worst = frame.sort_values("clean", kind="stable").head(20)
        head = escape(str(self).splitlines()[0])
        return (
            f"<p>{head}</p>"
            + table(["fault", "concepts", "meaning"], rows)
            + table(list(worst.columns), worst.itertuples(index=False, name=None))
        )


def audit(
    concepts: ClassConcepts | Mapping[str, Sequence[str]],
    encoder: Encoder | None = None,
    *,
    template: str | PromptPreset | None = None,
    prototypes: Prototypes | None = None,
    max_cosine: float = 0.95,
    min_concepts: int = 5,
) -> BankAudit:
    """Look for faults in concepts before they are used.

    Texts alone show duplicates, leaked class names and near-empty classes. With
    an encoder, or with vectors, near-duplicates and margins are measured too.

    Parameters
    ----------
    concepts : ClassConcepts or mapping
        Class to texts.
    encoder : Encoder, optional
        The one that will classify.
    template : str or PromptPreset, optional
        Sentence whose margin is measured.
    prototypes : {"plain", "mean"} or array-like, optional
        See :func:`conceptlab.vocabulary.concept_margins`; by default the plain
        class prompts with an encoder, else the means of the vectors.
    max_cosine : float
        From which cosine of the bare texts (of the vectors, without an encoder)
        two concepts of a class count as nearly the same.
    min_concepts : int
        Classes with fewer count as near-empty.

    Returns
    -------
    BankAudit
        With ``str``, ``to_frame``, ``by_class``, ``plot`` and ``clean``.

    Raises
    ------
    InputError
        No mapping from classes to texts.
    SpaceMismatchError
        Vectors of another encoder.

    Examples
    --------
    >>> found = audit({"newt": ["a tail", "A  tail"], "frog": ["like a newt"]}, min_concepts=2)
    >>> found.counts()["duplicate"], found.counts()["other name"], found.near_empty
    (1, 1, ('frog',))
    """
    bank = concepts if isinstance(concepts, ClassConcepts) else ClassConcepts(concepts)
    pairs = list(bank.items())
    n = len(pairs)
    names = ClassNames(bank.classes)
    named = [names.find(text) for _, text in pairs]
    faults = {
        "duplicate": np.zeros(n, dtype=bool),
        "own name": np.array(
            [label in hit for (label, _), hit in zip(pairs, named, strict=True)], bool
        ),
        "other name": np.array(
            [any(h != label for h in hit) for (label, _), hit in zip(pairs, named, strict=True)],
            bool,
        ),
    }
    twin = np.full(n, -1, dtype=np.int64)
    holders: dict[str, dict[str, int]] = {}
    shown: dict[str, str] = {}
    for row, (label, text) in enumerate(pairs):
        key = fold(text)
        shown.setdefault(key, text)
        first = holders.setdefault(key, {}).setdefault(label, row)
        if first != row:
            faults["duplicate"][row], twin[row] = True, first
    shared = {shown[key]: list(where) for key, where in holders.items() if len(where) > 1}
    skipped: dict[str, str] = {}
    margins = rivals = None
    without = "give an encoder"
    readable = np.ones(n, dtype=bool)
    if encoder is not None:
        bank_space(bank, encoder)
        readable = _readable(bank, encoder, template)
        faults["too long"] = ~readable
    else:
        skipped["too long"] = without
    sound = bank if readable.all() else _only(bank, readable)
    rows = np.flatnonzero(readable)
    if encoder is None and bank.bank is None:
        skipped["near-duplicate"] = skipped["negative margin"] = without
    elif len(rows):
        if encoder is not None:
            texts = [text for _, text in sound.items()]
            vectors = encode_unique(encoder, texts).astype(np.float64)
        else:
            vectors = unit_rows(sound)
        near = _near(vectors, sound, max_cosine)
        mask = np.zeros(n, dtype=bool)
        mask[rows] = near >= 0
        mask &= ~faults["duplicate"]
        faults["near-duplicate"] = mask
        full = np.full(n, -1, dtype=np.int64)
        full[rows] = np.where(near >= 0, rows[near], -1)
        twin = np.where(mask, full, twin)
        filled = sound.select_classes(
            [c for c, k in zip(sound.classes, sound.counts, strict=True) if k]
        )
        if len(filled) < 2:
            skipped["negative margin"] = "margins compare classes, and only one has concepts"
        else:
            margins, rivals = _margins(bank, filled, rows, n, encoder, template, prototypes)
            faults["negative margin"] = np.nan_to_num(margins, nan=1.0) < 0
    order = [name for name in FAULTS if name in faults]
    counts = dict(zip(bank.classes, bank.counts, strict=True))
    return BankAudit(
        bank,
        {name: faults[name] for name in order},
        margins,
        rivals,
        named,
        twin,
        shared,
        tuple(c for c, k in counts.items() if k == 0),
        tuple(c for c, k in counts.items() if k < min_concepts),
        min_concepts,
        skipped,
    )


def bank_space(bank: ClassConcepts, encoder: Encoder) -> None:
    """Raise an error where the vectors come from another encoder."""
    if bank.bank is not None:
        bank.check_space(encoder)


def _readable(
    bank: ClassConcepts, encoder: Encoder, template: str | PromptPreset | None
) -> np.ndarray:
    """Find the prompts that fit the encoder's context, by halving where some do not."""
    prompts = bank.prompts(template)
    fits = np.ones(len(prompts), dtype=bool)

    def look(start: int, stop: int) -> None:
        try:
            encode_unique(encoder, prompts[start:stop])
        except InputError as error:
            if error.code != "CL-INPUT-TEXT":
                raise
            if stop - start == 1:
                fits[start] = False
                return
            middle = (start + stop) // 2
            look(start, middle)
            look(middle, stop)

    if prompts and not (bank.bank is not None and template is None):
        look(0, len(prompts))
    return fits


def _only(bank: ClassConcepts, mask: np.ndarray) -> ClassConcepts:
    kept = {
        label: np.flatnonzero(mask[start:stop]).tolist()
        for label, (start, stop) in zip(bank.classes, bank.ranges, strict=True)
    }
    return bank.take(kept)


def _near(vectors: np.ndarray, bank: ClassConcepts, max_cosine: float) -> np.ndarray:
    """Give for each row the first earlier row of its class with at least this cosine, or -1."""
    found = np.full(len(vectors), -1, dtype=np.int64)
    for start, stop in bank.ranges:
        if stop - start < 2:
            continue
        cosine = vectors[start:stop] @ vectors[start:stop].T
        alike = np.tril(cosine >= max_cosine, k=-1)
        hit = alike.any(axis=1)
        found[start:stop][hit] = start + alike[hit].argmax(axis=1)
    return found


def _margins(
    bank: ClassConcepts,
    filled: ClassConcepts,
    rows: np.ndarray,
    n: int,
    encoder: Encoder | None,
    template: str | PromptPreset | None,
    prototypes: Prototypes | None,
) -> tuple[np.ndarray, np.ndarray]:
    places = bank.index(filled.classes)
    if prototypes is None:
        prototypes = "mean" if encoder is None else "plain"
    elif not isinstance(prototypes, str):
        prototypes = np.asarray(prototypes)[places]
    found = concept_margins(filled, encoder, template=template, prototypes=prototypes)
    margins, rivals = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
    margins[rows], rivals[rows] = found.values, places[found.rivals]
    return margins, rivals
