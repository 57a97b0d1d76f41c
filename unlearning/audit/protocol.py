"""The audit: every figure beside a retrained model, the noise floor and the trivial baseline."""

from __future__ import annotations

__all__ = ["audit"]

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint, provenance
from conceptlab.seeds import RandomState, draw_seed
from unlearning.audit.concept_level import OwnConcepts, donors, find_class_concepts
from unlearning.audit.evidence import Verdict
from unlearning.audit.examining import Examined, examine, read_subjects
from unlearning.audit.figures import FIGURES
from unlearning.audit.options import Attacks, Conditions, Sizes, Training
from unlearning.audit.parts import examine_parts, judge_parts, left_out
from unlearning.audit.report import Report
from unlearning.audit.subjects import Concepts, Sets, as_model, check_sets, read_concepts
from unlearning.audit.thresholds import Thresholds
from unlearning.audit.verdict import judge
from unlearning.notices import UnlearningWarning

_SHOWN = 8
"""Test samples of the class that a report shows."""


def audit(
    before: Any,
    after: Any,
    *,
    forget: Any,
    retain: Any,
    test: Any,
    retrained: Any = None,
    concepts: Any = None,
    class_concepts: Sequence[str] | None = None,
    exclusive: Sequence[str] | None = None,
    encoder: Any = None,
    earlier: Sequence[int] = (),
    class_names: Sequence[str] | None = None,
    relearn: bool | None = None,
    recovery: bool | None = None,
    bits: Sequence[int] = (8, 4),
    alpha: float = 0.1,
    max_steps: int | None = None,
    attacker: Training | None = None,
    thresholds: Thresholds | None = None,
    seconds: float | None = None,
    retrain_seconds: float | None = None,
    max_samples: int | None = 5000,
    sizes: Sizes | None = None,
    batch_size: int = 256,
    head: str | None = None,
    random_state: RandomState = 0,
    progress: Progress = None,
) -> Report:
    """Measure whether a model forgot a class, or only keeps quiet about it.

    Models are borrowed: they run in evaluation mode, attacks train copies, and mode, hooks
    and gradients are as before when this returns or fails.

    Parameters
    ----------
    before, after : torch.nn.Module or UnlearnResult
        The original and the unlearned classifier: tensor, tuple or ``.logits`` outputs.
    forget, retain : object
        The training samples to be forgotten, and all others; see :func:`unlearning.as_samples`.
        Where some of the same classes stay, the question is whether the samples are remembered,
        and only figures that say something of it are taken (:mod:`unlearning.audit.parts`).
    test : object
        Test samples of all classes, the forgotten ones too.
    retrained : Module, UnlearnResult, or a sequence of one or two, optional
        Models trained without the class. The first is the reference of every figure; the
        distance of the two is the noise floor, below which nothing can be told. Without any,
        figures stand beside the original and its logit mask only.
    concepts : object, optional
        Concepts of the test samples, in the order of `test`: a mapping of names to labels, a
        DataFrame, ``(matrix, names)``, or a :class:`~conceptlab.bank.ConceptBank`; see
        :func:`unlearning.audit.subjects.read_concepts`.
    class_concepts, exclusive : sequence of str, optional
        The forgotten class's concepts, and those that no other class has; found by how often
        classes show them when left out.
    encoder : Encoder, optional
        For a bank of another space than the original's features.
    earlier : sequence of int
        Classes of earlier requests; their test accuracy is told apart.
    class_names : sequence of str, optional
        Names of all classes.
    relearn : bool, optional
        Teach copies the class again and count the steps: a curve to look at. It decides nothing,
        and costs more than all the rest, so that it is done when left out only where `max_steps`
        or `attacker` is given.
    recovery : bool, optional
        Train copies on retained samples only, for one pass; as `relearn` when left out. Beside
        retrained models it changed no word of 500 (:doc:`/results/audit-errors`); without any it
        finds some more that are suppressed.
    bits : sequence of int
        Widths at which weights are tried, out of 8 and 4; empty for none.
    alpha : float
        A class counts as learned again at (1 - alpha) times the original's forget accuracy.
    max_steps : int, optional
        Relearning gives up after so many mini-batches; 200 when left out.
    attacker : Training, optional
        Learning rate, momentum and batches of relearning and recovery.
    thresholds : Thresholds, optional
        Of the verdict.
    seconds, retrain_seconds : float, optional
        CPU seconds of unlearning and of retraining; taken from the certificates of
        UnlearnResults when left out.
    max_samples : int or None
        At most so many samples of each set are used.
    sizes : Sizes, optional
        How many samples attacks and probes are trained on.
    batch_size : int
        Samples in a pass.
    head : str, optional
        Name of the last linear layer, where it is not found.
    random_state : int, RandomState, Generator or None
        Of every draw; all models get the same draws.
    progress : optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    Report
        Figures, verdict with evidence, curves, concept attributions, plots, files.

    Raises
    ------
    InputError
        Sets that overlap, no test samples of the class, a retrained model with another
        number of classes or one that saw the class, models that are no modules, concepts that
        do not fit.
    SplitError
        A model without logits or without a linear layer that gives them.

    Notes
    -----
    Accuracies alone prove nothing: masking a logit (always computed, column ``mask``) gives
    all of them for free. The rules of the verdict stand in :mod:`unlearning.audit.verdict`. How
    often its word was wrong was measured on models whose truth is known: of 378 that held the
    class 0, 0 and 0 were called removed, with two references, one and none; of 168 that never saw
    it, 2, 6 and 0 were called suppressed, and 11, 2 and 160 undecided.
    Cost without relearning, for each model: one pass over the samples, one over forget and
    retained test samples for each width of `bits`, one logistic probe of at most
    ``sizes.probe`` samples, and two support vector machines of twice ``sizes.attack``.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import LogitMask
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(90) % 3
    >>> X = (np.eye(3)[y] + 0.1 * rng.normal(size=(90, 3))).astype("float32")
    >>> model = nn.Linear(3, 3)
    >>> with torch.no_grad():
    ...     model.weight.copy_(5 * torch.eye(3))
    ...     model.bias.zero_()
    Parameter containing:
    ...
    >>> parts = {
    ...     "forget": (X[:60][y[:60] == 0], y[:60][y[:60] == 0]),
    ...     "retain": (X[:60][y[:60] > 0], y[:60][y[:60] > 0]),
    ... }
    >>> masked = LogitMask().unlearn(model, **parts)
    >>> report = audit(model, masked, **parts, test=(X[60:], y[60:]), relearn=False)
    >>> report.verdict.word, report.value("fa_test", "after")
    ('suppressed', 0.0)
    """
    Whole(1).check("batch_size", batch_size)
    if relearn is None:
        relearn = max_steps is not None or attacker is not None
    max_steps = 200 if max_steps is None else max_steps
    start = time.process_time()
    how = Conditions(draw_seed(random_state), head, batch_size, sizes or Sizes(), progress)
    samples = check_sets(
        forget, retain, test, earlier=earlier, max_samples=max_samples, random_state=how.seed
    )
    attacks = Attacks(
        relearn,
        relearn if recovery is None else recovery,
        tuple(bits),
        alpha,
        max_steps,
        attacker or Training(),
    )
    lines = thresholds or Thresholds()
    models, certificates = _models(before, after, retrained)
    subjects = read_subjects(models, samples, how)
    first = subjects.readings["before"]
    asked: tuple[Concepts, OwnConcepts] | None = None
    if concepts is not None and not samples.partial:
        known = read_concepts(concepts, samples, first, encoder)
        own = find_class_concepts(
            known.shown,
            samples.test.y,
            samples.classes,
            names=known.names,
            concepts=class_concepts,
            exclusive=exclusive,
        )
        asked = known, own
    names = _names(class_names, first.n_classes)
    if samples.partial:
        own_figures = examine_parts(subjects.readings, samples, how.sizes.attack, how.seed)
        found = Examined(own_figures, {}, notes=[left_out(samples)])
    else:
        found = examine(subjects, samples, how, attacks, asked)
        _check_references(found.values)
    _add_cost(found.values, certificates, seconds, retrain_seconds)
    counts = _counts(samples, asked)
    judged = [name for name in ("after", "before", "mask") if name in found.values]
    verdicts = {name: _judged(found, name, counts, lines) for name in judged}
    listed, of = asked or (None, None)
    return Report(
        values={
            name: {key: own[key] for key in FIGURES if key in own}
            for name, own in found.values.items()
        },
        verdict=verdicts["after"],
        baselines={name: verdicts[name].word for name in judged[1:]},
        forgotten=list(samples.classes),
        class_names=names,
        sizes=counts,
        destinations={}
        if samples.partial
        else {
            name: donors(reading.p("test")[samples.mine], samples.classes)[1]
            for name, reading in subjects.readings.items()
        },
        curves=found.curves,
        concept_names=list(listed.names) if listed is not None else [],
        class_concepts=list(of.concepts) if of is not None else [],
        exclusive=list(of.exclusive) if of is not None else [],
        attributions=found.attributions,
        encoded=found.encoded,
        earlier=found.earlier if samples.earlier else {},
        pictures=_pictures(samples),
        answers={
            name: _shown(samples, reading.logits)[:_SHOWN].argmax(axis=1).tolist()
            for name, reading in subjects.readings.items()
        },
        notes=[*samples.notes, *found.notes, *_missing(of), *_other_kind(subjects.models)],
        certificate=certificates.get("after"),
        settings={
            "request": "samples" if samples.partial else "classes",
            "alpha": alpha,
            "max_steps": max_steps,
            "relearn": relearn,
            "bits": list(bits),
            "attacker": asdict(attacks.how),
            "max_samples": max_samples,
            "sizes": asdict(how.sizes),
            "thresholds": asdict(lines),
            "head": first.head,
            "concepts": listed.source if listed is not None else None,
            "cpu_seconds": round(time.process_time() - start, 2),
        },
        provenance=provenance(
            seed=how.seed,
            models={name: fingerprint(model) for name, model in subjects.models.items()},
            samples={s.name: s.digest for s in (samples.forget, samples.retain, samples.test)},
        ),
    )


