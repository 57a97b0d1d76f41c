"""From figures to a word: removed, suppressed, not forgotten, damaged or undecided.

The rules, in their order:

1. The original must have known the class, else *undecided*.
2. Forget accuracy (train or test) above the retrained model's by more than ``forget``:
   *not forgotten*.
3. Test accuracy on retained classes below the retrained model's (the original's without
   one) by more than ``damage``: *damaged*.
4. Any of these: *suppressed*. The features of the class's samples are those of the original
   (``features_kept`` of ``unchanged`` or more, and of a retrained model not so); a linear
   probe reads the class better than from a retrained model (``probe``); the class's own
   concept is encoded better (``concept``); it is learned again in less than a share
   ``relearn`` of the steps of the quickest retrained model; it comes back at few bits
   (``quantised``) or by training on retained samples only (``recovered``).
5. With a retrained model: answers that give the unlearning away (``js`` above the noise
   floor, ``donor``, ``membership`` where that attack works at all) make it *undecided*, else
   it is *removed*.
6. Without one: *removed* only when the features moved, probe or concept fell below the
   original's, and relearning (where it was tried) takes longer than of a logit mask; else
   *undecided*. A retrained model is never called suppressed by a figure that it shares with
   the original, such as a high probe recall.

A difference counts when it exceeds its threshold, half of the noise floor and
``significance`` standard errors of its two shares. With two retrained models it is taken from
the one that comes nearer to being found guilty.
"""

from __future__ import annotations

__all__ = ["VERDICTS", "Evidence", "Verdict", "judge"]

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from unlearning.audit.thresholds import Thresholds

VERDICTS: dict[str, str] = {
    "removed": "No test found more of the class than in a model that never saw it.",
    "suppressed": "The class no longer comes out, but it is still in there.",
    "not forgotten": "The model still gives the class as an answer.",
    "damaged": "The retained classes suffered.",
    "undecided": "The evidence does not settle it.",
}
"""The words, with their meaning."""


@dataclass(frozen=True)
class Evidence:
    """One sentence of evidence.

    Attributes
    ----------
    side : {"removed", "suppressed", "not forgotten", "damaged", "trace", "note"}
        What it speaks for.
    text : str
        The sentence.
    figure : str
        Key of the figure.
    value, reference, tolerance : float or None
        What was compared.

    Examples
    --------
    >>> Evidence("suppressed", "A probe still finds the class.", figure="probe", value=0.9).side
    'suppressed'
    """

    side: str
    text: str
    figure: str = ""
    value: float | None = None
    reference: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A word with its evidence.

    Attributes
    ----------
    word : str
        A key of :data:`VERDICTS`.
    summary : str
        Why, in a sentence or two.
    evidence : tuple of Evidence
        Sentence by sentence.

    Examples
    --------
    >>> before = {"fa_train": 1.0, "fa_test": 0.98, "ta": 0.99}
    >>> verdict = judge(before, before=before, mask={})
    >>> verdict.word, len(verdict.evidence) > 0
    ('not forgotten', True)
    """

    word: str
    summary: str
    evidence: tuple[Evidence, ...] = ()

    def __str__(self) -> str:
        return f"{self.word}: {self.summary}"

    def text(self) -> str:
        """Give verdict and evidence as lines of plain text."""
        return "\n".join([str(self), *(f"- [{e.side}] {e.text}" for e in self.evidence)])


Values = Mapping[str, float]


@dataclass
class _Case:
    """The figures of one model beside what they are compared with."""

    own: Values
    before: Values
    mask: Values
    reference: Values | None
    second: Values | None
    sizes: Mapping[str, int]
    limits: Thresholds
    found: list[Evidence] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """Say whether the figure is there, on both sides where there is a reference."""
        sides = [self.own] if self.reference is None else [self.own, self.reference]
        return all(np.isfinite(side.get(key, np.nan)) for side in sides)

    def base(self, key: str, *, best: str = "high") -> float:
        """Give the retrained model's figure; of two, the one nearer to where guilt begins."""
        if self.reference is None:
            return float("nan")
        both = [self.reference.get(key, np.nan)]
        if self.second is not None:
            both.append(self.second.get(key, np.nan))
        if best == "near":
            return float(min(both, key=lambda v: abs(v - self.own[key]) if v == v else np.inf))
        return float(np.fmax.reduce(both) if best == "high" else np.fmin.reduce(both))

    def floor(self, key: str) -> float:
        """Give the distance of the two retrained models."""
        if self.reference is None or self.second is None:
            return 0.0
        gap = self.second.get(key, np.nan) - self.reference.get(key, np.nan)
        return abs(float(gap)) if np.isfinite(gap) else 0.0

    def tolerance(self, key: str, limit: float, other: float, size: str) -> float:
        """Give what a difference from the nearer retrained model has to exceed."""
        error = _error(self.own[key], self.sizes.get(size, 0))
        noise = np.hypot(error, _error(other, self.sizes.get(size, 0)))
        return float(max(limit, self.floor(key) / 2, self.limits.significance * noise))

    def add(
        self, side: str, text: str, key: str, reference: float | None, tolerance: float
    ) -> None:
        """Note a sentence."""
        self.found.append(Evidence(side, text, key, float(self.own[key]), reference, tolerance))

    def sides(self, side: str) -> list[Evidence]:
        """Give what speaks for one side."""
        return [e for e in self.found if e.side == side]


