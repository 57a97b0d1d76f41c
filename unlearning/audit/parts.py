"""The audit of single samples and parts of classes: are they still remembered?

A model that never saw some samples of a class still knows the class, so nothing that looks for a
class says anything here: not a logit mask, not probes of features, not relearning, not recovery.
What a model knows of samples because it was trained on them shows in how sure it is of them,
beside how sure a retrained model is of the same samples. That difference, less the same
difference on test samples of the same classes, is what was memorised: how hard a sample is
and how sure a model is of everything cancel out.
"""

from __future__ import annotations

__all__ = ["examine_parts", "judge_parts", "left_out"]

from collections.abc import Mapping

import numpy as np

from unlearning.audit import membership
from unlearning.audit.divergence import activation_distance, agreement, js_divergence
from unlearning.audit.evidence import Case, Values, Verdict
from unlearning.audit.reading import Reading
from unlearning.audit.scores import accuracy, average_gap, tug_of_war
from unlearning.audit.shadows import scaled_confidence
from unlearning.audit.subjects import Sets
from unlearning.audit.thresholds import Thresholds


def left_out(sets: Sets) -> str:
    """Say what is asked of parts of classes, and which figures would mean nothing."""
    listed = ", ".join(map(str, sets.classes))
    n = len(sets.forget)
    left = int(np.isin(sets.retain.y.numpy(), sets.classes).sum())
    return (
        f"Not whole classes are to be forgotten but {n} samples of {listed}, of which {left} "
        "training samples stay: what is asked is whether they are remembered. A logit mask, probes "
        "of features, relearning, recovery and weights at few bits look for a class and mean "
        "nothing here; they were left out."
    )


