"""The audit: every figure beside a retrained model, the noise floor and the trivial baseline."""

from __future__ import annotations

__all__ = ["audit"]

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import InputError
from conceptlab.parameters import Whole
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint, provenance
from conceptlab.seeds import RandomState, draw_seed
from unlearning.audit.attacker import Training
from unlearning.audit.concept_level import ClassConcepts, donors, find_class_concepts
from unlearning.audit.divergence import probabilities
from unlearning.audit.figures import FIGURES
from unlearning.audit.measuring import (
    Sizes,
    concept_figures,
    measure,
    random_twin,
    relative_figures,
)
from unlearning.audit.quantising import quantised_copy
from unlearning.audit.reading import Reading, accuracy_on, borrowed_copy, read_model
from unlearning.audit.recovery import spontaneous_recovery
from unlearning.audit.relearning import RelearnCurve, anamnesis_index
from unlearning.audit.relearning import relearn as relearn_copy
from unlearning.audit.report import Report
from unlearning.audit.subjects import Concepts, Sets, as_model, check_sets, read_concepts
from unlearning.audit.thresholds import Thresholds
from unlearning.audit.verdict import judge
from unlearning.classes.methods.logit_mask import LogitMask
from unlearning.heads import frozen


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
    relearn: bool = True,
    recovery: bool | None = None,
    bits: Sequence[int] = (8, 4),
    alpha: float = 0.1,
    max_steps: int = 200,
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
        The training samples to be forgotten, and those of all other classes;
        see :func:`unlearning.as_samples`.
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
    relearn : bool
        Teach copies the class again and count the steps.
    recovery : bool, optional
        Train copies on retained samples only, for one pass; as `relearn` when left out.
    bits : sequence of int
        Widths at which weights are tried, out of 8 and 4; empty for none.
    alpha : float
        A class counts as learned again at (1 - alpha) times the original's forget accuracy.
    max_steps : int
        Relearning gives up after so many mini-batches.
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
        number of classes, models that are no modules, concepts that do not fit.
    SplitError
        A model without logits or without a linear layer that gives them.

    Notes
    -----
    Accuracies alone prove nothing: masking a logit (always computed, column ``mask``) gives
    all of them for free. The rules of the verdict stand in :mod:`unlearning.audit.verdict`.
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
    seed = draw_seed(random_state)
    start = time.process_time()
    n_test, sets = (
        0,
        check_sets(
            forget, retain, test, earlier=earlier, max_samples=max_samples, random_state=seed
        ),
    )
    if not 0 <= alpha < 1:
        raise InputError(f"alpha must be in [0, 1), got {alpha}.", code="CL-INPUT-RANGE")
    unknown = [b for b in bits if b not in (8, 4)]
    if unknown:
        raise InputError(f"bits may hold 8 and 4, got {unknown}.", code="CL-INPUT-OPTION")
    models, certificates = _models(before, after, retrained)
    run = _Run(models, sets, seed, head, batch_size, progress, sizes or Sizes())
    run.read()
    if concepts is not None:
        n_test = _count(test, sets)
        run.concepts = read_concepts(concepts, sets, n_test, run.readings["before"], encoder)
        run.of = find_class_concepts(
            run.concepts.shown,
            sets.test.y,
            sets.classes,
            names=run.concepts.names,
            concepts=class_concepts,
            exclusive=exclusive,
        )
    run.measure()
    run.quantise(bits)
    how = attacker or Training()
    if relearn:
        run.relearn(alpha, max_steps, how)
    if relearn if recovery is None else recovery:
        run.recover(how)
    run.cost(certificates, seconds, retrain_seconds)
    return run.report(
        thresholds or Thresholds(),
        class_names,
        certificates.get("after"),
        {
            "alpha": alpha,
            "max_steps": max_steps,
            "relearn": relearn,
            "bits": list(bits),
            "attacker": asdict(how),
            "max_samples": max_samples,
            "sizes": asdict(run.sizes),
        },
        start,
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


def _count(test: Any, sets: Sets) -> int:
    """Count the test samples that were given, of which some may not be used."""
    if hasattr(test, "y"):
        return len(test.y)
    from unlearning.data import as_samples

    return len(as_samples(test, name="test"))


@dataclass
class _Run:
    """One audit in the making."""

    models: dict[str, nn.Module]
    sets: Sets
    seed: int
    head: str | None
    batch_size: int
    progress: Progress
    sizes: Sizes
    readings: dict[str, Reading] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    earlier: dict[str, dict[int, float]] = field(default_factory=dict)
    curves: dict[str, RelearnCurve] = field(default_factory=dict)
    concepts: Concepts | None = None
    of: ClassConcepts | None = None
    attributions: dict[str, np.ndarray] = field(default_factory=dict)
    encoded: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Run every model once; then make and run the trivial baseline."""
        sets = {"forget": self.sets.forget, "retain": self.sets.retain, "test": self.sets.test}
        self.notes += self.sets.notes
        for name, model in self.models.items():
            self.readings[name] = self._read(name, model, sets)
            found, wanted = self.readings[name].n_classes, self.readings["before"].n_classes
            if found != wanted:
                raise InputError(
                    f"The model `{name}` has {found} classes, the original {wanted}. Give models "
                    "with the same outputs; a retrained model keeps an output for the forgotten "
                    "class.",
                    code="CL-INPUT-SHAPE",
                )
            high = max(int(s.y.max()) for s in sets.values())
            if high >= wanted:
                raise InputError(
                    f"Labels go up to {high}, but the models have {wanted} outputs.",
                    code="CL-INPUT-LABELS",
                )
        mask = LogitMask(head=self.readings["before"].head, batch_size=self.batch_size).unlearn(
            self.models["before"], forget=self.sets.forget, retain=self.sets.retain, progress=False
        )
        self.models["mask"] = mask.model
        self.readings["mask"] = self._read("mask", mask.model, sets)

    def _read(self, name: str, model: nn.Module, sets: dict[str, Any]) -> Reading:
        head = self.head
        if head is not None and head not in dict(model.named_modules()):
            head = None if name.startswith("retrained") else head
        return read_model(
            model, sets, head=head, batch_size=self.batch_size, label=name, progress=self.progress
        )

    def measure(self) -> None:
        """Compute all figures that need no training."""
        first = self.readings["before"]
        for name, reading in self.readings.items():
            known = self._twin(name)
            self.values[name], self.earlier[name] = measure(
                reading,
                first,
                self.sets,
                self.sizes,
                self.seed,
                probed=self.values.get(known or ""),
            )
        twin = random_twin(self.models["before"], self.seed)
        with frozen(twin):
            found = read_model(
                twin,
                {"forget": self.sets.forget},
                head=first.head,
                batch_size=self.batch_size,
                progress=False,
            )
        random = probabilities(found.logits["forget"])
        for name, reading in self.readings.items():
            self.values[name] |= relative_figures(
                self.values[name],
                reading,
                before=self.values["before"],
                mask=self.readings["mask"],
                random=random,
                sets=self.sets,
                reference=self.values.get("retrained"),
                reference_reading=self.readings.get("retrained"),
            )
            if self.concepts is not None and self.of is not None:
                values, self.attributions[name], self.encoded[name] = concept_figures(
                    reading,
                    self.sets,
                    self.concepts,
                    self.of,
                    self.seed,
                    encoded=self.encoded.get(self._twin(name) or ""),
                )
                self.values[name] |= values

    def _twin(self, name: str) -> str | None:
        """Find a model that was measured already and has the same features to the bit."""
        own = self.readings[name].features
        for other in self.values:
            theirs = self.readings[other].features
            if other != name and all(np.array_equal(own[key], theirs[key]) for key in own):
                return other
        return None

    def quantise(self, bits: Sequence[int]) -> None:
        """Try weights at few bits."""
        kept = self.sets.test.select(torch.from_numpy(self.sets.kept))
        for name, model in self.models.items():
            for width in bits:
                with frozen(quantised_copy(borrowed_copy(model), width)) as small:
                    self.values[name] |= {
                        f"fa_int{width}": accuracy_on(small, self.sets.forget, self.batch_size),
                        f"ta_int{width}": accuracy_on(small, kept, self.batch_size),
                    }

    def relearn(self, alpha: float, max_steps: int, how: Training) -> None:
        """Teach copies of the models the class again."""
        kept = self.sets.test.select(torch.from_numpy(self.sets.kept))
        target = (1 - alpha) * self.values["before"]["fa_train"]
        if target <= 0:
            self.notes.append("The original knows nothing of the class; nothing was relearned.")
            return
        for name, model in self.models.items():
            if name == "before":
                continue
            curve = relearn_copy(
                model,
                self.sets.forget,
                self.sets.retain,
                kept,
                target=target,
                max_steps=max_steps,
                how=how,
                random_state=self.seed,
                label=name,
                head=self.readings[name].head,
                progress=self.progress,
            )
            self.curves[name] = curve
            own = self.values[name]
            own["relearn_steps"] = curve.count
            if curve.broken and curve.reached is None:
                own["relearn_broken"] = 1.0
                self.notes.append(
                    f"The model `{name}` learned the class again only at the price of more than "
                    "5 points on retained ones, so the steps do not count."
                )
            elif curve.reached is None:
                self.notes.append(
                    f"The model `{name}` did not learn the class again in {max_steps} steps; "
                    "the count is a lower bound."
                )
        if "retrained" in self.curves:
            for name, curve in self.curves.items():
                self.values[name]["ain"] = anamnesis_index(curve, self.curves["retrained"])
            self.values["before"]["ain"] = 0.0
        self.values["before"]["relearn_steps"] = 0.0

    def recover(self, how: Training) -> None:
        """Train copies on retained samples only."""
        kept = self.sets.test.select(torch.from_numpy(self.sets.kept))
        for name, model in self.models.items():
            if name == "before":
                continue
            found = spontaneous_recovery(
                model,
                self.sets.forget,
                self.sets.retain,
                kept,
                random_state=self.seed,
                how=Training(2 * how.lr, how.momentum, how.batch_size),
                label=name,
                progress=self.progress,
            )
            self.values[name]["fa_recovered"] = found.forget

    def cost(
        self, certificates: dict[str, dict[str, Any]], ours: float | None, theirs: float | None
    ) -> None:
        """Compute the run-time efficiency where both times are known."""
        ours = ours if ours is not None else _seconds(certificates.get("after"))
        theirs = theirs if theirs is not None else _seconds(certificates.get("retrained"))
        if theirs is not None and theirs > 0:
            if ours is not None:
                self.values["after"]["rte"] = ours / theirs
            if "retrained" in self.values:
                self.values["retrained"]["rte"] = 1.0
            again = _seconds(certificates.get("retrained_b"))
            if again is not None:
                self.values["retrained_b"]["rte"] = again / theirs

    def report(
        self,
        thresholds: Thresholds,
        class_names: Sequence[str] | None,
        certificate: dict[str, Any] | None,
        settings: dict[str, Any],
        start: float,
    ) -> Report:
        """Judge, and put everything together."""
        sets, n_classes = self.sets, self.readings["before"].n_classes
        names = (
            [str(n) for n in class_names]
            if class_names is not None
            else [str(c) for c in range(n_classes)]
        )
        if len(names) != n_classes:
            raise InputError(
                f"class_names has {len(names)} names, the models have {n_classes} outputs.",
                code="CL-INPUT-NAMES",
            )
        sizes = {
            "forget": len(sets.forget),
            "retain": len(sets.retain),
            "test": int(sets.kept.sum()),
            "forget_test": int(sets.mine.sum()),
        }
        if self.concepts is not None and self.of is not None and self.of.exclusive:
            shown = self.concepts.shown[:, list(self.of.exclusive)].sum(axis=0)
            sizes["concept"] = int(shown.min())
            sizes["no_concept"] = int(len(sets.test) - shown.max())
        if self.of is not None and not self.of.exclusive:
            self.notes.append(
                "No concept is the forgotten class's alone, so whether one is still encoded "
                "cannot be asked."
            )
        given: dict[str, Any] = {
            "before": self.values["before"],
            "mask": self.values["mask"],
            "reference": self.values.get("retrained"),
            "second": self.values.get("retrained_b"),
            "sizes": sizes,
            "thresholds": thresholds,
        }
        verdicts = {name: judge(self.values[name], **given) for name in ("after", "before", "mask")}
        mine = sets.mine
        return Report(
            values={
                name: {key: own[key] for key in FIGURES if key in own}
                for name, own in self.values.items()
            },
            verdict=verdicts["after"],
            baselines={name: verdicts[name].word for name in ("before", "mask")},
            forgotten=list(sets.classes),
            class_names=names,
            sizes=sizes,
            destinations={
                name: donors(reading.p("test")[mine], sets.classes)[1]
                for name, reading in self.readings.items()
            },
            curves=self.curves,
            concept_names=list(self.concepts.names) if self.concepts is not None else [],
            class_concepts=list(self.of.concepts) if self.of is not None else [],
            exclusive=list(self.of.exclusive) if self.of is not None else [],
            attributions=self.attributions,
            encoded=self.encoded,
            earlier=self.earlier if sets.earlier else {},
            notes=self.notes,
            certificate=certificate,
            settings={
                **settings,
                "thresholds": asdict(thresholds),
                "head": self.readings["before"].head,
                "concepts": self.concepts.source if self.concepts is not None else None,
                "cpu_seconds": round(time.process_time() - start, 2),
            },
            provenance=provenance(
                seed=self.seed,
                models={name: fingerprint(model) for name, model in self.models.items()},
                samples={s.name: s.digest for s in (sets.forget, sets.retain, sets.test)},
            ),
        )


def _seconds(certificate: dict[str, Any] | None) -> float | None:
    value = None if certificate is None else certificate.get("cpu_seconds")
    return float(value) if isinstance(value, int | float) else None
