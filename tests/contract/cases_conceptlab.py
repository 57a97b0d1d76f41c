"""Quick calls of what ``conceptlab`` and ``attribution`` offer."""

import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from cases import breakable_function, case, model
from instances import features, images, small_bank, small_encoder
from rich.console import Console

import attribution.explain
import attribution.faithfulness
import attribution.stability
import conceptlab.plot as plots
from attribution import ConceptGradients
from conceptlab import (
    CRAFT,
    ActivationStore,
    ConceptBank,
    EncodeImages,
    NMFConcepts,
    SobolImportance,
    SplitModel,
    arrays,
    batching,
    datasets,
    errors,
    load_encoder,
    maps,
    progress,
    provenance,
    seeds,
    vocabulary,
    zeroshot,
)
from conceptlab.assets import embedded_card, embedded_open_clip
from conceptlab.datasets.resize import Fit
from conceptlab.doctor import show
from conceptlab.encoders import BaseEncoder, EmbeddingCache, OpenClipEncoder, Preprocess
from conceptlab.extractors import match_concepts, nnls, select_rank, stability
from conceptlab.importance import (
    HeadOnCoefficients,
    ablate,
    decision,
    directional_derivatives,
    sample_design,
)
from conceptlab.io.files import Bundle, atomic_write, read_bundle, write_bundle
from conceptlab.models import Patches, crop, pooled_activations
from conceptlab.models.load import Normalize, load_model, load_state_dict
from conceptlab.plot.generators import before_after_grid, score_distributions, share_bars
from conceptlab.plot.scenes import scene_counterfactuals, scene_grid
from conceptlab.vocabulary import ClassConcepts
from conceptlab.zeroshot import BayesianZeroShot

TEXTS = {"newt": ["a tail", "wet skin", "four legs"], "frog": ["no tail", "a wide mouth"]}


# --------------------------------------------------------------------- makings
def split():
    """Cut a fresh model."""
    cut = SplitModel(model(), at="0")
    cut.g(images(1))
    return cut


@cache
def extractor():
    """Find two concepts of six features."""
    return NMFConcepts(2, random_state=0).fit(features())


@cache
def fitted_craft():
    """Fit on the images of the tests."""
    return CRAFT(split(), 2, patch_size=8, depth=0, random_state=0).fit(images(), target=0)


@cache
def scenes():
    """Four rendered scenes."""
    return datasets.load_scenes("test", 4, seed=0)


@cache
def zero_shot():
    """Fit on the vectors of texts."""
    return BayesianZeroShot(ClassConcepts(TEXTS).embed(encoder())).fit()


@cache
def encoder():
    """Make an encoder whose texts have different directions."""
    from conceptlab.encoders import CallableEncoder

    def letters(texts):
        return torch.tensor([[1.0 + t.count(letter) for letter in "aeint"] for t in texts])

    def colours(x):
        flat = x.mean(dim=(2, 3))
        return torch.cat([flat, flat[:, :2] ** 2], dim=1)

    return CallableEncoder(colours, letters, dim=5, fingerprint="letters")


def store():
    """Keep rows in memory."""
    found = ActivationStore()
    found.append(features())
    return found


def concepts():
    """Texts of two classes."""
    return ClassConcepts(TEXTS)


def head(U):
    """Give outputs that are no linear function of coefficients."""
    U = U.double()
    pooled = U.mean(dim=tuple(range(1, U.ndim - 1))) if U.ndim > 2 else U
    return torch.stack([pooled.sum(1) ** 2, pooled[:, 0] * 3 + pooled[:, 1] ** 2], dim=1)


@cache
def explanation():
    """Explain the images of the tests."""
    return fitted_craft().explain(images(3), target=0, patch_images=images())


@cache
def faithful():
    """Measure faithfulness of a small function."""
    return attribution.faithfulness.faithfulness(
        head, features(5, 3), [3.0, 2.0, 1.0], target=0, n_random=2, n_bootstrap=5, random_state=0
    )


