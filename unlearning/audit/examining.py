"""The steps of an audit: every model read once, measured, quantised, taught again."""

from __future__ import annotations

__all__ = ["Examined", "Subjects", "examine", "read_subjects"]

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import InputError
from conceptlab.models.session import model_copy
from unlearning.audit.concept_level import OwnConcepts
from unlearning.audit.divergence import probabilities
from unlearning.audit.measuring import concept_figures, measure, random_twin, relative_figures
from unlearning.audit.options import Attacks, Conditions, Training
from unlearning.audit.quantising import quantised_copy
from unlearning.audit.reading import Reading, accuracy_on, borrowed, middle_layer, read_model
from unlearning.audit.recovery import spontaneous_recovery
from unlearning.audit.relearning import RelearnCurve, anamnesis_index, relearn
from unlearning.audit.subjects import Concepts, Sets
from unlearning.classes.methods.logit_mask import mask_head
from unlearning.heads import find_head, frozen

Values = dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Subjects:
    """The models of an audit, read.

    Attributes
    ----------
    models : dict of str to torch.nn.Module
        ``before``, what is judged, ``retrained`` and ``retrained_b`` where they were given, and
        for whole classes ``mask``: the original with the class's logit masked.
    readings : dict of str to Reading
        What each says and encodes.
    """

    models: dict[str, nn.Module]
    readings: dict[str, Reading]

    @property
    def trained(self) -> list[str]:
        """Models to which attacks that train are put: all but the original."""
        return [name for name in self.models if name != "before"]


@dataclass(eq=False)
class Examined:
    """All figures of all models.

    Attributes
    ----------
    values : dict of str to dict of str to float
        Figures by model and key.
    earlier : dict of str to dict of int to float
        Test accuracy on classes of earlier requests, by model.
    curves : dict of str to RelearnCurve
        Relearning, by model.
    attributions : dict of str to ndarray of shape (C, k)
        What concepts add to logits, by model.
    encoded : dict of str to ndarray of shape (k,)
        AUC of probes for concepts, by model.
    notes : list of str
        What a reader has to know.
    """

    values: Values
    earlier: dict[str, dict[int, float]]
    curves: dict[str, RelearnCurve] = field(default_factory=dict)
    attributions: dict[str, np.ndarray] = field(default_factory=dict)
    encoded: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, more: Values) -> None:
        """Take further figures over."""
        for name, own in more.items():
            self.values[name] |= own


def read_subjects(models: Mapping[str, nn.Module], sets: Sets, how: Conditions) -> Subjects:
    """Run every model once; for whole classes make and run the trivial baseline, too.

    Parameters
    ----------
    models : mapping of str to torch.nn.Module
        ``before`` first.
    sets : Sets
    how : Conditions

    Returns
    -------
    Subjects

    Raises
    ------
    InputError
        Models with unlike numbers of outputs, labels beyond them.
    """
    data = {"forget": sets.forget, "retain": sets.retain, "test": sets.test}
    readings: dict[str, Reading] = {}
    middle = middle_layer(models["before"], sets.retain)

    def read(name: str, model: nn.Module) -> Reading:
        head = how.head
        if head is not None and head not in dict(model.named_modules()):
            head = None if name.startswith("retrained") else head
        return read_model(
            model,
            data,
            head=head,
            middle=middle,
            batch_size=how.batch_size,
            label=name,
            progress=how.progress,
        )

    for name, model in models.items():
        readings[name] = read(name, model)
        found, wanted = readings[name].n_classes, readings["before"].n_classes
        if found != wanted:
            raise InputError(
                f"The model `{name}` has {found} classes, the original {wanted}. Give models "
                "with the same outputs; a retrained model keeps an output for the forgotten "
                "class.",
                code="CL-INPUT-SHAPE",
            )
        high = max(int(s.y.max()) for s in data.values())
        if high >= wanted:
            raise InputError(
                f"Labels go up to {high}, but the models have {wanted} outputs.",
                code="CL-INPUT-LABELS",
            )
    if not sets.partial:
        mask, reading = _mask(models["before"], readings["before"], sets)
        models = {**models, "mask": mask}
        readings["mask"] = read("mask", mask) if reading is None else reading
    unit = _logit_size(readings["before"], sets)
    for reading in readings.values():
        size = _logit_size(reading, sets)
        reading.temperature = size / unit if size > 0 and unit > 0 else 1.0
    return Subjects(dict(models), readings)


def _mask(before: nn.Module, reading: Reading, sets: Sets) -> tuple[nn.Module, Reading | None]:
    """Mask the class's logit; what the mask says and encodes follows from the original's reading.

    None where the last layer's weights are another layer's too, so that features change.
    """
    with borrowed(before):
        mask = model_copy(before)
    head = find_head(mask, head=reading.head)
    owners = [m for m in mask.modules() if getattr(m, "weight", None) is head.linear.weight]
    gone = list(sets.classes)
    value = mask_head(head, torch.from_numpy(reading.logits["retain"]), gone)
    if len(owners) > 1:
        return mask, None
    kept = [c for c in range(reading.n_classes) if c not in set(gone)]
    logits = {name: rows.copy() for name, rows in reading.logits.items()}
    for rows in logits.values():
        rows[:, gone] = rows[:, kept].mean(axis=1, keepdims=True) if value is None else value
    return mask, replace(reading, logits=logits, _p={})


def _logit_size(reading: Reading, sets: Sets) -> float:
    """Measure the spread of a model's retained logits, which temperature multiplies."""
    gone = {*sets.earlier} if sets.partial else {*sets.classes, *sets.earlier}
    kept = [c for c in range(reading.n_classes) if c not in gone]
    logits = reading.logits["test"][sets.kept][:, kept].astype(np.float64)
    return float((logits - logits.mean(axis=1, keepdims=True)).std())


