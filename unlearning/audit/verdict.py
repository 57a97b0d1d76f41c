"""From figures to a word: removed, suppressed, not forgotten, damaged or undecided.

The rules, in their order:

1. The original must have known the class, else *undecided*.
2. Forget accuracy (train or test) above the retrained model's by more than ``forget``:
   *not forgotten*.
3. Test accuracy on retained classes below the original's and the retrained models' by more
   than ``damage``: *damaged*.
4. Any of these: *suppressed*. A linear map reads the original's features of the class from
   the model's (``features_kept``, last layer or middle), leaving less than a share ``kept`` of
   what it leaves unexplained in the nearest retrained model; its answers on the class are
   nearer to the logit mask's than a share ``answers`` of a retrained model's (``js_mask``); a
   probe of few or all samples reads the class better (``probe``) and is nearer to the mask than
   to the retrained models; the class's own concept is encoded better (``concept``); it comes
   back at few bits (``quantised``) or by training on retained samples only (``recovered``).
5. With a retrained model: answers that give the unlearning away (``js`` above the noise
   floor, ``donor``, ``membership`` where that attack works at all) make it *undecided*, else
   it is *removed*, provided that at least one check passed which a logit mask fails.
6. Without one: a model whose features of the class are the original's in other units
   (``unchanged``), or whose answers are the mask's, is *suppressed*; it is *removed* only when
   most of those features are gone and a probe or the class's own concept fell; else *undecided*.

Every piece of evidence carries its power: whether a logit mask, which forgets nothing, would
have failed the same check. What a mask passes too proves nothing and does not count. How quickly
the class is learned again is told, and decides nothing: honest retrained models differ in it
by more than masks do, and where the steps ran out it says nothing at all.

A difference counts when it exceeds its threshold, half of the noise floor and
``significance`` standard errors of its two shares. With two retrained models it is taken from
the one that comes nearer to being found guilty.
"""

from __future__ import annotations

__all__ = ["judge"]

from collections.abc import Mapping

import numpy as np

from unlearning.audit.evidence import Case, Evidence, Values, Verdict, auc_error
from unlearning.audit.thresholds import Thresholds


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
    case = Case(own, before, mask, reference, second, sizes or {}, thresholds or Thresholds())
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
    _answers(case)
    _probe(case)
    _concepts(case)
    _relearned(case)
    _comes_back(case)
    if reference is not None:
        _traces(case)
    return _decide(case)


def _decide(case: Case) -> Verdict:
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
        strong = [e for e in case.sides("removed") if e.power]
        if not strong:
            return Verdict(
                "undecided",
                "No check that was made tells a logit mask from a retrained model here, so "
                "passing them proves nothing.",
                found,
            )
        several = len(strong) > 1
        return Verdict(
            "removed",
            f"{len(strong)} check{'s' if several else ''} that a logit mask fails "
            f"find{'' if several else 's'} nothing more of the class than in a retrained model.",
            found,
        )
    moved = {e.figure for e in case.sides("removed")}
    fallen = {"probe_recall", "concept_auc"} & moved
    if "features_kept" in moved and fallen:
        return Verdict(
            "removed",
            "The features of the class are gone, and it is harder to read than from the original. "
            "A retrained model (retrained=) would make this proof.",
            found,
        )
    return Verdict(
        "undecided",
        "Without a retrained model this cannot be told from suppression: also a model "
        "that never saw a class encodes much of it. Give one (retrained=, in the shell "
        "--retrained).",
        found,
    )


def _forgotten(case: Case) -> None:
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
                f"It gets {value:.1%} of the class's {what} samples right.",
                key,
                base,
                limit,
                power=False,
            )


def _damaged(case: Case) -> None:
    if not case.has("ta"):
        return
    base, who = case.before["ta"], "the original"
    # Fewer classes are told apart more easily: what the original never could was not lost.
    if case.reference is not None and case.base("ta", best="low") < base:
        base, who = case.base("ta", best="low"), "a retrained model"
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


_LEFT = 0.002
"""Share of the original's features unexplained below which differences are rounding: where
retrained models leave less, the figure has no power."""


def _features(case: Case) -> None:
    for key, where in (("features_kept", ""), ("features_kept_middle", " in the middle")):
        if not case.has(key):
            continue
        kept = case.own[key]
        if case.reference is None:
            _features_alone(case, key, where)
            continue
        base = case.base(key)
        line = 1 - case.limits.kept * (1 - base)
        if 1 - base < _LEFT:
            case.add(
                "note",
                f"The features of the class{where} cannot be told from a retrained model's "
                f"({kept:.1%} of the original's, retrained {base:.1%}): this layer says nothing.",
                key,
                base,
                line,
                power=False,
            )
            continue
        text = (
            f"A linear map finds {kept:.1%} of the original's features of the class{where} again; "
            f"in a retrained model {base:.1%}"
        )
        power = case.masked(key, 1.0) > line
        if kept > line:
            case.add("suppressed", f"{text}: they are still there.", key, base, line, power=power)
        else:
            case.add("removed", f"{text}.", key, base, line, power=power)


def _features_alone(case: Case, key: str, where: str) -> None:
    kept, line = case.own[key], case.limits.unchanged
    text = f"A linear map finds {kept:.1%} of the original's features of the class{where} again"
    if where:
        case.add("note", f"{text}.", key, None, line)
    elif kept >= line:
        more = "; they are the same in other units: the change sits behind them."
        case.add("suppressed", text + more, key, None, line, power=True)
    elif kept <= 0.5:
        case.add("removed", f"{text}.", key, None, line, power=True)
    else:
        case.add("note", f"{text}.", key, None, line)


