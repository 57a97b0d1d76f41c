"""What a loaded object has and answers; run with a folder, it loads all that lies there."""

import hashlib
import importlib
import json
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "worlds"))

from answers import bits
from cases import Breakable, model
from instances import features, images
from safetensors.torch import load_file
from sklearn.base import BaseEstimator, is_classifier
from torch import nn
from unlearning_world import net

from conceptlab import SplitModel

ROWS = {"BayesianZeroShot": 5, "PostHocCBM": 4, "SparseLinearHead": 4, "ShardedEnsemble": 6}
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SKIPPED = ("model", "split", "random_state")
"""Parameters that a file cannot hold."""


def answers_of(found):
    """Give what must be the same bit by bit: all parts, and answers where there are any."""
    kind = type(found).__name__
    parts = {k: v for k, v in vars_of(found).items() if k not in SKIPPED and k[0] != "_"}
    if isinstance(found, BaseEstimator):  # fitted parts; parameters are tested by their text
        parts = {k: v for k, v in parts.items() if k.endswith("_") and k != "data_"}
    if isinstance(found, BaseEstimator) and is_classifier(found):
        X = features(7, ROWS.get(kind, 6))
        parts["answer"] = getattr(found, "predict_proba", found.predict)(X)
        parts["predicted"] = found.predict(X)
    if hasattr(found, "inverse_transform"):
        U = parts["answer"] = found.transform(features())
        parts["decoded"] = found.inverse_transform(U)
    if kind == "CRAFT":
        parts["answer"], parts["maps"] = found.transform(images()), found.maps(images(2))
    if hasattr(found, "score") and kind == "ConceptBank":
        parts["answer"] = found.score(features(5, 4))
    if kind == "UnlearnResult":
        parts["model"] = found.model
    if hasattr(found, "to_frame"):
        parts["frame"] = found.to_frame()
    if kind == "FeatureStatistics":
        parts |= {"mean": found.mean, "covariance": found.covariance}
    return parts


def vars_of(found):
    """Attributes, also of an object with slots."""
    if hasattr(found, "__dict__"):
        return vars(found)
    return {name: getattr(found, name) for name in type(found).__slots__}


def plain(parts):
    """Turn bits to JSON values."""
    found = [(path, hashlib.sha256(repr(leaf).encode()).hexdigest()) for path, leaf in bits(parts)]
    return sorted(found)  # a file gives parts back in an order of its own


def load(kind, path):
    """Load one object, with the model or function that its file cannot hold."""
    if kind.__name__ == "CRAFT":
        return kind.load(path, SplitModel(first_model(path), at="0"))
    if kind.__name__ == "UnlearnResult":
        return kind.load(path, Breakable(*net(seed=5)))
    if kind.__name__ == "ShardedEnsemble":
        return kind.load(path, lambda: nn.Linear(6, 3))
    return kind.load(path)


def first_model(path):
    """Make the model of a folder; that of a golden one has the weights it was drawn with there.

    Draws of a first start differ between kernels, by the last bit.
    """
    made = model()
    if GOLDEN in Path(path).parents:
        made.load_state_dict(load_file(GOLDEN / "model.safetensors"))
    return made


def main(folder):
    """Load everything in the order of the list, and print what it answers."""
    warnings.simplefilter("ignore")
    found = {}
    for number, name in enumerate(json.loads((folder / "list.json").read_text())):
        module, kind = name.rsplit(".", 1)
        loaded = load(getattr(importlib.import_module(module), kind), folder / str(number))
        found[name] = plain(answers_of(loaded))
    heavy = sorted(m for m in sys.modules if m in ("torchvision", "open_clip", "matplotlib"))
    print(json.dumps([found, heavy]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
