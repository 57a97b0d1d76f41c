"""CRAFT: concepts of a model by recursive activation factorisation.

Fel, Picard, Béthune, Boissin, Vigouroux, Colin, Cadène and Serre, *CRAFT:
Concept Recursive Activation FacTorization for Explainability*, CVPR 2023
(arXiv 2211.10154).
"""

from __future__ import annotations

__all__ = ["CRAFT"]

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from conceptlab.errors import InputError
from conceptlab.explanation.mixing import MixingTest
from conceptlab.explanation.names import check_names
from conceptlab.explanation.tree import ConceptNode, ConceptTree
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.craft.checks import check_settings, not_split
from conceptlab.extractors.craft.fitted import Fitted
from conceptlab.extractors.craft.growing import carrying, code_fit, divide, factorise, plant
from conceptlab.extractors.craft.refits import over_refits, refit
from conceptlab.extractors.craft.views import ImageViews, check_labels
from conceptlab.models import SplitModel
from conceptlab.parameters import Rules, Whole
from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, draw_seed

if TYPE_CHECKING:
    from conceptlab.bank import ConceptBank
    from conceptlab.explanation import Explanation
    from conceptlab.importance import Importance

Target = int | str | Sequence[int] | np.ndarray | None
Split = Literal["auto"] | Callable[[ConceptNode, MixingTest], bool] | Sequence[int]

_OPTIONAL = ("importance_", "importances_", "decision_", "rank_selection_", "stability_")
_SHOWN = Rules(n_maps=Whole(0), n_patches=Whole(0))


