"""What a generator forgot, what else it lost, and who says so."""

from __future__ import annotations

__all__ = ["assess", "check_judge"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import InputError, unknown_name
from conceptlab.provenance import provenance
from conceptlab.seeds import RandomState, draw_seed, torch_generator
from unlearning.distances.fid import frechet_distance
from unlearning.distances.kernels import kid
from unlearning.gan.aim import ADVICE, missed
from unlearning.gan.gamma import degree_of_unlearning
from unlearning.gan.gate import find_gates, gate_of
from unlearning.gan.generators import Generator, as_generator
from unlearning.gan.guide import Guide
from unlearning.gan.options import Limits, Request, Target
from unlearning.gan.report import GanReport
from unlearning.gan.result import GanResult

_BATCH = 256
_SHOWN = 24
_SURE = 0.7  # least probability of the likeliest value of an image that is clear
_SPLITS = 4  # into reference and ideal


def check_judge(judge: Any, targets: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Find each target among the values of a judge, as family and index.

    Raises
    ------
    InputError
        A judge without ``families`` and ``probabilities``, or a target that is no value.
    """
    if not (hasattr(judge, "families") and callable(getattr(judge, "probabilities", None))):
        raise InputError(
            f"A judge needs families (name to values) and probabilities(images), "
            f"{type(judge).__name__} has not both. See conceptlab.assets.SceneJudge.",
            code="CL-INPUT-TYPE",
        )
    places = {v: (f, list(vs).index(v)) for f, vs in judge.families.items() for v in vs}
    for target in targets:
        if target not in places:
            raise unknown_name("value of the judge", target, places, code="CL-INPUT-TARGET")
    return {target: places[target] for target in targets}


@torch.no_grad()
def assess(
    before: Generator | nn.Module,
    after: Generator | nn.Module | GanResult,
    target: Target,
    encoder: Any,
    judge: Any = None,
    *,
    value: str | None = None,
    second_encoder: Any = None,
    retain: Mapping[str, Sequence[str]] | None = None,
    anchor: str | Sequence[str] | None = None,
    n: int = 2000,
    min_separation: float = 2.8,
    random_state: RandomState = 0,
) -> GanReport:
    """Compare a generator with what became of it, on latents that it never saw.

    Parameters
    ----------
    before : Generator or torch.nn.Module
        The original.
    after : Generator, torch.nn.Module or GanResult
        What is to have forgotten.
    target : str, sequence of str, or array
        What was to be forgotten, as in :class:`TextToUnlearn`.
    encoder : Encoder
        The guide. It is the opinion that the training has pleased, so its figures alone
        prove little.
    judge : optional
        An independent classifier with ``families`` (name to values, the targets among
        them) and ``probabilities(images)`` (family to (n, values)); with
        ``features(images)`` it also gives the Fréchet distances.
    value : str, optional
        What the judge calls the target, where that is images or a direction.
    second_encoder : Encoder, or dict of str to Encoder, optional
        Other encoders, for degrees of unlearning that the guide has no part in.
    retain : mapping of str to sequence of str, optional
        Other texts, a family at a time: what leaked into their scores.
    anchor : str or sequence of str, optional
        As in :class:`TextToUnlearn`.
    n : int
        Number of latents; at least 20 of them must show the target, and 20 not.
    min_separation : float
        As in :class:`TextToUnlearn`: by a gate that separates less nothing can be counted.
    random_state : int

    Returns
    -------
    GanReport

    Raises
    ------
    InputError
        A target that the judge does not know, or that the encoder does not tell from the rest
        (``CL-INPUT-TARGET``), or too few latents with or without the target
        (``CL-INPUT-FEW``).

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan, load_embedded_judge
    >>> gan = load_embedded_gan()
    >>> report = assess(gan, gan, "red", load_encoder("embedded"), load_embedded_judge(), n=200)
    >>> report.figures["judge: removed"]
    0.0
    """
    result = after if isinstance(after, GanResult) else None
    old = as_generator(before)
    new = result.generator if result else after
    new = new if isinstance(new, Generator) else old.around(new)  # type: ignore[arg-type]
    request = Request.of(target, anchor, retain, Limits(min_separation, share=0.0))
    targets = request.targets
    seed = draw_seed(random_state)
    z = old.draw(n, torch_generator(seed))
    images = {
        "before": torch.cat([old.images(part) for part in z.split(_BATCH)]),
        "after": torch.cat([new.images(p.to(new.device)) for p in z.split(_BATCH)]).to(old.device),
    }
    facts: dict[str, Any] = {"targets": targets, "n": n, "seed": seed}
    figures: dict[str, float] = {}
    guide = Guide(encoder, device=old.device)
    e = {name: guide.embed_all(x) for name, x in images.items()}
    gates, _ = find_gates(guide, e["before"], request)
    had, has = (torch.stack([g.shows(v) for g in gates]).any(0) for v in e.values())
    if judge is not None:
        places = check_judge(judge, targets if value is None else [value])
        opinions = {k: _opinions(judge, x) for k, x in images.items()}
        verdicts = {k: {f: p.argmax(1) for f, p in v.items()} for k, v in opinions.items()}
        by_judge = [
            torch.stack([v[family] == i for family, i in places.values()]).any(0)
            for v in verdicts.values()
        ]
        figures.update(_shares("judge", *by_judge))
        figures.update(_kept(verdicts, by_judge[0], {f for f, _ in places.values()}))
        unclear = {k: _unclear(v)[by_judge[0]] for k, v in opinions.items()}
        figures["judge: unclear"] = _mean(unclear["after"])
        figures["judge: unclear, before"] = _mean(unclear["before"])
        facts["gate agrees with judge"] = float((had == by_judge[0]).float().mean())
    figures.update(_shares("guide", had, has))
    truth = by_judge[0] if judge is not None else had
    if min(int(truth.sum()), int((~truth).sum())) < 20:
        raise InputError(
            f"{int(truth.sum())} of {n} latents show {' or '.join(targets)}; at least 20 with and "
            "20 without are needed. Give a larger n.",
            code="CL-INPUT-FEW",
        )
    change = (images["after"] - images["before"]).abs().mean((1, 2, 3))
    figures["pixel change, never had it"] = float(change[~truth].mean())
    figures["pixel change, had it"] = float(change[truth].mean())
    for gate in gates:
        scores = [
            gate.concept.score(v).cpu()
            for v in (e["before"][truth], e["after"][truth], e["before"][~truth])
        ]
        figures[_name("degree, guide", gate.concept.name, targets)] = degree_of_unlearning(*scores)
    facts["scores"] = {
        "before": gates[0].concept.score(e["before"][truth]).cpu().numpy(),
        "after": gates[0].concept.score(e["after"][truth]).cpu().numpy(),
        "never had it": gates[0].concept.score(e["before"][~truth]).cpu().numpy(),
    }
    if second_encoder is not None:
        if request.given is not None and request.given.ndim == 1:
            raise InputError(
                "A direction is one of the guide's space alone: leave second_encoder= out, or give "
                "images or a text as the target.",
                code="CL-INPUT-TARGET",
            )
        several = isinstance(second_encoder, Mapping)
        for name, other in (second_encoder if several else {"": second_encoder}).items():
            figures.update(_second(other, name, request, images, truth))
    if retain:
        figures.update(_leakage(guide, e, truth, retain, targets))
    features = getattr(judge, "features", None)
    figures.update(_quality(images, e, truth, features))
    rows = truth.nonzero()[:_SHOWN, 0], (~truth).nonzero()[:_SHOWN, 0]
    pictures = {
        f"{when}, {which}": images[when][part].cpu().numpy()
        for which, part in zip(("had it", "never had it"), rows, strict=True)
        for when in ("before", "after")
    }
    who = "guide" if judge is None else "judge"
    unchanged = figures.get("judge: unchanged, never had it", 1 - figures["guide: leak"])
    facts["missed"] = missed(figures[f"{who}: removed"], unchanged)
    notes = [f"Not forgotten as asked. {ADVICE}"] if facts["missed"] else []
    if judge is None:
        notes.append(
            "No independent judge was given. The guide alone says what is gone, and the training "
            "has aimed at pleasing the guide."
        )
    return GanReport(
        figures=figures,
        facts=facts,
        pictures=pictures,
        notes=notes,
        provenance=provenance(seed=seed, guide=encoder.fingerprint),
    )


def _opinions(judge: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = [judge.probabilities(x) for x in images.split(_BATCH)]
    return {f: torch.cat([p[f] for p in parts]) for f in judge.families}


def _unclear(opinions: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tell which images fit no value of some family, (n,) bool: none has much probability."""
    sure = torch.stack([p.amax(1) for p in opinions.values()])
    return (sure < _SURE).any(0)


def _shares(who: str, had: torch.Tensor, has: torch.Tensor) -> dict[str, float]:
    """Give shares; NaN where no latent had the concept, or all had it."""
    return {
        f"{who}: share before": _mean(had),
        f"{who}: share after": _mean(has),
        f"{who}: removed": _mean(~has[had]),
        f"{who}: leak": _mean(has[~had]),
    }


def _kept(
    verdicts: dict[str, dict[str, torch.Tensor]], had: torch.Tensor, aimed: set[str]
) -> dict[str, float]:
    same = {f: verdicts["before"][f] == verdicts["after"][f] for f in verdicts["before"]}
    others = {f: s for f, s in same.items() if f not in aimed}
    found = {f"judge: kept {f}": _mean(s[had]) for f, s in others.items()}
    if others:
        found["judge: kept, mean"] = float(np.mean(list(found.values())))
        found["judge: kept, all at once"] = _mean(torch.stack(list(others.values())).all(0)[had])
    found["judge: unchanged, never had it"] = _mean(torch.stack(list(same.values())).all(0)[~had])
    return found


def _mean(values: torch.Tensor) -> float:
    return float(values.float().mean()) if len(values) else float("nan")


def _name(figure: str, target: str, targets: list[str]) -> str:
    return figure if len(targets) == 1 else f"{figure}, {target}"


def _second(
    encoder: Any,
    name: str,
    request: Request,
    images: dict[str, torch.Tensor],
    truth: torch.Tensor,
) -> dict[str, float]:
    guide = Guide(encoder, device=truth.device)
    e = {name: guide.embed_all(x) for name, x in images.items()}
    found = {}
    for target in request.targets:
        concept = gate_of(guide, target, e["before"], request)[0].concept
        parts = (e["before"][truth], e["after"][truth], e["before"][~truth])
        scores = [concept.score(part).cpu() for part in parts]
        figure = f"degree, {name}" if name else "degree, second encoder"
        found[_name(figure, target, request.targets)] = degree_of_unlearning(*scores)
    return found


def _leakage(
    guide: Guide,
    e: dict[str, torch.Tensor],
    truth: torch.Tensor,
    retain: Mapping[str, Sequence[str]],
    targets: list[str],
) -> dict[str, float]:
    """Largest shift of the mean zero-shot probability of other texts, never-had-it latents."""
    shift = 0.0
    for values in retain.values():
        vectors = guide.texts(list(values))
        means = [(guide.scale * v[~truth] @ vectors.T).softmax(1).mean(0) for v in e.values()]
        rows = [i for i, value in enumerate(values) if value not in targets]
        shift = max(shift, float((means[1] - means[0]).abs()[rows].max()) if rows else 0.0)
    return {"guide: largest shift of another text": shift}


def _quality(
    images: dict[str, torch.Tensor], e: dict[str, torch.Tensor], truth: torch.Tensor, features: Any
) -> dict[str, float]:
    """Distances to the original's images without the concept, beside an ideal's.

    Images without the concept are halved: one half is the reference, the other the ideal.
    Means over some halvings, since one says little where images are few.
    """
    if features is not None:
        f = {k: torch.cat([features(x) for x in v.split(_BATCH)]) for k, v in images.items()}
    else:
        f = e
    with_it, without = truth.nonzero()[:, 0], (~truth).nonzero()[:, 0]
    half = len(without) // 2
    # The ideal shows the original's images without the concept, as many as the new generator
    # shows of all its latents; no latent is on both sides.
    k = min(round((len(without) - half) * float(truth.float().mean())), len(with_it))
    sums = dict.fromkeys(("fid", "fid, ideal", "kid", "kid, ideal"), 0.0)
    for split in range(_SPLITS):
        draws = torch_generator(split)
        some = with_it[torch.randperm(len(with_it), generator=draws)[:k].to(with_it.device)]
        free = without[torch.randperm(len(without), generator=draws).to(without.device)]
        reference, rest = f["before"][free[:half]], f["before"][free[half:]]
        chosen = f["after"][torch.cat([some, free[half : len(free) - k]])]
        sums["fid"] += frechet_distance(chosen, reference) / _SPLITS
        sums["fid, ideal"] += frechet_distance(rest, reference) / _SPLITS
        sums["kid"] += kid(chosen, reference) / _SPLITS
        sums["kid, ideal"] += kid(rest, reference) / _SPLITS
    found = {**sums, "fid / ideal": sums["fid"] / max(sums["fid, ideal"], 1e-12)}
    pairs = torch.randperm(len(f["after"]), generator=torch_generator(1)).to(truth.device)
    spread = {k: float((v - v[pairs]).norm(dim=1).mean()) for k, v in f.items()}
    found["diversity / before"] = spread["after"] / max(spread["before"], 1e-12)
    return found