def examine(
    subjects: Subjects,
    sets: Sets,
    how: Conditions,
    attacks: Attacks,
    asked: tuple[Concepts, OwnConcepts] | None = None,
) -> Examined:
    """Take all figures of all models.

    Parameters
    ----------
    subjects : Subjects
    sets : Sets
    how : Conditions
    attacks : Attacks
    asked : tuple of Concepts and OwnConcepts, optional
        Concepts of the test samples, and those of the class.

    Returns
    -------
    Examined
    """
    found = _measured(subjects, sets, how)
    if asked is not None:
        _concepts(found, subjects, sets, how, asked)
    found.add(_quantised(subjects, sets, how, attacks))
    if attacks.relearn:
        _relearned(found, subjects, sets, how, attacks)
    if attacks.recovery:
        found.add(_recovered(subjects, sets, how, attacks))
    return found


def _measured(subjects: Subjects, sets: Sets, how: Conditions) -> Examined:
    """Compute all figures that need neither training nor concepts."""
    readings = subjects.readings
    found = Examined({}, {})
    for name, reading in readings.items():
        found.values[name], found.earlier[name] = measure(
            reading,
            readings["before"],
            sets,
            how.sizes,
            how.seed,
            probed=found.values.get(_twin(name, readings, list(found.values)) or ""),
        )
    twin = random_twin(subjects.models["before"], how.seed)
    with frozen(twin):
        noise = read_model(
            twin,
            {"forget": sets.forget},
            head=readings["before"].head,
            batch_size=how.batch_size,
            progress=False,
        )
    random = probabilities(noise.logits["forget"])
    for name, reading in readings.items():
        found.values[name] |= relative_figures(
            found.values[name],
            reading,
            before=found.values["before"],
            mask=readings["mask"],
            random=random,
            sets=sets,
            reference=found.values.get("retrained"),
            reference_reading=readings.get("retrained"),
            seed=how.seed,
        )
    return found


def _twin(name: str, readings: Mapping[str, Reading], done: list[str]) -> str | None:
    """Find a model that was measured already and has the same features to the bit."""
    own = readings[name]
    for other in done:
        if other != name and all(
            np.array_equal(value, theirs[key])
            for mine, theirs in (
                (own.features, readings[other].features),
                (own.middle, readings[other].middle),
            )
            for key, value in mine.items()
            if key in theirs
        ):
            return other
    return None


def _concepts(
    found: Examined,
    subjects: Subjects,
    sets: Sets,
    how: Conditions,
    asked: tuple[Concepts, OwnConcepts],
) -> None:
    for name, reading in subjects.readings.items():
        twin = _twin(name, subjects.readings, list(found.encoded))
        own, found.attributions[name], found.encoded[name] = concept_figures(
            reading, sets, *asked, how.seed, encoded=found.encoded.get(twin or "")
        )
        found.values[name] |= own


def _quantised(subjects: Subjects, sets: Sets, how: Conditions, attacks: Attacks) -> Values:
    """Try weights at few bits."""
    kept = _kept(sets)
    values: Values = {}
    for name, model in subjects.models.items():
        values[name] = {}
        for width in attacks.bits:
            with borrowed(model):
                twin = quantised_copy(model, width)
            with frozen(twin) as small:
                values[name] |= {
                    f"fa_int{width}": accuracy_on(small, sets.forget, how.batch_size),
                    f"ta_int{width}": accuracy_on(small, kept, how.batch_size),
                }
    return values


def _relearned(
    found: Examined, subjects: Subjects, sets: Sets, how: Conditions, attacks: Attacks
) -> None:
    """Teach copies of the models the class again."""
    target = (1 - attacks.alpha) * found.values["before"]["fa_train"]
    if target <= 0:
        found.notes.append("The original knows nothing of the class; nothing was relearned.")
        return
    for name in subjects.trained:
        curve = relearn(
            subjects.models[name],
            sets.forget,
            sets.retain,
            _kept(sets),
            target=target,
            max_steps=attacks.max_steps,
            how=attacks.how,
            random_state=how.seed,
            label=name,
            head=subjects.readings[name].head,
            progress=how.progress,
        )
        found.curves[name] = curve
        own = found.values[name]
        own["relearn_steps"] = curve.count
        if curve.broken and curve.reached is None:
            own["relearn_broken"] = 1.0
            found.notes.append(
                f"The model `{name}` learned the class again only at the price of more than "
                "5 points on retained ones, so the steps do not count."
            )
        elif curve.reached is None:
            own["relearn_ended"] = 1.0
            found.notes.append(
                f"The model `{name}` did not learn the class again in {attacks.max_steps} steps; "
                "the count is a lower bound."
            )
    if "retrained" in found.curves:
        for name, curve in found.curves.items():
            found.values[name]["ain"] = anamnesis_index(curve, found.curves["retrained"])
        found.values["before"]["ain"] = 0.0
    found.values["before"]["relearn_steps"] = 0.0


def _recovered(subjects: Subjects, sets: Sets, how: Conditions, attacks: Attacks) -> Values:
    """Train copies on retained samples only."""
    lesson = attacks.how
    values: Values = {}
    for name in subjects.trained:
        found = spontaneous_recovery(
            subjects.models[name],
            sets.forget,
            sets.retain,
            _kept(sets),
            random_state=how.seed,
            how=Training(2 * lesson.lr, lesson.momentum, lesson.batch_size),
            label=name,
            progress=how.progress,
        )
        values[name] = {"fa_recovered": found.forget}
    return values


def _kept(sets: Sets) -> Any:
    return sets.test.select(torch.from_numpy(sets.kept))
