"""Every exception to the contract, each with its reason. Keep it short."""

ABSTRACT = {
    "ConceptBottleneck": "base class; the fit of the head belongs to the subclasses",
    "ConceptExtractor": "base class; fit and as_module belong to the subclasses",
    "Unlearner": "base class; the methods are its subclasses",
}
"""Estimators that cannot be made."""

SKLEARN_CHECKS: dict[str, dict[str, str]] = {}
"""Checks of scikit-learn that an estimator may fail: {estimator: {check: reason}}."""

DOCSTRINGS: dict[str, str] = {}
"""Public objects whose docstring may break a rule: {"name: code": reason}."""

PRINTS = {
    "conceptlab/bench/__main__.py": "prints the table of a benchmark",
    "conceptlab/bench/_memory.py": "a process of its own; prints the figure that its parent reads",
    "conceptlab/assets/training.py": "prints how a training that takes minutes goes on",
}
"""Files that may print."""

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

UNLEARNERS: dict[str, dict[str, str]] = {
    "images only": {
        "BoundaryShrink": "moves inputs along a gradient",
        "UNSIR": "learns noise images",
    },
}
"""Methods of forgetting that do not take every kind of input: {kind: {method: reason}}."""