class CRAFT(BaseEstimator):
    """Find, rank and locate the concepts that a classifier uses.

    Crops of the images are turned into activations A of a layer, factorised as
    A ≈ U W with U, W ≥ 0 (equation 1 of the paper); the rows of W are concepts.
    Sobol indices of the masked coefficients rank them (section 3.3), concepts
    that mix two things are refactorised at an earlier layer (section 3.2), and
    implicit differentiation of the factorisation shows where they are
    (section 3.4).

    Parameters
    ----------
    split : SplitModel
        The model cut at a layer, f = h∘g.
    n_concepts : int or "auto"
        Number of concepts k; ``"auto"`` chooses by held-out error and stability
        (:func:`conceptlab.extractors.rank.select_rank`), and more, up to four times as many,
        where these do not carry the model's decision.
    patch_size : int
        Side of a crop in pixels; it is resized to the size of the whole image.
    patches : {"grid", "random", "none"}
        Where rows come from, each its own estimand: a regular grid of crops
        with a fifth of overlap (as the authors' code does), random crops (as
        the paper says), or none, where every position of the whole image's map
        is a row (many times faster, and concepts keep their context).
    n_crops : int
        Crops an image, for ``patches="random"``.
    extractor : ConceptExtractor, optional
        What factorises; it is cloned. :class:`NMFConcepts` by default; take
        :class:`SemiNMF` for layers with negative activations (GELU, tokens).
    layers : sequence of str, optional
        Earlier layers for the recursion, the latest first.
    depth : int
        Levels of recursion; 0 for none. More than 0 needs `layers`, or takes the
        blocks before the cut.
    split_when : "auto", callable or sequence of int
        Which concepts are refactorised. ``"auto"``: the mixing test rejects one
        cluster at `alpha`. A callable gets (node, test); a sequence names roots.
    alpha : float
        Level of the mixing test, shared over the concepts of a level
        (Bonferroni).
    n_children : int
        Concepts of each refactorisation.
    importance : SobolImportance, optional
        How importance is estimated; cloned and seeded. By default 32 designs
        with Jansen's estimator, and the exact closed form where the head is
        linear in the coefficients.
    max_patches : int
        The most patches that stand for a concept in tests and pictures.
    storage : {"memory", "disk"}
        ``"disk"`` keeps activations in shards in a temporary folder and fits by
        ``fit_batches``, so that memory does not grow with the images.
    batch_size : int or "auto"
        Images or crops in a pass; ``"auto"`` takes what a CPU's caches or a GPU like
        and halves when memory runs out.
    random_state : int, RandomState, Generator or None
        Seed of crops, factorisation, designs and tests.
    n_refits : int
        Fits on resamples of the images, which tell how stable each concept is.
    interval : {"given", "refit"}
        What intervals of global importances cover: the choice of the images, given these
        concepts, or that of the concepts too, by at least 20 refits.

    Attributes
    ----------
    extractor_ : ConceptExtractor
        The fitted factorisation.
    components_ : numpy.ndarray of shape (k, n_channels)
        The concepts W.
    importance_ : Importance
        Local and global indices, when a target or images allowed them.
    importances_ : numpy.ndarray of shape (k,)
        The global ones.
    decision_ : Decision
        Whether the concepts carry the model's decision on the fitted images.
    stability_ : numpy.ndarray of shape (k,)
        Mean cosine of each concept with its partners in the refits.
    tree_ : ConceptTree
        The concepts and what they were split into.
    patches_ : numpy.ndarray of shape (n_rows, 4)
        Image, y, x and side in pixels of each row of the factorised matrix.
    patch_coefficients_ : numpy.ndarray of shape (n_rows, k)
        U of those rows.
    images_fingerprint_ : str
        Tells the fitted images from others.
    concept_names_ : list of str
        ``"concept 0"``, ...; may be replaced, see :meth:`rename`.
    rank_selection_ : RankSelection
        Only for ``n_concepts="auto"``.
    seed_ : int
        The seed that was used.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> with torch.random.fork_rng():
    ...     _ = torch.manual_seed(0)
    ...     body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU())
    ...     model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    ...     images = torch.rand(12, 3, 32, 32)
    >>> craft = CRAFT(SplitModel(model, at="0"), n_concepts=3, patch_size=16, random_state=0)
    >>> craft.fit(images, target=1).importances_.shape
    (3,)
    >>> tuple(craft.transform(images).shape)
    (12, 3)
    """

    tree_: ConceptTree

    def __init__(
        self,
        split: SplitModel,
        n_concepts: int | Literal["auto"] = 10,
        *,
        patch_size: int = 64,
        patches: str = "grid",
        n_crops: int = 16,
        extractor: ConceptExtractor | None = None,
        layers: Sequence[str] | None = None,
        depth: int = 0,
        split_when: Split = "auto",
        alpha: float = 0.05,
        n_children: int = 2,
        importance: Any = None,
        max_patches: int = 100,
        storage: str = "memory",
        batch_size: int | Literal["auto"] = "auto",
        random_state: RandomState = None,
        n_refits: int = 0,
        interval: str = "given",
    ) -> None:
        self.split = split
        self.n_concepts = n_concepts
        self.patch_size = patch_size
        self.patches = patches
        self.n_crops = n_crops
        self.extractor = extractor
        self.layers = layers
        self.depth = depth
        self.split_when = split_when
        self.alpha = alpha
        self.n_children = n_children
        self.importance = importance
        self.max_patches = max_patches
        self.storage = storage
        self.batch_size = batch_size
        self.random_state = random_state
        self.n_refits = n_refits
        self.interval = interval

    # ------------------------------------------------------------------- fit
    def fit(
        self,
        images: Any,
        y: Any = None,
        *,
        target: Target = "predicted",
        inputs: Any = None,
        progress: Progress = None,
    ) -> CRAFT:
        """Find the concepts of `images`, rank them, and split those that mix.

        Parameters
        ----------
        images : tensor, ndarray or sequence of images
            (n, 3, H, W), floats in [0, 1] or bytes; see
            :func:`conceptlab.datasets.as_image_batch`. Take images of one class to
            see the concepts of that class.
        y : ignored
            For pipelines.
        target : int, str, sequence of int, or None
            The output whose variance is explained: one for all (by number, or by
            its name in ``split.class_names``), each image's own prediction
            (``"predicted"``), or one for each image. None finds concepts without
            ranking them.
        inputs : mapping, tuple, or array, optional
            What the model takes beside the images, one entry for each: by name, such as
            ``{"age": ages}``, or in the order of its arguments after the image. They go
            with their image through every pass, also where they join it after the cut.
        progress : bool or callable, optional
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        CRAFT

        Raises
        ------
        InputError
            Images or settings that do not fit; `inputs` of another number
            (``CL-INPUT-SHAPE``); negative activations (``CL-INPUT-NEGATIVE``); more concepts
            than rows or channels.
        SplitError
            A layer that cannot be cut; see :class:`SplitModel`.
        """
        check_settings(self)
        seed = draw_seed(self.random_state)
        views = self._views(images, seed, inputs)
        views.check_split()
        if target is not None:  # a wrong target must not cost the whole fit
            views.check_target(target)
        rows = views.rows(self.split, storage=self.storage, progress=progress)
        self._fit_rows(rows, views, seed)
        self._grow(rows, views, target, progress)
        return self

    def fit_classes(
        self,
        images: Any,
        y: Any = None,
        *,
        targets: Sequence[int] | None = None,
        inputs: Any = None,
        progress: Progress = None,
    ) -> dict[int, CRAFT]:
        """Fit one CRAFT a class, with a single pass of g over all crops.

        Parameters
        ----------
        images : as for :meth:`fit`
            Images of all classes together.
        y : array-like of shape (n,), optional
            The class of each image; the model's own prediction by default, as
            in the paper.
        targets : sequence of int, optional
            Which classes; by default all that hold an image.
        inputs, progress
            As for :meth:`fit`.

        Returns
        -------
        dict of int to CRAFT
            A fitted clone for each class; ``patches_`` counts all the images given.
        """
        check_settings(self)
        seed = draw_seed(self.random_state)
        views = self._views(images, seed, inputs)
        views.check_split()
        labels = views.predictions() if y is None else check_labels(y, len(views))
        chosen = [int(t) for t in (np.unique(labels) if targets is None else targets)]
        absent = [t for t in chosen if not (labels == t).any()]
        if absent:
            raise InputError(
                f"No image of class {', '.join(map(str, absent[:5]))} among the {len(views)} "
                "given; leave it out of targets, or add images.",
                code="CL-INPUT-LABELS",
            )
        rows = views.rows(self.split, storage="memory", progress=progress)
        fitted = {}
        for t in chosen:
            part = views.subset(np.flatnonzero(labels == t))
            member = np.isin(views.index[:, 0], part.chosen)
            craft = clone(self).set_params(random_state=seed)
            craft._fit_rows(rows[member], part, seed, whole=views, index=views.index[member])
            craft._grow(rows[member], part, t, progress)
            fitted[t] = craft
        return fitted

    # ------------------------------------------------------------- use
    def transform(self, images: Any, *, pooled: bool = True, inputs: Any = None) -> Any:
        """Give the concept coefficients of whole images.

        Parameters
        ----------
        images, inputs : as for :meth:`fit`
            Any number of images.
        pooled : bool
            Whether to average over positions.

        Returns
        -------
        ndarray or tensor of shape (n, k), or (n, *positions, k) unless `pooled`
            U, of the kind, device and floating dtype of `images` (float32 for bytes, files
            and text); each position is coded by its own non-negative least squares.
        """
        check_is_fitted(self, "extractor_")
        views = ImageViews.of(images, self.split, self.batch_size, beside=inputs)
        U = views.coefficients(self.extractor_)
        if pooled and U.ndim > 2:
            U = U.mean(axis=tuple(range(1, U.ndim - 1)))
        return views.kind.restore(U)

    def activations(self, images: Any, *, inputs: Any = None) -> np.ndarray:
        """Give A (n, *positions, n_channels) of `images` with their `inputs`."""
        return ImageViews.of(images, self.split, self.batch_size, beside=inputs).activations()

    def estimate_importance(
        self,
        images: Any,
        *,
        target: Target = "predicted",
        inputs: Any = None,
        progress: Progress = None,
    ) -> Importance:
        """Estimate the importance of the fitted concepts on `images`.

        Parameters
        ----------
        images, target, inputs, progress
            As for :meth:`fit`.

        Returns
        -------
        Importance
            ``values`` (n, k), ``mean`` (k,), ``interval`` (k, 2), ...
        """
        check_is_fitted(self, "extractor_")
        views = ImageViews.of(images, self.split, self.batch_size, beside=inputs)
        fitted = self._fitted()
        coded = fitted.code(views, progress=progress)
        chosen = views.check_target(target, coded.logits)
        return fitted.importance_of(coded, chosen, progress=progress)

    def maps(self, images: Any, *, method: str = "implicit", **options: Any) -> Any:
        """Show where each concept is; see :func:`conceptlab.maps.concept_maps`.

        Returns
        -------
        numpy.ndarray of shape (n, k, H, W), float32
        """
        from conceptlab.maps import concept_maps

        check_is_fitted(self, "extractor_")
        return concept_maps(self.split, self.extractor_, images, method=method, **options)

    def explain(
        self,
        images: Any,
        *,
        target: Target = "predicted",
        maps: str | None = "implicit",
        n_maps: int = 64,
        n_patches: int = 8,
        patch_images: Any = None,
        inputs: Any = None,
        patch_inputs: Any = None,
        progress: Progress = None,
    ) -> Explanation:
        """Explain the model's answers on `images` by the fitted concepts.

        Parameters
        ----------
        images, target : as for :meth:`fit`
            What to explain, the fitted images or new ones, and the output to explain.
        maps : str or None
            Method of the concept maps, or None to leave them out.
        n_maps, n_patches : int
            How many images get maps and are kept; best patches shown of each concept.
        patch_images : as for :meth:`fit`, optional
            What the patches are cut from; `images` by default. Of other images than the
            fitted ones the best patches are sought, by a pass over their crops.
        inputs, patch_inputs, progress : as for :meth:`fit`
            What goes beside `images`, and beside `patch_images`.

        Returns
        -------
        Explanation
            With ``plot()``, ``to_frame()``, an HTML view and ``save()``.
        """
        from conceptlab.extractors.craft.explaining import explain_fitted
        from conceptlab.maps.concept import check_method

        check_is_fitted(self, "extractor_")
        _SHOWN.check({"n_maps": n_maps, "n_patches": n_patches})
        if maps is not None:
            check_method(maps)
        views = self._views(images, self.seed_, inputs)
        source = views
        if patch_images is not None:
            source = self._views(patch_images, self.seed_, patch_inputs)
        same = source.fingerprint() == self.images_fingerprint_
        return explain_fitted(
            self._fitted(),
            views,
            source,
            names=self.concept_names_,
            tree=self.tree_,
            stability=getattr(self, "stability_", None),
            places=[self.patches_[root.patches] for root in self.tree_.roots] if same else None,
            target=target,
            maps=maps,
            n_maps=n_maps,
            n_patches=n_patches,
            progress=progress,
            patches=self.patches if views.has_pictures else "none",
            patch_size=self.patch_size,
        )

    def rename(self, names: Sequence[str]) -> CRAFT:
        """Give the concepts names, in the order of ``components_``; returns the estimator."""
        check_is_fitted(self, "extractor_")
        names = check_names(names, len(self.components_))
        self.tree_.rename(names)
        self.concept_names_ = names
        return self

    def to_bank(self) -> ConceptBank:
        """Give the concepts as a :class:`ConceptBank` in the space of the cut layer."""
        check_is_fitted(self, "extractor_")
        return self.extractor_.to_bank(names=self.concept_names_, space=self.split.fingerprint)

    # --------------------------------------------------------- save and load
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write concepts, tree, importance and settings to a folder; the model is not written.

        A function given as `split_when` is not written either; what it split is.
        """
        from conceptlab.extractors.craft.files import CraftParts, write_parts

        check_is_fitted(self, "extractor_")
        parts = CraftParts(
            settings=self.get_params(deep=False),
            space=self.split.fingerprint,
            layer=self.split.layer,
            extractor=self.extractor_,
            importance=getattr(self, "importance_", None),
            tree=self.tree_,
            names=self.concept_names_,
            patches=self.patches_,
            patch_coefficients=self.patch_coefficients_,
            images=self.images_fingerprint_,
            seed=self.seed_,
            stability=getattr(self, "stability_", None),
            decision=getattr(self, "decision_", None),
        )
        return write_parts(path, parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], split: SplitModel) -> CRAFT:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder.
        split : SplitModel
            The same model at the same layer.

        Raises
        ------
        SpaceMismatchError
            If `split` is another model or layer.
        CheckpointError
            If the folder is damaged, newer, or something else.
        """
        from conceptlab.extractors.craft.files import read_parts

        if not isinstance(split, SplitModel):
            raise not_split(split)
        parts = read_parts(path, space=split.fingerprint, layer=split.layer)
        craft = cls(split, **parts.settings)
        craft._take_extractor(parts.extractor, parts.seed)
        craft.images_fingerprint_ = parts.images
        craft.patches_ = parts.patches
        craft.patch_coefficients_ = parts.patch_coefficients
        craft.concept_names_ = list(parts.names)
        craft.tree_ = parts.tree
        for name in ("stability", "decision"):
            if getattr(parts, name) is not None:
                setattr(craft, f"{name}_", getattr(parts, name))
        if parts.importance is not None:
            craft._take_importance(parts.importance)
        return craft

    # ---------------------------------------------------------------- inside
    def _views(self, images: Any, seed: int, inputs: Any = None) -> ImageViews:
        names = ("patches", "patch_size", "n_crops")
        cuts = {name: getattr(self, name) for name in names}
        return ImageViews.of(images, self.split, self.batch_size, beside=inputs, seed=seed, **cuts)

    def _factoriser(self, seed: int) -> ConceptExtractor:
        from conceptlab.extractors.nmf import NMFConcepts

        base = NMFConcepts(n_init=5) if self.extractor is None else self.extractor
        return clone(base).set_params(random_state=seed)

    def _fit_rows(
        self,
        rows: Any,
        views: ImageViews,
        seed: int,
        *,
        whole: ImageViews | None = None,
        index: np.ndarray | None = None,
    ) -> None:
        """Factorise rows; `index` counts the images of `whole`."""
        for name in _OPTIONAL:
            self.__dict__.pop(name, None)  # of an earlier fit
        extractor = self._factoriser(seed)
        k = self.n_concepts
        if k == "auto":
            from conceptlab.extractors.rank import select_rank

            self.rank_selection_ = select_rank(views.sample(rows, seed), random_state=seed)
            k = carrying(self.split, extractor, rows, views, self.rank_selection_.n_concepts)
        extractor.set_params(n_concepts=int(k))
        factorise(extractor, rows)
        self._take_extractor(extractor, seed)
        self.patches_ = views.index if index is None else index
        self.images_fingerprint_ = (whole or views).fingerprint()
        self.patch_coefficients_ = views.code(rows, self.extractor_)
        self.concept_names_ = [f"concept {i}" for i in range(len(self.components_))]

    def _take_extractor(self, extractor: ConceptExtractor, seed: int) -> None:
        self.extractor_ = extractor
        self.components_ = np.asarray(extractor.components_)
        self.n_features_in_ = int(self.components_.shape[1])
        self.seed_ = seed

    def _take_importance(self, importance: Importance) -> None:
        self.importance_ = importance
        self.importances_ = np.asarray(importance.mean)

    def _fitted(self) -> Fitted:
        return Fitted(self.split, self.extractor_, self.importance, self.seed_)

    def _grow(self, rows: Any, views: ImageViews, target: Target, progress: Progress) -> None:
        """Plant the tree of a factorisation that was just made; rank it and divide what mixes."""
        fitted, codes = self._fitted(), self.patch_coefficients_
        self.tree_ = plant(fitted, self.concept_names_, codes, self.max_patches)
        often = max(self.n_refits, 20) if self.interval == "refit" else self.n_refits
        refits = refit(fitted, rows, self.patches_[:, 0], often, progress)
        if refits:
            self.stability_ = np.mean([again.cosine for again in refits], axis=0)
        if target is None:
            return
        coded = code_fit(fitted, views, rows=rows, coefficients=codes, progress=progress)
        self.decision_ = coded.decision
        chosen = views.check_target(target, coded.logits)
        found = fitted.importance_of(coded, chosen, progress=progress)
        if self.interval == "refit":
            found = over_refits(found, refits, fitted, views, rows)
        self._take_importance(found)
        self.tree_.rank(found.mean, found.interval)
        if self.depth > 0:
            divide(
                fitted,
                self.tree_,
                views,
                found.target,
                patches=self.patches_,
                layers=self.layers,
                depth=self.depth,
                factoriser=self._factoriser(self.seed_),
                n_children=self.n_children,
                split_when=self.split_when,
                alpha=self.alpha,
                limit=self.max_patches,
            )
