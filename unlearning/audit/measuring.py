"""All figures of one model, from what it says and encodes."""

from __future__ import annotations

__all__ = ["concept_figures", "measure", "random_twin", "relative_figures"]

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.models.session import model_copy
from conceptlab.seeds import numpy_generator
from unlearning.audit import membership
from unlearning.audit.concept_level import OwnConcepts, concept_surrogate, donors
from unlearning.audit.divergence import (
    activation_distance,
    agreement,
    js_divergence,
    zero_retrain_forgetting,
)
from unlearning.audit.encoding import few_shot_recall, linearly_kept
from unlearning.audit.options import Sizes
from unlearning.audit.probing import class_probe, concept_auc
from unlearning.audit.reading import Reading
from unlearning.audit.scores import (
    accuracy,
    adaptive_unlearning_score,
    average_gap,
    tug_of_war,
)
from unlearning.audit.subjects import Concepts, Sets
from unlearning.data import quiet_randomness

SHOTS = (5, 20)
"""Samples of the class that a few-shot probe gets."""
PROBED = (
    "probe_recall",
    "probe_auc",
    *(
        f"{key}{place}"
        for key in ("features_kept", *(f"probe_{n}" for n in SHOTS))
        for place in ("", "_middle")
    ),
)
"""Figures that features alone decide."""


def measure(
    reading: Reading,
    before: Reading,
    sets: Sets,
    sizes: Sizes,
    seed: int,
    *,
    probed: Mapping[str, float] | None = None,
) -> tuple[dict[str, float], dict[int, float]]:
    """Compute what needs no other model but the original.

    Parameters
    ----------
    reading, before : Reading
        Of the model, and of the original.
    sets : Sets
        Their samples.
    sizes : Sizes
        Limits of cost.
    seed : int
        Of draws; the same for all models.
    probed : mapping of str to float, optional
        Figures of a model with the same features, whose probe is taken over.

    Returns
    -------
    values : dict of str to float
        Figures by key.
    earlier : dict of int to float
        Test accuracy on each class that was forgotten earlier.
    """
    y = {
        name: samples.y.numpy()
        for name, samples in (("forget", sets.forget), ("retain", sets.retain), ("test", sets.test))
    }
    mine, kept = sets.mine, sets.kept
    predicted = {name: reading.logits[name].argmax(axis=1) for name in y}
    earlier = {
        c: accuracy(predicted["test"][y["test"] == c], y["test"][y["test"] == c])
        for c in sets.earlier
    }
    values = {
        "fa_train": accuracy(predicted["forget"], y["forget"]),
        "fa_test": accuracy(predicted["test"][mine], y["test"][mine]),
        "ra": accuracy(predicted["retain"], y["retain"]),
        "ta": accuracy(predicted["test"][kept], y["test"][kept]),
    }
    if earlier:
        values["fa_earlier"] = max(earlier.values())
    values |= _attacks(reading, sets, y, sizes, seed)
    values["temperature"] = reading.temperature
    if probed is not None:
        values |= {key: probed[key] for key in PROBED if key in probed}
    else:
        values |= _encoded(reading, before, sets, y, sizes, seed)
    values["donor"] = donors(reading.p("test")[mine], sets.classes)[0]
    return values, earlier


def _encoded(
    reading: Reading,
    before: Reading,
    sets: Sets,
    y: Mapping[str, np.ndarray],
    sizes: Sizes,
    seed: int,
) -> dict[str, float]:
    """Say what the last features, and those in the middle, hold of the class."""
    rows = _probe_rows(y["forget"], y["retain"], sizes.probe, seed)
    labels = np.concatenate([y["forget"], y["retain"]])[rows]
    kept = ~np.isin(labels, sets.classes)
    found: dict[str, float] = {}
    for place, of in (("", "features"), ("_middle", "middle")):
        own, old = getattr(reading, of), getattr(before, of)
        if any(name not in part for part in (own, old) for name in y):
            continue
        train, first = (
            np.concatenate([part["forget"], part["retain"]])[rows] for part in (own, old)
        )
        held = own["test"]
        found[f"features_kept{place}"] = linearly_kept(
            train[kept], first[kept], held[sets.mine], old["test"][sets.mine]
        )
        shots = few_shot_recall(
            train, labels, held, y["test"], sets.classes, shots=SHOTS, random_state=seed
        )
        found |= {f"probe_{n}{place}": v for n, v in zip(SHOTS, shots, strict=True)}
        if not place:
            probe = class_probe(train, labels, held, y["test"], sets.classes)
            found["probe_recall"], found["probe_auc"] = probe.recall, probe.auc
    return found


def _attacks(
    reading: Reading, sets: Sets, y: Mapping[str, np.ndarray], sizes: Sizes, seed: int
) -> dict[str, float]:
    mine, kept = sets.mine, sets.kept
    p = {name: reading.p(name) for name in y}
    seen: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for name, look in membership.FEATURES.items():
        held = look(p["test"][kept], y["test"][kept])
        seen[name] = (look(p["retain"], y["retain"]), held, look(p["forget"], y["forget"]))
    options: dict[str, Any] = {"max_samples": sizes.attack, "random_state": seed}
    losses = [
        -np.log(membership.confidence(p[name][rows], y[name][rows]).clip(1e-30))
        for name, rows in (("forget", slice(None)), ("test", mine))
    ]
    share, told = membership.machine_attack(*seen["confidence"], **options)
    return {
        "mia_confidence": share,
        "mia_accuracy": told,
        "mia_entropy": membership.member_share(*seen["entropy"], **options),
        "mia_modified": membership.non_member_share(*seen["modified_entropy"], **options),
        "mia_loss": membership.loss_attack(*losses, random_state=seed),
    }