@cache
def folder():
    """Make a folder that stays until the tests end, for files to read and write."""
    place = tempfile.TemporaryDirectory()
    kept.append(place)
    path = Path(place.name)
    for number, part in enumerate(("cat", "dog")):
        from PIL import Image

        (path / "pictures" / part).mkdir(parents=True)
        picture = np.full((8, 8, 3), 40 * number, np.uint8)
        Image.fromarray(picture).save(path / "pictures" / part / "0.png")
    write_bundle(path / "bundle", Bundle("Kind", {"a": 1}, {"x": np.arange(3.0)}))
    vocabulary.write_concepts(TEXTS, path / "concepts.json")
    torch.save({"weight": torch.ones(2)}, path / "weights.pt")
    return path


kept: list = []


# ------------------------------------------------------------------ foundation
case(errors.unknown_name, lambda c: ("rule", "tirm", ["trim", "mean"]))
case(arrays.as_floats, lambda c: c(features()), "numpy")
case(arrays.real_array, lambda c: ([1.0, 2.0],))
case(arrays.as_numpy, lambda c: c(features()), "numpy")
case(arrays.as_tensor, lambda c: c(features()), "tensor")
case(arrays.check_finite, lambda c: c(features()), "numpy")
case(arrays.check_scale, lambda c: c(features()), "numpy")
case(arrays.check_features, lambda c: ((NMFConcepts(2), c(features())), {"reset": True}), "library")
case(arrays.like_input, lambda c: (lambda self, X: X,))
case(arrays.resolve_device, lambda c: ("cpu",))
case(seeds.draw_seed, lambda c: (7,))
case(seeds.numpy_generator, lambda c: (7,))
case(seeds.torch_generator, lambda c: (7,))
case(progress.track, lambda c: ((range(3),), {"description": "count", "progress": False}))
case(progress.in_notebook, lambda c: (False,))
case(provenance.provenance, lambda c: ((), {"seed": 3}))
case(provenance.fingerprint, lambda c: ({"a": features()}, model()))
case(batching.check_batch_size, lambda c: ("auto",))
case(batching.iter_batches, lambda c: ((lambda a, b: (a, b), 5), {"batch_size": 2}))
case(
    batching.run_batched, lambda c: ((lambda x: 2 * x, c(features())), {"batch_size": 7}), "tensor"
)
case(write_bundle, lambda c: (folder() / "written", Bundle("Kind", {"a": 1}, {"x": np.ones(3)})))
case(read_bundle, lambda c: (folder() / "bundle", "Kind"))
case(atomic_write, lambda c: (folder() / "file", "text"))
case(
    show,
    lambda c: (
        {
            "version": "1",
            "python": "3",
            "machine": "Linux",
            "libraries": {},
            "optional": {},
            "packages": {},
            "device": "cpu",
            "devices": [],
            "threads": 1,
            "healthy": True,
        },
        Console(file=io.StringIO()),
    ),
)

# ------------------------------------------------------------------------ data
case(datasets.as_image_batch, lambda c: c(images()), "tensor")
case(datasets.load_scenes, lambda c: ("test", 2, 5))
case(datasets.load_image_folder, lambda c: folder() / "pictures")
case(datasets.load_embedded_classifier)
case(datasets.load_embedded_gan)
case(datasets.load_embedded_judge)
case(embedded_card, lambda c: ("judge",))
case(embedded_open_clip)
case(load_encoder, lambda c: (small_encoder(),))
case(load_model, lambda c: ("embedded",))
case(load_state_dict, lambda c: folder() / "weights.pt")

case(datasets.Scenes.__getitem__, lambda c: (scenes(), [2, 0]))
case(datasets.Scenes.without, lambda c: (scenes(), 0))
case(datasets.Scenes.attribute_masks, lambda c: (scenes(), "red"))
case(
    datasets.FolderDataset.__getitem__,
    lambda c: (datasets.load_image_folder(folder() / "pictures"), 1),
)
case(Normalize.forward, lambda c: (Normalize(), torch.as_tensor(c(images()))), "tensor")