def judge(
    own: Values,
    *,
    before: Values,
    mask: Values,
    reference: Values | None = None,
    second: Values | None = None,
    sizes: Mapping[str, int] | None = None,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Judge one model by its figures.

    Parameters
    ----------
    own : mapping of str to float
        Figures of the model, by the keys of :doc:`/reference/audit-figures`; what
        was not measured is left out or NaN.
    before, mask : mapping of str to float
        Those of the original and of its logit mask.
    reference, second : mapping of str to float, optional
        Those of one or two retrained models.
    sizes : mapping of str to int, optional
        ``forget``, ``forget_test``, ``test``: numbers of samples, for standard errors.
    thresholds : Thresholds, optional
        Where the lines are.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> original = {"fa_train": 1.0, "fa_test": 0.98, "ta": 0.99}
    >>> judge(original, before=original, mask={}).word
    'not forgotten'
    """
    case = _Case(own, before, mask, reference, second, sizes or {}, thresholds or Thresholds())
    limits = case.limits
    known = max(before.get("fa_train", 0.0), before.get("fa_test", 0.0))
    if known < limits.known:
        case.found.append(
            Evidence(
                "note",
                f"The original itself gets only {known:.1%} of the class right: there was "
                "little to forget.",
                "fa_train",
                known,
                None,
                limits.known,
            )
        )
        return Verdict(
            "undecided",
            "The original hardly knew the class, so nothing can be shown.",
            tuple(case.found),
        )
    _forgotten(case)
    _damaged(case)
    if case.sides("not forgotten"):  # what is still said need not be looked for inside
        return _decide(case)
    _features(case)
    _probe(case)
    _concepts(case)
    _relearned(case)
    _comes_back(case)
    if reference is not None:
        _traces(case)
    return _decide(case)


def _decide(case: _Case) -> Verdict:
    found = tuple(case.found)
    for word in ("not forgotten", "damaged"):
        if reasons := case.sides(word):
            return Verdict(word, reasons[0].text, found)
    if reasons := case.sides("suppressed"):
        more = len(reasons) - 1
        rest = f" {more} more {'finding says' if more == 1 else 'findings say'} so." if more else ""
        return Verdict("suppressed", reasons[0].text + rest, found)
    if case.reference is not None:
        if traces := case.sides("trace"):
            return Verdict(
                "undecided",
                "Nothing more of the class can be read than from a retrained model, "
                f"but the unlearning left a trace. {traces[0].text}",
                found,
            )
        checks = sum(e.figure not in ("fa_train", "fa_test", "ta") for e in case.sides("removed"))
        return Verdict(
            "removed",
            f"{checks} checks beside the answers find nothing more of the class than in a "
            "retrained model.",
            found,
        )
    moved = {e.figure for e in case.sides("removed")}
    fallen = {"probe_recall", "concept_auc"} & moved
    tried = "relearn_steps" in case.own
    if "features_kept" in moved and fallen and (not tried or "relearn_steps" in moved):
        return Verdict(
            "removed",
            "Features moved, the class is harder to read than from the original"
            f"{', and it is harder to relearn than a mask' if tried else ''}. A retrained model "
            "(retrained=) would make this proof.",
            found,
        )
    return Verdict(
        "undecided",
        "Without a retrained model this cannot be told from suppression: also a model "
        "that never saw a class encodes much of it. Give one (retrained=, in the shell "
        "--retrained).",
        found,
    )


def _forgotten(case: _Case) -> None:
    for key, what in (("fa_train", "training"), ("fa_test", "test")):
        if not case.has(key):
            continue
        base = 0.0 if case.reference is None else case.base(key)
        value, limit = case.own[key], case.limits.forget
        if value - base > limit:
            beside = "" if case.reference is None else f" (retrained: {base:.1%})"
            case.add(
                "not forgotten",
                f"It still gets {value:.1%} of the class's {what} samples right{beside}.",
                key,
                base,
                limit,
            )
        else:
            case.add(
                "removed",
                f"It gets {value:.1%} of the class's {what} samples right; a logit "
                "mask does that too.",
                key,
                base,
                limit,
            )


def _damaged(case: _Case) -> None:
    if not case.has("ta"):
        return
    base = case.before["ta"] if case.reference is None else case.base("ta", best="low")
    who = "the original" if case.reference is None else "a retrained model"
    limit = case.tolerance("ta", case.limits.damage, base, "test")
    loss = base - case.own["ta"]
    if loss > limit:
        text = (
            f"Test accuracy on retained classes is {case.own['ta']:.1%}, {100 * loss:.1f} points "
            f"below {who}."
        )
        case.add("damaged", text, "ta", base, limit)
    else:
        text = f"Test accuracy on retained classes is {case.own['ta']:.1%}; {who} has {base:.1%}."
        case.add("removed", text, "ta", base, limit)


def _features(case: _Case) -> None:
    if not case.has("features_kept"):
        return
    kept, line = case.own["features_kept"], case.limits.unchanged
    base = None if case.reference is None else case.base("features_kept")
    if kept >= line and (base is None or base < line):
        beside = "" if base is None else f" (a retrained model: {base:.0%})"
        case.add(
            "suppressed",
            f"The features of the class's samples are {kept:.0%} those of the "
            f"original{beside}: the change sits behind them.",
            "features_kept",
            base,
            line,
        )
    elif base is not None or kept <= 0.5:
        beside = "" if base is None else f", of a retrained model {base:.0%}"
        case.add(
            "removed",
            f"The features of the class's samples moved: {kept:.0%} are the original's{beside}.",
            "features_kept",
            base,
            line,
        )
    else:
        case.add(
            "note",
            f"The features of the class's samples are still {kept:.0%} those of the original.",
            "features_kept",
            base,
            line,
        )


def _probe(case: _Case) -> None:
    key = "probe_recall"
    if not case.has(key):
        return
    value = case.own[key]
    if case.reference is None:
        base = case.before.get(key, np.nan)
        limit = case.tolerance(key, case.limits.probe, base, "forget_test")
        if base - value > limit:
            text = f"A linear probe finds {value:.0%} of the class, {base:.0%} in the original."
            case.add("removed", text, key, base, limit)
        else:
            text = (
                f"A linear probe still finds {value:.0%} of the class ({base:.0%} in the "
                "original); how much a model finds that never saw it is not known here."
            )
            case.add("note", text, key, base, limit)
        return
    base = case.base(key)
    limit = case.tolerance(key, case.limits.probe, base, "forget_test")
    over = value - base
    if over > limit:
        text = (
            f"A linear probe on its features finds {value:.0%} of the class, {base:.0%} on those "
            "of a retrained model: the class is still encoded."
        )
        case.add("suppressed", text, key, base, limit)
    else:
        text = (
            f"A linear probe on its features finds {value:.0%} of the class; that of a retrained "
            f"model {base:.0%}."
        )
        case.add("removed", text, key, base, limit)


def _concepts(case: _Case) -> None:
    key = "concept_auc"
    if case.has(key):
        value = case.own[key]
        base = case.before.get(key, np.nan)
        if case.reference is not None:
            base = case.base(key)
            error = _auc_error(value, base, case)
            limit = max(case.limits.concept, case.floor(key) / 2, error)
            sure = value - base > limit
            text = (
                f"The class's own concept is read with AUC {value:.2f}; from a retrained model "
                f"with {base:.2f}."
            )
            case.add("suppressed" if sure else "removed", text, key, base, limit)
        else:
            limit = max(case.limits.concept, _auc_error(value, base, case))
            fell = base - value > limit
            text = (
                f"The class's own concept is read with AUC {value:.2f}, from the original with "
                f"{base:.2f}."
            )
            case.add("removed" if fell else "note", text, key, base, limit)
    key = "concept_attribution"
    if case.has(key) and case.own.get("concept_r2", 0.0) >= case.limits.fidelity:
        base = case.before.get(key, np.nan)
        case.add(
            "note",
            f"The class's concepts add {case.own[key]:+.2f} to its logit ({base:+.2f} "
            "before). That they add less is necessary, and a mask does it too.",
            key,
            base,
            case.limits.fidelity,
        )


def _relearned(case: _Case) -> None:
    if case.own.get("relearn_broken", 0.0):
        case.add(
            "note",
            "Relearning ruined the retained classes, so its speed says nothing.",
            "relearn_broken",
            None,
            0.0,
        )
        return
    if case.reference is not None:
        if not case.has("ain"):
            return
        again = np.nan if case.second is None else case.second.get("ain", np.nan)
        value, line = case.own["ain"], case.limits.relearn * float(np.fmin(1.0, again))
        steps, base = case.own["relearn_steps"], case.reference["relearn_steps"]
        text = f"It learns the class again in {steps:.0f} steps; a retrained model needs {base:.0f}"
        side = "suppressed" if value < line else "removed"
        case.add(side, f"{text} (AIN {value:.2f}).", "ain", 1.0, line)
        return
    steps, base = case.own.get("relearn_steps", np.nan), case.mask.get("relearn_steps", np.nan)
    if np.isfinite(steps) and np.isfinite(base):
        text = f"It learns the class again in {steps:.0f} steps, a logit mask in {base:.0f}."
        side = "removed" if steps >= 1.25 * max(base, 1) else "note"
        case.add(side, text, "relearn_steps", base, 1.25 * base)


def _comes_back(case: _Case) -> None:
    limits = case.limits
    for key, how, line in (
        ("fa_int8", "with weights at 8 bits", limits.quantised),
        ("fa_int4", "with weights at 4 bits", limits.quantised),
        ("fa_recovered", "after training on retained samples only", limits.recovered),
    ):
        if not case.has(key):
            continue
        start = case.own["fa_train"]
        rise = case.own[key] - start
        base = None
        if case.reference is not None:
            base = case.base(key)
            rise -= max(0.0, base - case.reference["fa_train"])
        limit = case.tolerance(key, line, start, "forget")
        if rise > limit:
            text = f"The class comes back {how}: from {start:.1%} to {case.own[key]:.1%}."
            case.add("suppressed", text, key, base, limit)
        else:
            text = f"It does not come back {how} ({case.own[key]:.1%})."
            case.add("removed", text, key, base, limit)


def _traces(case: _Case) -> None:
    if case.reference is None:
        return
    limits = case.limits
    if np.isfinite(case.own.get("js", np.nan)):
        known = case.second is not None and np.isfinite(case.second.get("js", np.nan))
        floor = case.second["js"] if known and case.second is not None else 0.0
        limit = floor + limits.js if known else 2 * limits.js + 0.1
        value = case.own["js"]
        beside = f"two retrained models lie {floor:.2f} apart" if known else "no noise floor given"
        if value > limit:
            text = f"Its answers on the class lie {value:.2f} nats from a retrained model's"
            case.add("trace", f"{text}; {beside}.", "js", floor, limit)
        else:
            text = f"Its answers on the class are like a retrained model's (JS {value:.2f}"
            case.add("removed", f"{text}; {beside}).", "js", floor, limit)
    for key, size, line, high, low in (
        (
            "donor",
            "forget_test",
            limits.donor,
            "It sends the class's samples elsewhere more surely than a retrained model",
            "It sends the class's samples elsewhere about as surely as a retrained model",
        ),
        (
            "mia_confidence",
            "forget",
            limits.membership,
            "A membership attack treats the forget samples unlike those of a retrained model",
            "A membership attack treats the forget samples as those of a retrained model",
        ),
    ):
        if not case.has(key):
            continue
        base = case.base(key, best="high" if key == "donor" else "near")
        told = min(side.get("mia_accuracy", 1.0) for side in (case.own, case.reference))
        if key == "mia_confidence" and told < limits.attack:
            case.add(
                "note",
                f"The membership attack tells members from others no better than a coin "
                f"(accuracy {told:.2f}), so it says nothing here.",
                key,
                base,
                limits.attack,
            )
            continue
        limit = case.tolerance(key, line, base, size)
        gap = case.own[key] - base
        far = gap > limit if key == "donor" else abs(gap) > limit
        text = f"{high if far else low} ({case.own[key]:.2f} beside {base:.2f})."
        case.add("trace" if far else "removed", text, key, base, limit)


def _error(share: float, n: int) -> float:
    """Standard error of a share, with one success and one failure added."""
    if n <= 0 or not np.isfinite(share):
        return 0.0
    p = (np.clip(share, 0, 1) * n + 1) / (n + 2)
    return float(np.sqrt(p * (1 - p) / n))


def _auc_error(first: float, second: float, case: _Case) -> float:
    """Significant difference of two AUCs, by Hanley and McNeil (1982)."""
    n, m = case.sizes.get("concept", 0), case.sizes.get("no_concept", 0)
    if n < 1 or m < 1:
        return 0.0
    total = 0.0
    for a in (min(first, 0.99), min(second, 0.99)):
        q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
        total += (a * (1 - a) + (n - 1) * (q1 - a**2) + (m - 1) * (q2 - a**2)) / (n * m)
    return float(case.limits.significance * np.sqrt(max(total, 0.0)))