def _answers(case: Case) -> None:
    """Compare answers with the logit mask's."""
    key = "js_mask"
    if not case.has(key):
        return
    value = case.own[key]
    text = f"Its answers on the class lie {value:.3f} nats from the logit mask's"
    if case.reference is None:
        if value <= 0.001:
            text += ": it is nothing but a mask."
            case.add("suppressed", text, key, None, 0.001, power=True)
        return
    base = case.base(key, best="low")
    line = case.limits.answers * base
    if base < 0.04:
        text += f", a retrained model's {base:.3f}: too near to tell anything."
        case.add("note", text, key, base, line, power=False)
    elif value < line:
        text += f", a retrained model's {base:.3f}: it answers as if masked."
        case.add("suppressed", text, key, base, line, power=True)
    else:
        text += f", a retrained model's {base:.3f}."
        case.add("removed", text, key, base, line, power=case.masked(key, 0.0) < line)


_PROBES = {
    "probe_5": "A linear classifier that saw five samples finds",
    "probe_20": "A linear classifier that saw twenty samples finds",
    "probe_recall": "A linear probe on its features finds",
    "probe_5_middle": "One of five samples in the middle of the network finds",
    "probe_20_middle": "One of twenty samples in the middle of the network finds",
}


def _probe(case: Case) -> None:
    if case.reference is None:
        _probe_alone(case)
        return
    for key, start in _PROBES.items():
        if not case.has(key):
            continue
        value, base, mask = case.own[key], case.base(key), case.masked(key)
        limit = case.tolerance(key, case.limits.probe, base, "forget_test")
        power = bool(mask - base > limit) if np.isfinite(mask) else None
        text = f"{start} {value:.0%} of the class; in a retrained model {base:.0%}"
        # Half of the way to the mask: what honest models scatter by does not reach it.
        line = max(limit, (mask - base) / 2) if power else limit
        if value - base > line:
            text += ": the class is still encoded."
            case.add("suppressed", text, key, base, line, power=power)
        else:
            case.add("removed", f"{text}.", key, base, line, power=power)


def _probe_alone(case: Case) -> None:
    key = "probe_recall"
    if not case.has(key):
        return
    value, base = case.own[key], case.before.get(key, np.nan)
    limit = case.tolerance(key, case.limits.probe, base, "forget_test")
    if base - value > limit:
        text = f"A linear probe finds {value:.0%} of the class, {base:.0%} in the original."
        case.add("removed", text, key, base, limit, power=True)
    else:
        text = (
            f"A linear probe still finds {value:.0%} of the class ({base:.0%} in the "
            "original); how much a model finds that never saw it is not known here."
        )
        case.add("note", text, key, base, limit)


def _concepts(case: Case) -> None:
    key = "concept_auc"
    if case.has(key):
        value = case.own[key]
        base = case.before.get(key, np.nan)
        if case.reference is not None:
            base = case.base(key)
            error = auc_error(value, base, case)
            limit = max(case.limits.concept, case.floor(key) / 2, error)
            sure = value - base > limit
            text = (
                f"The class's own concept is read with AUC {value:.2f}; from a retrained model "
                f"with {base:.2f}."
            )
            power = case.masked(key) - base > limit
            case.add("suppressed" if sure else "removed", text, key, base, limit, power=power)
        else:
            limit = max(case.limits.concept, auc_error(value, base, case))
            fell = base - value > limit
            text = (
                f"The class's own concept is read with AUC {value:.2f}, from the original with "
                f"{base:.2f}."
            )
            case.add("removed" if fell else "note", text, key, base, limit, power=fell)
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


def _relearned(case: Case) -> None:
    if case.own.get("relearn_broken", 0.0):
        case.add(
            "note",
            "Relearning ruined the retained classes, so its speed says nothing.",
            "relearn_broken",
            None,
            0.0,
        )
        return
    steps = case.own.get("relearn_steps", np.nan)
    if not np.isfinite(steps):
        return
    beside = [("a logit mask", case.mask), ("a retrained model", case.reference or {})]
    told = [f"{who} {v['relearn_steps']:.0f}" for who, v in beside if "relearn_steps" in v]
    text = f"It learns the class again in {steps:.0f} steps" + "".join(f"; {t}" for t in told)
    ended = [v.get("relearn_ended", 0.0) for v in (case.own, case.mask, case.reference or {})]
    if any(ended):
        text += ". Not all got there before the attempt ended, so this says nothing"
    elif case.own.get("ain", 1.0) < case.limits.relearn:
        text += ": quick, but retrained models differ in that, too"
    case.add("note", f"{text}.", "relearn_steps", None, 0.0, power=False)


def _comes_back(case: Case) -> None:
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
            power = case.masked(key, 0.0) - case.mask.get("fa_train", 0.0) > limit
            case.add("removed", text, key, base, limit, power=power)


def _traces(case: Case) -> None:
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
            power = case.masked("js", 0.0) > limit
            case.add("removed", f"{text}; {beside}).", "js", floor, limit, power=power)
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
        mask = case.masked(key, base) - base
        power = mask > limit if key == "donor" else abs(mask) > limit
        case.add("trace" if far else "removed", text, key, base, limit, power=power)
