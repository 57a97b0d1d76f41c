"""The evaluation: every class, every remover, every score."""

from __future__ import annotations

__all__ = ["RemovalBenchmark"]

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from conceptlab.errors import InputError, RemoverError
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.progress import Progress, track
from conceptlab.provenance import provenance
from conceptlab.seeds import RandomState, draw_seed
from unlearning.removal.cache import RemovalCache
from unlearning.removal.class_result import ClassResult
from unlearning.removal.collecting import Collected, Collector
from unlearning.removal.context import (
    borrowed_masks,
    context_descriptor,
    context_self_check,
    match_context,
)
from unlearning.removal.datasets.base import RemovalDataset
from unlearning.removal.features import as_extractor
from unlearning.removal.masks import MaskPolicy
from unlearning.removal.removers.base import RemoverSetup
from unlearning.removal.removers.controls import Oracle
from unlearning.removal.removers.registry import make_remover
from unlearning.removal.removers.simple import MeanFill, Nothing
from unlearning.removal.report import RemovalReport
from unlearning.removal.scoring import Scorer

_RULES = Rules(
    n_min=Whole(2),
    n_bootstrap=Whole(0),
    confidence=Real(above=0, below=1),
    on_error=OneOf("raise", "skip"),
    batch_size=Whole(1),
)


