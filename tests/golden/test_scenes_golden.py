"""Scenes keep their bits from version to version."""

import hashlib

import numpy as np

from conceptlab.datasets import load_scenes

KNOBS = {"hats": 0.5, "occlusion": 0.5}


def test_bytes_of_some_scenes():
    scenes = load_scenes("train", 70, seed=123, **KNOBS)
    digest = hashlib.sha256(scenes.pixels.tobytes()).hexdigest()
    assert digest == "d575b4e1c2649e2f4c001621ec997d0e5f764015d102adfcb4f058dcc1c7482b"
    assert (
        hashlib.sha256("\n".join(scenes.captions).encode()).hexdigest()
        == "df2f291cc62ecebf59ec471c3480161d61d58aee7fcf6f4df62b9c90c0a9f72b"
    )
    assert (
        hashlib.sha256(np.packbits(scenes.masks).tobytes()).hexdigest()
        == "b90d955fdc189d219b2d9a44ea4c77b109ed0832e3beab0845763cc6b62ff2c9"
    )


def test_the_first_scene_in_words():
    assert load_scenes("test", 3, seed=0).captions == [
        "a photo of a large yellow checked heart in the centre, a small yellow striped "
        "cross in the centre and a small blue striped star on the left on snow",
        "a photo of a large blue striped star on the left, a small purple dotted square "
        "on the right and a small cyan dotted ring in the centre on grass",
        "a photo of a large red striped star on the right, a small pink striped star on "
        "the left and a small green plain cross on the left in the sky",
    ]


def test_statistics():
    scenes = load_scenes("val", 1500, seed=7)
    share = scenes.attributes.mean(axis=0)
    named = dict(zip(scenes.attribute_names, share, strict=True))
    assert abs(scenes.images.mean() - 0.5366) < 0.002
    assert np.allclose(np.bincount(scenes.y) / 1500, 0.1, atol=0.03)
    assert np.allclose(
        np.bincount(scenes.objects["present"].sum(axis=1))[1:] / 1500, 1 / 3, atol=0.04
    )
    for ground in ("sky", "grass", "sand", "night", "snow"):
        assert abs(named[ground] - 0.2) < 0.04
    quiet = load_scenes("val", 300, seed=7, noise=0.0)
    grain = scenes[:300].images - quiet.images
    inside = (quiet.images > 0.15) & (quiet.images < 0.85)
    assert abs(grain[inside].std() - 0.03) < 0.001
    assert abs(grain[inside].mean()) < 0.001
