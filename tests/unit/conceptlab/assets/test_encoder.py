"""The encoder that ships with the package, through the same door as all others."""

import numpy as np
import pytest

from conceptlab import ConceptBank, load_encoder
from conceptlab.datasets import load_scenes


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(device="cpu")


def test_it_knows_colours(encoder, global_state_untouched):
    scenes = load_scenes("test", 300, seed=1, n_objects=(1, 1))
    names = [name for name in ("red", "green", "blue") if name in scenes.attribute_names]
    assert names
    bank = ConceptBank.from_texts(encoder, names, templates="a photo of something {}.")
    features = encoder.encode_image(scenes.images)
    assert features.shape == (300, encoder.dim)
    scores = bank.score(features, space=encoder.fingerprint)
    columns = [list(scenes.attribute_names).index(name) for name in names]
    truth = scenes.attributes[:, columns]
    one = truth.sum(axis=1) == 1
    assert (scores[one].argmax(1) == truth[one].argmax(1)).mean() > 0.9


def test_scenes_go_in_as_they_are(encoder):
    scenes = load_scenes("test", 5, seed=0)
    np.testing.assert_array_equal(encoder.encode_image(scenes), encoder.encode_image(scenes.images))
    np.testing.assert_allclose(
        encoder.encode_image(scenes.pixels), encoder.encode_image(scenes.images), atol=1e-6
    )
    assert load_encoder("embedded", device="cpu").fingerprint == encoder.fingerprint