# --------------------------------------------------------- encoders and banks
case(Preprocess.__call__, lambda c: (Preprocess(Fit(8, 8)), torch.as_tensor(c(images()))), "tensor")
case(Preprocess.__call__, lambda c: (Preprocess(Fit(8, 8)), [*images()]), variant="arrays")
case(Preprocess.__call__, lambda c: (Preprocess(Fit(8, 8)), images()), variant="array")
case(Preprocess.tensor, lambda c: (Preprocess(Fit(8, 8)), torch.as_tensor(c(images()))), "tensor")
case(
    EmbeddingCache.encode_image,
    lambda c: (EmbeddingCache(folder() / "cache"), encoder(), c(images())),
    "like",
)
case(BaseEncoder.encode_image, lambda c: (encoder(), c(images())), "like")
case(OpenClipEncoder.encode_maps, lambda c: (load_encoder("embedded"), c(images(2))), "like")
case(BaseEncoder.encode_text, lambda c: (encoder(), ["a tail", "wet skin"]))
case(EncodeImages.transform, lambda c: (EncodeImages(encoder()), c(images())), "like")
case(ConceptBank.score, lambda c: (small_bank(), c(features())), "like")
case(
    ConceptBank.score,
    lambda c: ((small_bank(), c(features())), {"similarity": "cosine"}),
    "like",
    variant="cosine",
)
case(ConceptBank.nearest, lambda c: (small_bank(), c(features()[0])), "numpy")
case(ConceptBank.similarity, lambda c: (small_bank(),))

# ---------------------------------------------------------------------- models
case(SplitModel.g, lambda c: (split(), c(images())), "library")
case(SplitModel.h, lambda c: (cut := split(), c(cut.g(images()))), "library")
case(SplitModel.f, lambda c: (split(), c(images())), "library")
case(SplitModel.predict, lambda c: (split(), c(images())), "numpy")
case(SplitModel.check, lambda c: (split(), c(images(2))), "numpy", tolerance=np.inf)
case(SplitModel.spatial, lambda c: (split(), c(np.ones((2, 7, 7, 3)))), "like")
case(SplitModel.to_positions, lambda c: (cut := split(), c(cut.g(images()))), "like")
case(SplitModel.from_positions, lambda c: (split(), c(np.ones((2, 7, 7, 6)))), "like")
case(SplitModel.suggest, lambda c: (model(), images(2)))
case(SplitModel.at_layer, lambda c: (split(), "1"))
case(crop, lambda c: (c(images()), np.array([1, 2, 3, 5])), "numpy")
case(pooled_activations, lambda c: ((split(), c(images())), {"patch_size": 8}), "numpy")

case(Patches.places, lambda c: (Patches("random", patch_size=8, n_crops=3, seed=1), 2, 16, 16))
case(ActivationStore.append, lambda c: (ActivationStore(), c(features())), "self")
case(ActivationStore.__getitem__, lambda c: (store(), slice(3, 9)))