def _probe_rows(forget: np.ndarray, retain: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Draw training samples of a probe, every class by its share and at least ten of each."""
    y = np.concatenate([forget, retain])
    if len(y) <= limit:
        return np.arange(len(y))
    rng = numpy_generator(seed)
    rows = []
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        size = min(len(own), max(10, round(limit * len(own) / len(y))))
        rows.append(rng.permutation(own)[:size])
    return np.sort(np.concatenate(rows))


def relative_figures(
    own: dict[str, float],
    reading: Reading,
    *,
    before: Mapping[str, float],
    mask: Reading,
    random: np.ndarray,
    reference: Mapping[str, float] | None,
    reference_reading: Reading | None,
    sets: Sets,
    seed: int = 0,
) -> dict[str, float]:
    """Compute what compares a model with others.

    Parameters
    ----------
    own : dict of str to float
        Its figures so far.
    reading, mask, reference_reading : Reading
        Of the model, of the logit mask, of the retrained model.
    before, reference : mapping of str to float
        Figures of the original and of the retrained model.
    random : ndarray of shape (n, C)
        Probabilities of a network with random weights on the forget samples.
    sets : Sets
        The samples.
    seed : int
        Of draws.

    Returns
    -------
    dict of str to float
    """
    mine = sets.mine
    p = reading.p("test")[mine]
    found = {
        "js_mask": float(js_divergence(p, mask.p("test")[mine]).mean()),
        "zrf": zero_retrain_forgetting(reading.p("forget"), random),
    }
    base = 0.0 if reference is None else reference["fa_train"]
    found["aus"] = adaptive_unlearning_score(before["ta"], own["ta"], own["fa_train"], base)
    if reference is None or reference_reading is None:
        return found
    q = reference_reading.p("test")[mine]
    sides = [
        {"forget": v["fa_train"], "retain": v["ra"], "test": v["ta"]} for v in (own, reference)
    ]
    quartet = [
        {"ua": 1 - v["fa_train"], "ra": v["ra"], "ta": v["ta"], "mia": v["mia_confidence"]}
        for v in (own, reference)
    ]
    return found | {
        "gap": average_gap(*quartet),
        "tow": tug_of_war(*sides),
        "js": float(js_divergence(p, q).mean()),
        "activation": activation_distance(p, q),
        "agreement": agreement(p, q),
        "mia_neighbours": membership.neighbour_attack(p, q, sets.classes, random_state=seed),
    }


def concept_figures(
    reading: Reading,
    sets: Sets,
    concepts: Concepts,
    of: OwnConcepts,
    seed: int,
    *,
    encoded: np.ndarray | None = None,
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Compute the concept-level figures of a model.

    Parameters
    ----------
    reading : Reading
        Of the model.
    sets : Sets
        The samples.
    concepts : Concepts
        Of the test samples.
    of : OwnConcepts
        Those of the forgotten class.
    seed : int
        Of folds.
    encoded : ndarray of shape (k,), optional
        Probes of a model with the same features.

    Returns
    -------
    values : dict of str to float
        Figures by key; NaN where the class has no such concepts.
    attributions : ndarray of shape (C, k)
        See :class:`~unlearning.audit.concept_level.Surrogate`.
    encoded : ndarray of shape (k,)
        AUC of a probe for each concept of the class and some others, else NaN.
    """
    y = sets.test.y.numpy()
    use = ~np.isin(y, sets.earlier)
    logits = reading.logits["test"][use]
    found = concept_surrogate(concepts.scores[use], logits, y[use], sets.classes)
    rest = [k for k in range(len(concepts.names)) if k not in {*of.concepts, *of.exclusive}]
    share = concepts.shown[use].mean(axis=0)
    # The other concepts that are shown most evenly; a few tell enough.
    other = sorted(rest, key=lambda k: abs(share[k] - 0.5))[:4]
    probed = sorted({*of.concepts, *of.exclusive, *other})
    if encoded is None:
        encoded = np.full(len(concepts.names), np.nan)
        encoded[probed] = concept_auc(
            reading.features["test"][use], concepts.shown[use][:, probed], random_state=seed
        )
    mine = list(sets.classes)
    kept = [j for j in range(logits.shape[1]) if j not in {*sets.classes, *sets.earlier}]
    own = found.attributions[:, list(of.concepts)].sum(axis=1)
    nothing = float("nan")
    return (
        {
            "concept_attribution": float(own[mine].mean()) if of.concepts else nothing,
            "concept_r2": float(found.r2[mine].mean()),
            "concept_auc": _mean(encoded[list(of.exclusive)]),
            "concept_auc_other": _mean(encoded[other]),
            "redirect": float(own[kept].max()) if of.concepts else nothing,
        },
        found.attributions,
        encoded,
    )


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def random_twin(model: nn.Module, seed: int) -> nn.Module:
    """Copy a model with random weights.

    Every module that can reset itself does, at any depth; the entries of all other weights
    are shuffled.
    """
    twin = model_copy(model)
    own: set[int] = set()
    with quiet_randomness(seed):
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                own.update(id(w) for w in module.parameters(recurse=False))
        with torch.no_grad():
            for weight in twin.parameters():
                if id(weight) not in own:
                    order = torch.randperm(weight.numel()).to(weight.device)
                    weight.copy_(weight.flatten()[order].view_as(weight))
    return twin