def examine_parts(
    readings: Mapping[str, Reading], sets: Sets, max_samples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Take the figures of all models that mean something for parts of classes.

    Parameters
    ----------
    readings : mapping of str to Reading
        ``before``, ``after``, and ``retrained``, ``retrained_b`` where they were given.
    sets : Sets
    max_samples : int
        Members and others of an attack.
    seed : int
        Of draws.

    Returns
    -------
    dict of str to dict of str to float
        Figures by model and key.
    """
    y = {"forget": sets.forget.y.numpy(), "retain": sets.retain.y.numpy()}
    y["test"] = sets.test.y.numpy()
    weights = _same_mix(y["forget"], y["test"])
    sure = {
        name: {part: scaled_confidence(reading.logits[part], y[part]) for part in y}
        for name, reading in readings.items()
    }
    unit = {name: reading.temperature for name, reading in readings.items()}
    values: dict[str, dict[str, float]] = {}
    for name, reading in readings.items():
        predicted = {part: reading.logits[part].argmax(axis=1) for part in y}
        own = {
            "fa_train": accuracy(predicted["forget"], y["forget"]),
            "ra": accuracy(predicted["retain"], y["retain"]),
            "ta": accuracy(predicted["test"][sets.kept], y["test"][sets.kept]),
            "temperature": reading.temperature,
            "memory_auc": _auc(sure[name]["forget"], sure[name]["test"], weights),
        }
        p = {part: reading.p(part) for part in y}
        seen = [membership.confidence(p[part], y[part]) for part in ("retain", "test", "forget")]
        own["mia_confidence"], own["mia_accuracy"] = membership.machine_attack(
            *seen, max_samples=max_samples, random_state=seed
        )
        values[name] = own
    for name in readings:
        beside = [k for k in ("retrained", "retrained_b") if k in readings and k != name]
        if not beside:
            continue
        told = _memorised(
            {part: sure[name][part] / unit[name] for part in ("forget", "test")},
            [{part: sure[k][part] / unit[k] for part in ("forget", "test")} for k in beside],
            weights,
        )
        values[name] |= dict(zip(("memorised", "memorised_error"), told, strict=True))
        values[name] |= _relative(values, readings, name)
    return values


def _relative(
    values: dict[str, dict[str, float]], readings: Mapping[str, Reading], name: str
) -> dict[str, float]:
    p, q = (readings[k].p("forget") for k in (name, "retrained"))
    sides = [values[k] for k in (name, "retrained")]
    quartet = [
        {"ua": 1 - v["fa_train"], "ra": v["ra"], "ta": v["ta"], "mia": v["mia_confidence"]}
        for v in sides
    ]
    trio = [{"forget": v["fa_train"], "retain": v["ra"], "test": v["ta"]} for v in sides]
    return {
        "gap": average_gap(*quartet),
        "tow": tug_of_war(*trio),
        "js": float(js_divergence(p, q).mean()),
        "activation": activation_distance(p, q),
        "agreement": agreement(p, q),
    }


def _same_mix(forget: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Weight test samples so that classes have the shares that they have among the forgotten."""
    weights = np.zeros(len(test))
    for c in np.unique(forget):
        mine = test == c
        weights[mine] = np.mean(forget == c) / mine.sum()
    return weights


def _auc(forget: np.ndarray, test: np.ndarray, weights: np.ndarray) -> float:
    """Compute how often a forgotten sample is surer than a test sample of the same mix."""
    order = np.argsort(test, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    low, high = (np.searchsorted(test[order], forget, side=s) for s in ("left", "right"))
    return float(np.mean((below[low] + below[high]) / 2))


def _memorised(
    own: Mapping[str, np.ndarray], references: list[dict[str, np.ndarray]], weights: np.ndarray
) -> tuple[float, float]:
    """Compute the difference of differences, and its standard error."""
    base = {part: np.mean([r[part] for r in references], axis=0) for part in own}
    gone, held = (own[part] - base[part] for part in ("forget", "test"))
    mean = float(weights @ held)
    noise = gone.var() / max(len(gone) - 1, 1) + float(weights**2 @ (held - mean) ** 2)
    return float(gone.mean()) - mean, float(np.sqrt(noise))


def judge_parts(
    own: Values,
    *,
    before: Values,
    reference: Values | None = None,
    second: Values | None = None,
    sizes: Mapping[str, int] | None = None,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Judge by its figures whether a model still remembers samples.

    Parameters
    ----------
    own, before : mapping of str to float
        Figures of the model and of the original.
    reference, second : mapping of str to float, optional
        Those of one or two retrained models.
    sizes : mapping of str to int, optional
        Numbers of samples.
    thresholds : Thresholds, optional
        ``forget``, ``damage`` and ``significance`` are used.

    Returns
    -------
    Verdict
        *Not forgotten* where the model is surer of the samples than retrained models are, by more
        than these differ and more than chance; *undecided* where it is less sure of them than
        that, which gives the unlearning away, where the original itself hardly remembers them,
        or without a retrained model; else *removed*.

    Examples
    --------
    >>> original = {"fa_train": 1.0, "ta": 0.9, "memorised": 3.0, "memorised_error": 0.1}
    >>> retrained = {"fa_train": 0.9, "ta": 0.9, "memorised": 0.0, "memorised_error": 0.1}
    >>> judge_parts(original, before=original, reference=retrained).word
    'not forgotten'
    >>> judge_parts(retrained, before=original, reference=retrained).word
    'removed'
    """
    case = Case(own, before, {}, reference, second, sizes or {}, thresholds or Thresholds())
    _whole(case)
    if reference is None:
        return _alone(case)
    _known(case)
    _remembered(case)
    for word in ("damaged", "not forgotten", "trace", "note"):
        if reasons := case.sides(word):
            word = word if word in ("damaged", "not forgotten") else "undecided"
            return Verdict(word, reasons[0].text, tuple(case.found))
    return Verdict("removed", case.sides("removed")[-1].text, tuple(case.found))


def _whole(case: Case) -> None:
    base, who = case.before["ta"], "the original"
    if case.reference is not None and case.base("ta", best="low") < base:
        base, who = case.base("ta", best="low"), "a retrained model"
    limit = case.tolerance("ta", case.limits.damage, base, "test")
    text = f"Test accuracy is {case.own['ta']:.1%}; {who} has {base:.1%}."
    lost = base - case.own["ta"] > limit
    case.add("damaged" if lost else "removed", text, "ta", base, limit, power=None)


def _alone(case: Case) -> Verdict:
    """Say what can be said without a retrained model: whether the original's memory is there."""
    own, before = case.own["memory_auc"], case.before["memory_auc"]
    error = np.sqrt((1 / max(case.sizes.get("forget", 1), 1)) / 6)  # at most, of an AUC near 1/2
    limit = max((before - 0.5) / 2, case.limits.significance * float(error))
    text = (
        f"It is surer of a forgotten sample than of a test sample in {own:.0%} of pairs, the "
        f"original in {before:.0%}"
    )
    if case.sides("damaged"):
        return Verdict("damaged", case.found[0].text, tuple(case.found))
    if own - 0.5 > limit:
        case.add("not forgotten", f"{text}: they are remembered.", "memory_auc", 0.5, limit)
        return Verdict("not forgotten", case.found[-1].text, tuple(case.found))
    case.add("note", f"{text}.", "memory_auc", 0.5, limit)
    return Verdict(
        "undecided",
        "Without a retrained model nobody knows how sure one would be of these samples that never "
        "saw them. Give one (retrained=).",
        tuple(case.found),
    )


def _known(case: Case) -> None:
    base = case.base("fa_train")
    limit = case.tolerance("fa_train", case.limits.forget, base, "forget")
    text = f"It gets {case.own['fa_train']:.1%} of the samples right; a retrained model {base:.1%}."
    more = case.own["fa_train"] - base > limit
    case.add("not forgotten" if more else "removed", text, "fa_train", base, limit)


def _remembered(case: Case) -> None:
    key = "memorised"
    reference, second = case.reference or {}, case.second or {}
    own, before = case.own[key], case.before[key]
    errors = [v.get("memorised_error", 0.0) for v in (case.own, reference, second)]
    floor = abs(second.get(key, 0.0))
    # With a single reference the floor is not known, and more than chance must be more.
    wide = 1.0 if second else 1.5
    limit = max(case.limits.significance * wide * max(errors), floor)
    beside = f"; the original {before:+.2f}, two retrained models lie {floor:.2f} apart"
    text = (
        f"It is surer of the samples than a retrained model by {own:+.2f} nats of log-odds, test "
        f"samples deducted{beside if second else f'; the original {before:+.2f}'}"
    )
    if before <= limit:
        text += ": the original itself hardly remembers them, so that nothing can be shown."
        case.add("note", text, key, 0.0, limit, power=False)
    elif own > limit:
        case.add("not forgotten", f"{text}: they are remembered.", key, 0.0, limit, power=True)
    elif own < -limit:
        text += ": it is less sure than one that never saw them, which gives the unlearning away."
        case.add("trace", text, key, 0.0, limit, power=True)
    elif before - own <= limit:
        text += ": too near to the original and to a retrained model at once."
        case.add("note", text, key, 0.0, limit, power=False)
    else:
        case.add("removed", f"{text}.", key, 0.0, limit, power=True)
