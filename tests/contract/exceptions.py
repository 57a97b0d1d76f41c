"""Every exception to the contract, each with its reason. Keep it short."""

ABSTRACT = {
    "Bottleneck": "base class; the fit of the head belongs to the subclasses",
    "ConceptExtractor": "base class; fit and as_module belong to the subclasses",
    "Unlearner": "base class; the methods are its subclasses",
}
"""Estimators that cannot be made."""

SKLEARN_CHECKS: dict[str, dict[str, str]] = {
    "SparseCBM": {
        "check_sample_weight_equivalence_on_dense_data": "thresholds are learned on random "
        "batches, with noise drawn for every row; repeated rows draw other noise"
    }
}
"""Checks of scikit-learn that an estimator may fail: {estimator: {check: reason}}."""

PARAMETERS: dict[str, str] = {}
"""Parameters that may be answered by an error of another library."""

DOCSTRINGS: dict[str, str] = {}
"""Public objects whose docstring may break a rule."""

EXAMPLES = {
    "conceptlab.cli.main": "ends the process",
    "conceptlab.doctor.show": "prints what is installed here",
    "conceptlab.encoders.huggingface.TransformersEncoder": "needs weights; a test makes small ones",
    "conceptlab.vocabulary.generators.TransformersGenerator": "needs weights, too",
    "unlearning.removal.paired.Lpips": "needs weights, too",
}
"""Public objects without an example that runs; errors have pages of their own."""

PRINTS = {
    "conceptlab/bench/__main__.py": "prints the table of a benchmark",
    "conceptlab/bench/_all.py": "prints which benchmark runs, and what became of it",
    "conceptlab/bench/_memory.py": "a process of its own; prints the figure that its parent reads",
    "conceptlab/assets/training.py": "prints how a training that takes minutes goes on",
}
"""Files that may print."""

OPENS = {
    "conceptlab/io/files.py": "the one place that writes",
    "conceptlab/io/places.py": "a file by which a run holds its folder",
    "conceptlab/io/reading.py": "the one place that reads, within bounds",
    "conceptlab/_lazy.py": "the stub of a package, which lies beside it",
    "conceptlab/bench/_activations.py": "activations that it has written itself",
    "conceptlab/bench/_all.py": "the log that it has written itself, and the table of its scripts",
    "conceptlab/bench/_memory.py": "figures of the kernel",
    "conceptlab/vocabulary/words.py": "a file of the package",
}
"""Files that may open files themselves."""

NO_ALL = {
    "conceptlab/__main__.py": "runs the command line; nothing to import",
    "attribution/bench/__init__.py": "a folder of benchmarks, found by name",
    "bottlenecks/bench/__init__.py": "a folder of benchmarks, found by name",
    "conceptlab/bench/__main__.py": "runs a benchmark; nothing to import",
}
"""Files without ``__all__``."""

ADAPTERS = {
    "conceptlab/plot/figures.py": "derives from matplotlib's Figure; imported when one is made",
}
"""Files that may import a heavy package at the top: one adapter for each package."""

PRIVATE_NAMES = {
    # torch: no public way to a tensor's version, to a module's hooks, to a base of all norms,
    # to an operator's schema, or to tensors without data that are given on
    "_version",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_NormBase",
    "_schema",
    "_C",
    "_disabled_torch_function_impl",
    "_make_wrapper_subclass",
    "_is_mkldnn_bf16_supported",
    "_image_features",  # what subclasses of BaseEncoder give; a benchmark puts a clock around it
}
"""Names with an underscore that may be used outside their file."""

UNLEARNERS: dict[str, dict[str, str]] = {
    "images only": {
        "BoundaryShrink": "moves inputs along a gradient",
        "UNSIR": "learns noise images",
    },
}
"""Methods of forgetting that do not take every kind of input: {kind: {method: reason}}."""

FUNCTIONS = {
    "conceptlab.bench.cpu_time": "answers with a time, which is never the same",
    "conceptlab.cli.main": "ends the process",
    "conceptlab.distributed.extraction.extract": "writes a folder; its own tests do",
    "conceptlab.distributed.world.init": "joins processes; its own tests do",
    "conceptlab.doctor.diagnose": "imports every library, seconds; its own test does",
    "conceptlab.encoders.registry.register_encoder": "is there to change the registry",
    "unlearning.audit.shadows.lira": "trains shadow models; its own tests do",
    "unlearning.audit.shadows.u_lira": "trains shadow models; its own tests do",
    "conceptlab.training.descent.descend": "changes the tensors it is given; its own tests do",
}
"""Public functions without a case."""

_ENGINE = "a part of the training engine; changes what it is given; its own tests do"
CLASSES = {
    "conceptlab.batching.BatchMemory": "one number, which iter_batches keeps",
    "conceptlab.distributed.extraction.ActivationParts": "reads files; has tests",
    "conceptlab.distributed.shards.Shards": "one batch of images after the other; has tests",
    "conceptlab.encoders.base.Encoder": "a protocol; BaseEncoder is under contract",
    "conceptlab.training.average.Average": _ENGINE,
    "conceptlab.training.interrupt.DeferredInterrupt": _ENGINE,
    "conceptlab.training.loop.Engine": _ENGINE,
    "conceptlab.training.parts.GlobalRandomness": _ENGINE,
    "conceptlab.training.parts.Tensors": _ENGINE,
    "conceptlab.vocabulary.generators.TransformersGenerator": "needs a language model; has tests",
    "unlearning.gan.mapper.LatentMapper": "a network's layers",
    "unlearning.removal.datasets.base.RemovalDataset": "base class; SceneRemovals has cases",
    "unlearning.removal.datasets.coco.CocoRemovals": "reads files; has tests",
    "unlearning.removal.datasets.folder.MaskFolder": "reads files; has tests",
    "unlearning.removal.removers.base.Remover": "base class; its subclasses are under contract",
    "unlearning.removal.removers.pipeline.PipelineRemover": "needs a pipeline; has tests",
    "unlearning.removal.removers.torchscript.TorchScriptRemover": "needs a file; has tests",
}
"""Public classes without a case."""