# ------------------------------------------------- extractors and importance
case(nnls, lambda c: (c(features()), c(features(3, 6))), "like")
case(match_concepts, lambda c: (c(features(3, 6)), c(features(3, 6)[::-1])), "numpy")
case(stability, lambda c: ([c(features(3, 6)), c(features(3, 6)[::-1])],), "numpy")
case(
    select_rank,
    lambda c: ((c(features(24, 8)), [1, 2]), {"n_fits": 2, "n_blocks": 2, "random_state": 0}),
    "numpy",
    tolerance=100,
)
case(sample_design, lambda c: ((8, 3), {"random_state": 0}))
case(
    SobolImportance.__call__,
    lambda c: (
        (
            SobolImportance(n_design=8, n_bootstrap=3, random_state=0),
            breakable_function(head),
            c(features(5, 3)),
        ),
        {"target": 0},
    ),
    "numpy",
    tolerance=20,
)
case(
    ablate,
    lambda c: (
        (breakable_function(head), c(features(5, 3))),
        {"target": 1, "n_bootstrap": 3, "random_state": 0},
    ),
    "numpy",
)
case(
    directional_derivatives,
    lambda c: (
        (head, c(features(5, 3)), c(np.eye(3)[:2])),
        {"target": 1, "n_random": 9, "random_state": 0},
    ),
    "numpy",
)
case(
    HeadOnCoefficients.rest,
    lambda c: (
        HeadOnCoefficients.from_extractor(split(), extractor()),
        c(features(4, 2)),
        c(features(4, 6)),
    ),
    "tensor",
)
case(
    decision,
    lambda c: (
        HeadOnCoefficients.from_extractor(split(), extractor()),
        c(np.ones((3, 7, 7, 2))),
        c(np.ones((3, 7, 7, 6))),
    ),
    "numpy",
)
case(
    HeadOnCoefficients.__call__,
    lambda c: (HeadOnCoefficients.from_extractor(split(), extractor()), c(features(4, 2))),
    "tensor",
)
case(
    HeadOnCoefficients.mask_outputs,
    lambda c: (
        HeadOnCoefficients.from_extractor(split(), extractor()),
        c(np.ones((7, 7, 2))),
        c(features(4, 2)),
    ),
    "tensor",
)
case(
    HeadOnCoefficients.decode,
    lambda c: (HeadOnCoefficients.from_extractor(split(), extractor()), c(features(4, 2))),
    "tensor",
)

# ------------------------------------------------------------------------ maps
for method, options in {
    "implicit": {},
    "upsample": {},
    "occlusion": {"window": 8},
    "rise": {"n_masks": 6},
}.items():
    case(
        maps.concept_maps,
        lambda c, m=method, o=options: (  # type: ignore[misc]
            (split(), extractor(), c(images(2))),
            {"method": m, "random_state": 0, **o},
        ),
        "numpy",
        variant=method,
    )
case(maps.energy_pointing, lambda c: (c(images()[:, 0]), c.of(images()[:, 0] > 0.5)), "numpy")
case(maps.pointing_game, lambda c: (c(images()[:, 0]), c.of(images()[:, 0] > 0.5)), "numpy")