def _models(
    before: Any, after: Any, retrained: Any
) -> tuple[dict[str, nn.Module], dict[str, dict[str, Any]]]:
    given = {"before": before, "after": after}
    if retrained is not None:
        several = isinstance(retrained, list | tuple)
        references = list(retrained) if several else [retrained]
        if not 1 <= len(references) <= 2:
            raise InputError(
                f"retrained must be one model or two, got {len(references)}.",
                code="CL-INPUT-SHAPE",
            )
        given |= dict(zip(("retrained", "retrained_b"), references, strict=False))
    models: dict[str, nn.Module] = {}
    certificates: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        models[name], certificate = as_model(value, name)
        if certificate is not None:
            certificates[name] = certificate
    return models, certificates


def _check_references(values: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse references that saw the class: they say most of it rightly."""
    known = values["before"]["fa_train"]
    for name in ("retrained", "retrained_b"):
        said = values.get(name, {}).get("fa_train", 0.0)
        if known > 0 and said > known / 2:
            raise InputError(
                f"The model given as `{name}` gets {said:.0%} of the class's training samples "
                f"right, the original {known:.0%}: it was trained on them. Give models that never "
                "saw the class, as unlearning.Retrain makes them, or none.",
                code="CL-INPUT-LABELS",
            )


def _other_kind(models: Mapping[str, nn.Module]) -> list[str]:
    """Tell of references of another architecture: how alike features are depends on it."""
    shapes = {
        name: sorted(tuple(w.shape) for w in model.parameters()) for name, model in models.items()
    }
    others = [
        name
        for name in ("retrained", "retrained_b")
        if name in shapes and shapes[name] != shapes["before"]
    ]
    if not others:
        return []
    text = (
        f"{' and '.join(f'`{name}`' for name in others)} has other weights than the original: "
        "another architecture. How much of the original's features a network finds that never saw "
        "the class depends on its architecture, so the line between removed and suppressed may lie "
        "elsewhere. Retrain the original's own (unlearning.Retrain)."
    )
    warnings.warn(text, UnlearningWarning, stacklevel=3)
    return [text]


def _pictures(sets: Sets) -> np.ndarray | None:
    """Give test samples of the class, or forget samples, where they are pictures."""
    X = sets.test.inputs
    if not isinstance(X, torch.Tensor) or X.ndim != 4 or X.shape[1] not in (1, 3):
        return None
    return as_numpy(_shown(sets, {"test": X, "forget": sets.forget.inputs})[:_SHOWN].float())


def _shown(sets: Sets, parts: Mapping[str, Any]) -> Any:
    return parts["forget"] if sets.partial else parts["test"][torch.from_numpy(sets.mine)]


def _names(given: Sequence[str] | None, n_classes: int) -> list[str]:
    names = [str(c) for c in range(n_classes)] if given is None else [str(n) for n in given]
    if len(names) != n_classes:
        raise InputError(
            f"class_names has {len(names)} names, the models have {n_classes} outputs.",
            code="CL-INPUT-NAMES",
        )
    return names


def _counts(sets: Sets, asked: tuple[Concepts, OwnConcepts] | None) -> dict[str, int]:
    """Count samples, for standard errors."""
    sizes = {
        "forget": len(sets.forget),
        "retain": len(sets.retain),
        "test": int(sets.kept.sum()),
        "forget_test": int(sets.mine.sum()),
    }
    if asked is not None and asked[1].exclusive:
        shown = asked[0].shown[:, list(asked[1].exclusive)].sum(axis=0)
        sizes["concept"] = int(shown.min())
        sizes["no_concept"] = int(len(sets.test) - shown.max())
    return sizes


def _missing(of: OwnConcepts | None) -> list[str]:
    if of is None or of.exclusive:
        return []
    return [
        "No concept is the forgotten class's alone, so whether one is still encoded cannot be "
        "asked."
    ]


def _judged(found: Examined, name: str, sizes: dict[str, int], lines: Thresholds) -> Verdict:
    values = found.values
    if "mask" not in values:
        return judge_parts(
            values[name],
            before=values["before"],
            reference=values.get("retrained"),
            second=values.get("retrained_b"),
            sizes=sizes,
            thresholds=lines,
        )
    return judge(
        values[name],
        before=values["before"],
        mask=values["mask"],
        reference=values.get("retrained"),
        second=values.get("retrained_b"),
        sizes=sizes,
        thresholds=lines,
    )


def _add_cost(
    values: dict[str, dict[str, float]],
    certificates: Mapping[str, dict[str, Any]],
    ours: float | None,
    theirs: float | None,
) -> None:
    """Compute the run-time efficiency where both times are known."""
    ours = ours if ours is not None else _seconds(certificates.get("after"))
    theirs = theirs if theirs is not None else _seconds(certificates.get("retrained"))
    if theirs is None or theirs <= 0:
        return
    if ours is not None:
        values["after"]["rte"] = ours / theirs
    if "retrained" in values:
        values["retrained"]["rte"] = 1.0
    again = _seconds(certificates.get("retrained_b"))
    if again is not None:
        values["retrained_b"]["rte"] = again / theirs


def _seconds(certificate: Mapping[str, Any] | None) -> float | None:
    value = None if certificate is None else certificate.get("cpu_seconds")
    return float(value) if isinstance(value, int | float) else None