CHANGES = {
    "conceptlab.arrays.check_features": "notes the number of features in the estimator",
    "conceptlab.datasets.scenes.Scenes.attribute_masks": "keeps what it has computed",
    "conceptlab.importance.head.HeadOnCoefficients.__call__": "notes how long a row has been",
    "conceptlab.importance.sufficiency.decision": "notes how long a row of the head has been",
    "conceptlab.importance.head.HeadOnCoefficients.mask_outputs": "notes how long a row has been",
}
"""Functions that may change an argument."""

DTYPES: dict[str, dict[str, str]] = {}
"""Kinds of arrays that are answered by a teaching error: {case: {kind: reason}}."""

_DRAWS = "draws; figures are one thread's business"
_FITS = "fits the object itself"
_LONG = "a long job that trains and fits, not inference"
_WRITES = "writes the same place"
THREADS = {
    "conceptlab.io.files.atomic_write": _WRITES,
    "conceptlab.io.files.write_bundle": _WRITES,
    "conceptlab.vocabulary.files.write_concepts": _WRITES,
    "conceptlab.extractors.craft.estimator.CRAFT.fit": _FITS,
    "unlearning.distances.moments.FeatureStatistics.update": _FITS,
    "conceptlab.extractors.craft.estimator.CRAFT.fit_classes": _LONG,
    "conceptlab.extractors.rank.select_rank": _LONG,
    "attribution.stability.stability": _LONG,
    "bottlenecks.evaluation.evaluate": _LONG,
    "bottlenecks.leakage.measure_leakage": _LONG,
    "unlearning.gan.attacks.prompt_attack": _LONG,
    "unlearning.gan.attacks.relearn": _LONG,
    "unlearning.removal.protocol.RemovalBenchmark.run": _LONG,
    **dict.fromkeys(
        (
            "conceptlab.plot.audit.audit_plot",
            "conceptlab.plot.bottlenecks.intervention_plot",
            "conceptlab.plot.bottlenecks.waterfall",
            "conceptlab.plot.bottlenecks.weight_map",
            "conceptlab.plot.curves.faithfulness_curves",
            "conceptlab.plot.generators.before_after_grid",
            "conceptlab.plot.generators.score_distributions",
            "conceptlab.plot.generators.share_bars",
            "conceptlab.plot.importance.importance_bars",
            "conceptlab.plot.maps.map_grid",
            "conceptlab.plot.patches.patch_grid",
            "conceptlab.plot.scenes.scene_counterfactuals",
            "conceptlab.plot.scenes.scene_grid",
            "conceptlab.plot.tree.concept_tree",
        ),
        _DRAWS,
    ),
}
"""Functions that are not called from several threads at once."""

UNBROKEN = dict.fromkeys(
    (
        "conceptlab.extractors.craft.estimator.CRAFT.to_bank",
        "conceptlab.importance.head.HeadOnCoefficients.decode",
        "conceptlab.importance.head.HeadOnCoefficients.rest",
        "conceptlab.models.split.SplitModel.at_layer",
        "conceptlab.models.split.SplitModel.from_positions",
        "conceptlab.models.split.SplitModel.spatial",
        "conceptlab.models.split.SplitModel.to_positions",
        "conceptlab.plot.importance.importance_bars",
        "conceptlab.plot.tree.concept_tree",
        "conceptlab.provenance.fingerprint",
        "unlearning.audit.quantising.quantised_copy",
        "unlearning.certificate.verify_certificate",
    ),
    "takes a model, or what holds one, and never runs it",
)
"""Cases in which no pass of a model can break."""

_TORCH = "a piece of networks and of trainings; takes tensors alone"
_RUNS = "runs the model on what it is given"
NO_ARRAYS = {
    ("bottlenecks.gates.", None, ""): _TORCH,
    ("bottlenecks.losses.", None, ""): _TORCH,
    ("conceptlab.encoders.preprocess.Preprocess.tensor", None, ""): _TORCH,
    ("conceptlab.models.load.Normalize.forward", None, ""): _TORCH,
    ("unlearning.audit.quantising.quantise", None, ""): _TORCH,
    ("unlearning.gan.losses.", None, ""): _TORCH,
    ("unlearning.removal.paired.Lpips.", None, ""): _TORCH,
    ("unlearning.heads.", None, ""): _RUNS,
    ("unlearning.classes.sharding.ensemble.ShardedEnsemble.predict", 1, "complex numbers"): _RUNS,
    (
        "conceptlab.models.split.SplitModel.predict",
        1,
        "a mapping",
    ): "texts, and none of them",
    ("unlearning.removal.removers.", None, ""): "RemoverSetup.run has looked at it",
    ("conceptlab.plot.maps.", None, ""): "draws",
    ("conceptlab.arrays.as_numpy", None, ""): "takes texts, too",
    ("bottlenecks.concept_relevance.concept_entropy", 1, "None"): "labels can be left out",
    ("bottlenecks.evaluation.evaluate", 3, "None"): "the truth of concepts can be left out",
    ("bottlenecks.splits.split_rows", 1, "None"): "labels can be left out",
    ("conceptlab.bank.core.ConceptBank.nearest", 1, "a text"): "a concept by its name",
}
"""What takes anything in place of an array: {(start of the name, argument, kind): reason}."""