class RemovalBenchmark:
    """Judge removers class by class against images that never held the class.

    Parameters
    ----------
    features : Encoder, torch.nn.Module, callable or str
        What FID* and its kin look through: an encoder (or its name), or what maps images
        (n, 3, H, W) in [0, 1] to features (n, d).
    classes : sequence of str, optional
        Which classes of the data; all by default.
    encoder : Encoder or str, optional
        Image–text encoder for concept presence and concept FID; `features` if that is one.
        Without any, those scores are left out.
    feature_map : callable or "encoder", optional
        Images to maps (n, c, h, w), for the scores without a reference: ReMOVE-style, CFD (with
        scikit-image), and RC-S where a square of 448 pixels has 8 by 8 cells; ``"encoder"``
        takes the maps of `features` or `encoder` (of open_clip).
    lpips : callable, optional
        Distance of two image batches, such as :class:`Lpips` with your weights, which also
        looks inside the mask.
    policy : MaskPolicy
        Least and largest area, and a dilation that all removers get on top of their own.
    match : bool
        Whether comparison images are chosen by what lies outside the masks.
    n_min, n_max : int
        Classes with fewer images on either side are passed over with the reason; of more,
        a random part is used.
    n_bootstrap : int
        Bootstrap samples; 0 for none.
    confidence : float
        Level of intervals.
    published : bool
        Whether U-IDS in-sample and cross-fitted, and P-IDS, are computed too, which need
        SVM fits.
    cache : path-like, optional
        Folder for finished removals, so that a stopped run goes on.
    on_error : {"raise", "skip"}
        What to do when a remover fails: stop, or leave it out and say why.
    batch_size : int
        Images a step.
    random_state : int, RandomState, Generator or None
        Of everything random.

    See Also
    --------
    RemovalReport : What :meth:`run` gives.

    Notes
    -----
    Oh et al. 2024: a remover is scored by its images R_c of class c against N_c, real images
    of the data set without c. Here with an unbiased U-IDS, floors and ceilings, bootstrap
    intervals paired over removers, and controls that are always run: ``nothing``,
    ``mean_fill``, and ``oracle`` where the truth is known.

    Examples
    --------
    >>> from unlearning.removal import RemovalBenchmark, SceneRemovals
    >>> def colours(images):
    ...     return images.mean(dim=(2, 3))
    >>> data = SceneRemovals(("star",), n=40, random_state=0)
    >>> report = RemovalBenchmark(colours, n_min=20, n_bootstrap=20).run(data, ["blur"])
    >>> sorted(report.to_frame().remover)
    ['blur', 'mean_fill', 'nothing', 'oracle']
    """

    def __init__(
        self,
        features: Any,
        classes: Sequence[str] | None = None,
        *,
        encoder: Any = None,
        feature_map: Any = None,
        lpips: Any = None,
        policy: MaskPolicy = MaskPolicy(),  # noqa: B008 - frozen
        match: bool = False,
        n_min: int = 100,
        n_max: int = 5000,
        n_bootstrap: int = 200,
        confidence: float = 0.95,
        published: bool = False,
        cache: str | os.PathLike[str] | RemovalCache | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        batch_size: int = 64,
        random_state: RandomState = 0,
    ) -> None:
        _RULES.check(locals())
        Whole(n_min).check("n_max", n_max)
        if not isinstance(policy, MaskPolicy):
            raise InputError(
                f"policy must be a MaskPolicy, got {type(policy).__name__}.", code="CL-INPUT-TYPE"
            )
        self.features = as_extractor(features)
        if encoder is None and self.features.is_encoder:
            encoder = self.features.source
        self.encoder = as_extractor(encoder).source if isinstance(encoder, str) else encoder
        if self.encoder is not None and not callable(getattr(self.encoder, "encode_text", None)):
            raise InputError(
                "encoder must read images and texts (encode_image, encode_text), got "
                f"{type(self.encoder).__name__}.",
                code="CL-INPUT-TYPE",
            )
        self.classes = (classes,) if isinstance(classes, str) else classes
        self.feature_map, self.lpips = self._maps(feature_map), lpips
        self.policy, self.match = policy, match
        self.n_min, self.n_max = n_min, n_max
        self.n_bootstrap, self.confidence = n_bootstrap, confidence
        self.published, self.on_error, self.batch_size = published, on_error, batch_size
        if cache is not None and not isinstance(cache, RemovalCache):
            cache = RemovalCache(cache)
        self.cache: RemovalCache | None = cache
        self.seed_ = draw_seed(random_state)

    def run(
        self, dataset: RemovalDataset, removers: Sequence[Any], *, progress: Progress = None
    ) -> RemovalReport:
        """Run all removers on all classes and score them.

        Parameters
        ----------
        dataset : RemovalDataset
            See :class:`SceneRemovals`, :class:`CocoRemovals`, :class:`MaskFolder`.
        removers : sequence of str, Remover, callable or RemoverSetup
            See :func:`make_remover`; controls are added.
        progress : bool, callable or None
            See :data:`conceptlab.progress.Progress`; one step is a batch of images.

        Returns
        -------
        RemovalReport

        Raises
        ------
        InputError
            Two removers of one label, an unknown class, or no class with enough images.
        RemoverError
            If a remover fails and `on_error` is "raise".
        """
        if not isinstance(dataset, RemovalDataset):
            raise InputError(
                "dataset must be a RemovalDataset (SceneRemovals, CocoRemovals, MaskFolder or a "
                f"subclass of yours), got {type(dataset).__name__}.",
                code="CL-INPUT-TYPE",
            )
        setups = self._setups(removers, dataset.has_truth)
        names = list(dataset.class_names if self.classes is None else self.classes)
        if not names:
            raise InputError("There is no class to remove.", code="CL-INPUT-EMPTY")
        results: list[ClassResult] = []
        skipped: dict[str, str] = {}
        failed: dict[str, str] = {}
        for number, name in enumerate(names):
            dataset.check_class(name)
            reason, ids, pool = self._choose(dataset, name, number)
            if reason:
                skipped[name] = reason
                continue
            left = [s for s in setups if s.label not in failed]
            data = self._collect(dataset, name, ids, pool, left, failed, progress)
            results.append(self._score(dataset, name, data, number))
        if not results:
            listed = "; ".join(f"{k}: {v}" for k, v in skipped.items())
            raise InputError(f"No class can be judged. {listed}", code="CL-INPUT-FEW")
        settings = {
            "data": dataset.name,
            "features": self.features.name,
            "match": self.match,
            "dilation": self.policy.dilation,
            "min_area": self.policy.min_area,
            "max_area": self.policy.max_area,
            "n_bootstrap": self.n_bootstrap,
            "confidence": self.confidence,
            "whole_pictures": [s.label for s in setups if not s.composite],
            "thin_masks": [
                s.label
                for s in setups
                if s.dilation + self.policy.dilation < getattr(s.remover, "least_dilation", 0) > 0
            ],
        }
        return RemovalReport(
            results,
            skipped=skipped,
            failed=failed,
            settings=settings,
            provenance=provenance(seed=self.seed_, features=self.features.fingerprint),
        )

    def _maps(self, feature_map: Any) -> Any:
        """Find what gives the maps of the scores without a reference."""
        if feature_map == "encoder":
            for source in (self.features.source, self.encoder):
                if callable(getattr(source, "encode_maps", None)):
                    return source.encode_maps
            raise InputError(
                f"feature_map='encoder' needs an encoder of open_clip, and {self.features.name} "
                "is none. Give a function from images to maps (n, c, h, w), or leave it out.",
                code="CL-INPUT-OPTION",
            )
        if feature_map is not None and not callable(feature_map):
            raise InputError(
                "feature_map must be a function from images to maps, 'encoder' or None, got "
                f"{feature_map!r}.",
                code="CL-INPUT-TYPE",
            )
        return feature_map

    def _setups(self, removers: Sequence[Any], has_truth: bool) -> list[RemoverSetup]:
        given = [removers] if isinstance(removers, str) else list(removers)
        setups = [make_remover(spec) for spec in given]
        controls: list[Any] = [Nothing(), MeanFill()]
        if has_truth:
            controls.append(Oracle())
        labels = {s.label for s in setups}
        setups += [RemoverSetup(c) for c in controls if c.name not in labels]
        seen: set[str] = set()
        for setup in setups:
            if setup.label in seen:
                raise InputError(
                    f"Two removers are called {setup.label!r}. Give one of them a label: "
                    "RemoverSetup(remover, label='...').",
                    code="CL-INPUT-NAMES",
                )
            if setup.needs_truth and not has_truth:
                raise InputError(
                    f"{setup.label} needs the true removal, and this data has none. Leave it out.",
                    code="CL-INPUT-OPTION",
                )
            seen.add(setup.label)
        return setups

    def _choose(
        self, dataset: RemovalDataset, name: str, number: int
    ) -> tuple[str, np.ndarray, np.ndarray]:
        ids = dataset.with_class(name, min_area=self.policy.min_area, max_area=self.policy.max_area)
        pool = dataset.without_class(name)
        rng = np.random.default_rng([self.seed_, number])
        if len(ids) > self.n_max:
            ids = np.sort(rng.choice(ids, self.n_max, replace=False))
        limit = self.n_max * (4 if self.match else 1)
        if len(pool) > limit:
            pool = np.sort(rng.choice(pool, limit, replace=False))
        reason = ""
        area = f"{self.policy.min_area:g} to {self.policy.max_area:g} of the picture"
        if len(ids) < self.n_min:
            reason = f"{len(ids)} images hold it at {area}, and {self.n_min} are needed (n_min)"
        elif len(pool) < self.n_min:
            reason = f"{len(pool)} images are free of it, and {self.n_min} are needed (n_min)"
        elif self.match and len(pool) < len(ids):
            ids = ids[: len(pool) // 2]
            if len(ids) < self.n_min:
                reason = f"{len(pool)} images free of it are too few to match from"
        return reason, ids, pool

    def _collect(
        self,
        dataset: RemovalDataset,
        name: str,
        ids: np.ndarray,
        pool: np.ndarray,
        setups: list[RemoverSetup],
        failed: dict[str, str],
        progress: Progress,
    ) -> Collected:
        collector = Collector(
            features=self.features,
            encoder=self.encoder,
            feature_map=self.feature_map,
            lpips=self.lpips,
            prompts=dataset.prompts(name),
            cache=self.cache,
            seed=self.seed_,
            dilation=self.policy.dilation,
        )
        active = list(setups)
        steps = range(0, len(ids), self.batch_size)
        for start in track(steps, description=f"remove {name}", progress=progress, unit="batch"):
            batch = ids[start : start + self.batch_size]
            images = dataset.images(batch)
            masks = torch.from_numpy(np.ascontiguousarray(dataset.masks(name, batch)))
            truth = dataset.truth(name, batch) if dataset.has_truth else None
            labels = [dataset.label(int(i)) for i in batch]
            collector.add_originals(images, masks, truth)
            for setup in list(active):
                try:
                    collector.add_removed(setup, images, masks, truth, labels)
                except RemoverError as error:
                    if self.on_error == "raise":
                        raise
                    failed[setup.label] = str(error)
                    active.remove(setup)
                    collector.drop(setup.label)
        rng = np.random.default_rng([self.seed_, 5, len(pool)])
        known = dataset.places(name, pool)
        if known is None:
            holes = borrowed_masks(collector.all_masks(), len(pool), rng)
        else:
            holes = torch.from_numpy(np.ascontiguousarray(known))
        context = []
        for start in range(0, len(pool), self.batch_size):
            batch = pool[start : start + self.batch_size]
            images, part = dataset.images(batch), holes[start : start + len(batch)]
            collector.add_comparison(images, part)
            if self.match:
                context.append(context_descriptor(images, part))
        data = collector.result(ids, pool)
        if self.match:
            descriptors = np.concatenate(context)
            chosen = match_context(data.context, descriptors)
            data.check = context_self_check(descriptors, data.comparison, random_state=self.seed_)
            data.comparison = data.comparison[chosen]
            data.comparison_ids = pool[chosen]
            if data.comparison_crops is not None and data.comparison_concepts is not None:
                data.comparison_crops = data.comparison_crops[chosen]
                data.comparison_concepts = data.comparison_concepts[chosen]
        return data

    def _score(
        self, dataset: RemovalDataset, name: str, data: Collected, number: int
    ) -> ClassResult:
        scorer = Scorer(
            encoder=self.encoder,
            prompts=dataset.prompts(name),
            name=name,
            concepts=dataset.concepts,
            n_bootstrap=self.n_bootstrap,
            confidence=self.confidence,
            published=self.published,
            seed=self.seed_ + number,
        )
        result = scorer.score(data)
        result.pictures = self._pictures(dataset, name, data)
        return result

    def _pictures(
        self, dataset: RemovalDataset, name: str, data: Collected, count: int = 3
    ) -> dict[str, Any]:
        """Show for each remover the images that it did worst and best on."""
        from unlearning.removal.gallery import gallery

        return gallery(
            dataset,
            name,
            data,
            count=count,
            cache=self.cache,
            seed=self.seed_,
            dilation=self.policy.dilation,
        )
