"""load_scenes: arguments, errors, shapes, pictures."""

import numpy as np
import pytest

from conceptlab.datasets import SPECIES, Scenes, Species, load_scenes
from conceptlab.errors import InputError


def test_shapes_and_kinds(global_state_untouched):
    scenes = load_scenes("train", 5, seed=1, size=32)
    assert isinstance(scenes, Scenes)
    assert scenes.images.shape == (5, 3, 32, 32)
    assert scenes.images.dtype == np.float32
    assert scenes.images.min() >= 0
    assert scenes.images.max() <= 1
    assert scenes.pixels.dtype == np.uint8
    assert scenes.masks.shape == scenes.amodal_masks.shape == (5, 3, 32, 32)
    assert scenes.y.dtype == np.int64
    assert scenes.attributes.shape == (5, len(scenes.attribute_names))
    assert scenes.object_attributes.shape == (5, 3, len(scenes.attribute_names))
    assert scenes.class_attributes.shape == (10, len(scenes.attribute_names))
    assert len(scenes) == len(list(scenes)) == len(scenes.captions) == 5
    assert len(scenes[1:3]) == 2
    assert len(scenes[scenes.y == -1]) == 0
    assert "n=5" in repr(scenes)
    with pytest.raises(IndexError):
        scenes[5]


def test_one_scene():
    scenes = load_scenes("test", 3, seed=0)
    one = scenes[1]
    assert one.y == scenes.y[1]
    assert set(one.attributes) == set(np.array(scenes.attribute_names)[scenes.attributes[1]])
    assert np.array_equal(one.masks, scenes.masks[1])


def test_number_of_objects():
    for wanted in (1, 2, 3, (2, 3)):
        low, high = (wanted, wanted) if isinstance(wanted, int) else wanted
        count = load_scenes("train", 60, seed=0, n_objects=wanted).objects["present"].sum(axis=1)
        assert count.min() == low
        assert count.max() == high


def test_own_species():
    mine = [SPECIES[9], Species("mine", "green", "ring", "plain", "sky", hats=1.0), "arvo"]
    scenes = load_scenes("train", 90, seed=0, species=mine)
    assert scenes.class_names == ["jura", "mine", "arvo"]
    assert np.array_equal(scenes.objects["hat"][:, 0], scenes.y == 1)
    free = load_scenes("train", 9, seed=0, species=None)
    assert free.class_names == []
    assert set(free.y) == {-1}
    assert free.class_attributes.shape[0] == 0


def test_backgrounds():
    plain = load_scenes("train", 4, seed=0, background="plain", noise=0.0)
    free = ~plain.masks.any(axis=1)
    assert np.ptp(plain.images[0][:, 0, :]) == 0
    assert not plain.attributes[:, -6:-1].any()
    assert free.any()
    two = load_scenes("train", 40, seed=0, background=["sand", "night"])
    shown = two.attributes[:, [two.attribute_names.index(b) for b in ("sand", "night")]]
    assert np.all(shown.sum(axis=1) == 1)
    assert "background" not in load_scenes("train", 4, seed=0, background="plain").captions[0]


def test_occlusion_knob():
    def covered(occlusion):
        scenes = load_scenes("train", 150, seed=0, n_objects=2, occlusion=occlusion)
        return np.mean(scenes.masks.sum(axis=(1, 2, 3)) < scenes.amodal_masks.sum(axis=(1, 2, 3)))

    assert covered(0.0) < 0.1
    assert covered(1.0) > 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"n": 2.5}, "n must be a whole number"),
        ({"size": 8}, "size must be a whole number of at least 16"),
        ({"start": -1}, "start must be"),
        ({"noise": 2}, "noise must be a number of at least 0 and at most 1"),
        ({"n_objects": 4}, "within 1 to 3"),
        ({"n_objects": (3, 1)}, "within 1 to 3"),
        ({"background": "gras"}, "Did you mean 'grass'"),
        ({"background": []}, "no background"),
        ({"species": "avro"}, "Unknown species"),
        ({"species": ["avro"]}, "Did you mean 'arvo'"),
        ({"species": []}, "non-empty list"),
        ({"species": ["arvo", "arvo"]}, "must differ"),
        ({"combinations": "unseen"}, "Did you mean 'seen'"),
        ({"seed": -3}, "must be >= 0"),
    ],
)
def test_bad_arguments_are_explained(arguments, message):
    with pytest.raises(InputError, match=message):
        load_scenes(**{"n": 2, **arguments})


def test_bad_species_and_removals():
    with pytest.raises(InputError, match="Unknown colour 'rde'"):
        Species("x", "rde", "circle", "plain")
    with pytest.raises(InputError, match="share in"):
        Species("x", "red", "circle", "plain", hats=3)
    scenes = load_scenes("train", 2, seed=0)
    for what, message in (
        (3, "numbers 0 to 2"),
        ("cap", "Unknown part"),
        (np.ones((2, 2)), "bool array"),
    ):
        with pytest.raises(InputError, match=message):
            scenes.without(what)
    with pytest.raises(InputError, match="Unknown attribute"):
        scenes.attribute_masks("rod")
    with pytest.raises(InputError, match="removable"):
        scenes.without_attribute("grass")


def test_without_attribute():
    scenes = load_scenes("train", 60, seed=2)
    clean = scenes.without_attribute("red")
    changed = np.any(clean != scenes.images, axis=(1, 2, 3))
    assert np.array_equal(changed, scenes.attributes[:, 0])
    assert np.array_equal(scenes.without_attribute("hat"), scenes.images)


def test_pictures():
    from conceptlab.plot.scenes import scene_counterfactuals, scene_grid

    scenes = load_scenes("test", 3, seed=0)
    figure = scene_grid(scenes, n=5, columns=2, masks=True)
    assert sum(len(ax.images) for ax in figure.axes) == 3
    rows = scene_counterfactuals(scenes, n=2)
    shown = sum(len(ax.images) for ax in rows.axes)
    assert shown == 4 + scenes[:2].objects["present"].sum()


def test_sampled_captions(global_state_untouched):
    scenes = load_scenes("train", 60, seed=0, hats=0.5)
    captions, true = scenes.sample_captions(3)
    assert len(captions) == 60
    assert true.shape == (60, 60)
    assert true.diagonal().all()
    assert not true.all()
    again, _ = scenes.sample_captions(3)
    assert captions == again
    assert captions != scenes.sample_captions(4)[0]
    red = [j for j, caption in enumerate(captions) if caption.split() == ["red"]]
    assert all(np.array_equal(true[j], scenes.attributes[:, 0]) for j in red)