# ----------------------------------------------------------------------- craft
case(
    CRAFT.fit,
    lambda c: (
        (CRAFT(split(), 2, patch_size=8, depth=0, random_state=0), c(images())),
        {"target": 0},
    ),
    "self",
)
case(
    CRAFT.fit_classes,
    lambda c: (
        (CRAFT(split(), 2, patch_size=8, depth=0, random_state=0), c(images()), [0, 0, 0, 1, 1, 1]),
        {"targets": [1]},
    ),
    "self",
)
case(CRAFT.transform, lambda c: (fitted_craft(), c(images())), "like")
case(CRAFT.maps, lambda c: (fitted_craft(), c(images(2))), "numpy")
case(CRAFT.estimate_importance, lambda c: (fitted_craft(), c(images(3))), "numpy", tolerance=20)
case(
    CRAFT.explain, lambda c: ((fitted_craft(), c(images(3))), {"target": 0}), "numpy", tolerance=20
)
case(CRAFT.to_bank, lambda c: (fitted_craft(),))
case(
    attribution.explain.explain,
    lambda c: (
        (model(), c(images())),
        {
            "layer": "0",
            "n_concepts": 2,
            "patch_size": 8,
            "depth": 0,
            "random_state": 0,
            "target": 0,
            "faithfulness": False,
            "importance": SobolImportance(n_design=8, n_bootstrap=0),
        },
    ),
    "numpy",
    tolerance=100,
)
case(attribution.explain.recommended_layer, lambda c: (model(), images(2)))
case(attribution.explain.measure, lambda c: (fitted_craft(), images(3), explanation()))
case(
    attribution.faithfulness.faithfulness,
    lambda c: (
        (breakable_function(head), c(features(5, 3)), c([3.0, 2.0, 1.0])),
        {
            "target": 0,
            "n_random": 2,
            "n_bootstrap": 5,
            "logits": c(features(5, 2)),
            "random_state": 0,
        },
    ),
    "numpy",
)
case(attribution.faithfulness.gini, lambda c: c(features(1, 5)[0]), "numpy")
case(attribution.faithfulness.hoyer, lambda c: c(features(4, 5)), "numpy")
case(
    attribution.stability.stability,
    lambda c: (
        (NMFConcepts(2), c(features(20, 5))),
        {"n_repeats": 2, "n_null": 3, "random_state": 0},
    ),
    "numpy",
    tolerance=1000,
)
for method in ("integrated_gradients", "gradient_x_input", "saliency"):
    case(
        ConceptGradients.coefficients,
        lambda c, m=method: (  # type: ignore[misc]
            (ConceptGradients(split(), extractor(), m, n_steps=3), c(features(4, 2))),
            {"target": 1},
        ),
        "like",
        variant=method,
    )
    case(
        ConceptGradients.inputs,
        lambda c, m=method: (  # type: ignore[misc]
            (ConceptGradients(split(), extractor(), m, n_steps=3), c(images(2))),
            {"concept": 1},
        ),
        "like",
        variant=method,
        tolerance=5,
    )
case(
    ConceptGradients.completeness,
    lambda c: (
        (ConceptGradients(split(), extractor(), n_steps=3), c(features(4, 2))),
        {"target": 1},
    ),
    "numpy",
    tolerance=np.inf,
)

# ------------------------------------------------------------------ vocabulary
case(vocabulary.audit, lambda c: (concepts(), encoder()))
case(vocabulary.class_text, lambda c: ("apple_pie",))
case(vocabulary.compose, lambda c: ((concepts(), 2, 2), {"random_state": 0}))
case(vocabulary.concept_margins, lambda c: (concepts(), encoder()))
case(
    vocabulary.default_request, lambda c: (vocabulary.ConceptRequest("newt", ("frog",), (), 3, 8),)
)
case(vocabulary.distinct_sets, lambda c: ((5, 2, 3), {"random_state": 0}))
case(vocabulary.fill_prompt, lambda c: ("cgbc", "tree_frog", "green skin"))
case(vocabulary.filter_margins, lambda c: (concepts(), encoder()))
case(
    vocabulary.from_attributes,
    lambda c: (c([[1, 0.2], [0.1, 1]]), ["robin", "crow"], ["red", "black"]),
    "numpy",
)
case(vocabulary.from_pairs, lambda c: ([("newt", "a tail"), ("frog", "no tail")],))
case(vocabulary.from_random_words, lambda c: ((["newt", "frog"], 3), {"random_state": 0}))
case(vocabulary.from_triples, lambda c: ([("robin", "has part", "a red breast")],))
case(
    vocabulary.from_vocabulary,
    lambda c: ((["newt", "frog"], encoder(), 2), {"terms": ["a tail", "red eyes", "nine toes"]}),
)
case(vocabulary.hard_negatives, lambda c: (["newt", "frog", "toad"], encoder(), 1))
case(vocabulary.load_generator, lambda c: (lambda prompts: prompts,))
case(vocabulary.load_vocabulary, lambda c: (["colours"],))
case(vocabulary.parse_concepts, lambda c: ("1. a tail\n2. wet skin",))
case(vocabulary.plain_prompt, lambda c: ("cgbc", "tree_frog"))
case(vocabulary.read_concepts, lambda c: folder() / "concepts.json")
case(vocabulary.write_concepts, lambda c: (concepts(), folder() / "written.json"))
case(vocabulary.select_diverse, lambda c: (concepts(), 1, encoder()))
case(
    vocabulary.synthesize,
    lambda c: (
        (["newt", "frog"], lambda prompts: ["a tail\nred eyes"] * len(prompts), encoder()),
        {"n_concepts": 1, "max_rounds": 2, "random_state": 0},
    ),
)

case(vocabulary.ClassNames.find, lambda c: (vocabulary.ClassNames(["newt"]), "two newts"))
case(
    vocabulary.ConceptFilter.reason,
    lambda c: (vocabulary.ConceptFilter(["newt", "frog"]), "like a newt"),
)

# -------------------------------------------------------------------- zero-shot
for rule in zeroshot.RULES:
    if rule != "mean_embedding":
        case(zeroshot.pool, lambda c, r=rule: (c(10 * features(4, 7)), r), "like", variant=rule)  # type: ignore[misc]
        case(
            zeroshot.pool_weights,
            lambda c, r=rule: (c(10 * features(4, 7)), r),  # type: ignore[misc]
            "like",
            variant=rule,
        )
case(
    zeroshot.pool,
    lambda c: ((c(10 * features(4, 7)), "trim"), {"prior": c(features(1, 7)[0])}),
    "like",
    variant="prior",
)
case(zeroshot.calibration_error, lambda c: (c.of([0, 1]), c([[0.75, 0.25], [0.75, 0.25]])), "numpy")
case(zeroshot.fit_temperature, lambda c: (lambda T: (T - 2.0) ** 2,))
case(BayesianZeroShot.predict_proba, lambda c: (zero_shot(), c(features(8, 5))), "like")
case(BayesianZeroShot.decision_function, lambda c: (zero_shot(), c(features(8, 5))), "like")
case(BayesianZeroShot.predict, lambda c: (zero_shot(), c(features(8, 5))), "numpy")
case(BayesianZeroShot.concept_posterior, lambda c: (zero_shot(), c(features(8, 5))), "like")
case(BayesianZeroShot.explain, lambda c: (zero_shot(), c(features(8, 5))), "numpy")

# ----------------------------------------------------------------------- plots
case(plots.audit_plot, lambda c: (vocabulary.audit(concepts(), encoder()),))
case(before_after_grid, lambda c: ({"before": images(2), "after": images(2)},))
case(score_distributions, lambda c: ({"before": c(features(1, 9)[0])}, "red"), "numpy")
case(share_bars, lambda c: ({"judge: removed": 0.9, "guide: removed": 0.8},))
case(plots.blend_maps, lambda c: (c(images()[0]), c(images(1)[0]), [0, 2]), "numpy")
case(plots.concept_tree, lambda c: (fitted_craft().tree_,))
case(plots.faithfulness_curves, lambda c: (faithful(),))
case(plots.importance_bars, lambda c: (fitted_craft().importance_,))
case(plots.intervention_plot, lambda c: ({"random": (np.arange(3), c([0.2, 0.4, 0.9]))},), "numpy")
case(
    plots.map_grid,
    lambda c: ((c(images(1)), c(images(1)), ["a", "b", "c"]), {"concepts": [1]}),
    "numpy",
)
case(
    plots.map_pairs,
    lambda c: ((c(images(1)), c(images(1)), c(images(1)), ["a", "b", "c"]), {"concepts": [1]}),
    "numpy",
)
case(plots.patch_grid, lambda c: ([[images()[0]], [images()[1]]], ["a", "b"]))
case(plots.waterfall, lambda c: (c([1.0, -0.5]), ["a", "b"]), "numpy")
case(plots.weight_map, lambda c: (c([[1.0, 0.0], [0.5, -1.0]]), ["a", "b"], ["x", "y"]), "numpy")
case(scene_grid, lambda c: ((scenes(),), {"n": 2}))
case(scene_counterfactuals, lambda c: ((scenes(),), {"n": 1}))
