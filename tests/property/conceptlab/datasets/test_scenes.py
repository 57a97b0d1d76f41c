"""Scenes: what must hold of any of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.datasets import ATTRIBUTE_NAMES, FAMILIES, SPECIES, load_scenes
from conceptlab.datasets.captions import CLAIM_FAMILIES, claims_hold, draw_claims, full_claims, word
from conceptlab.datasets.world import BACKGROUNDS, COMBINATIONS, HELD_OUT

seeds = st.integers(0, 2**31 - 2)
splits = st.sampled_from(["train", "val", "test"])


def _dilate(mask):
    """Grow by one pixel in all eight directions."""
    grown = mask.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            shifted = np.zeros_like(mask)
            height, width = mask.shape[-2:]
            ys, xs = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
            yt, xt = slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0))
            shifted[..., ys, xs] = mask[..., yt, xt]
            grown |= shifted
    return grown


@given(seeds, splits, st.integers(1, 70), st.integers(0, 70))
def test_a_scene_depends_on_split_seed_and_number_alone(seed, split, n, extra):
    short = load_scenes(split, n, seed=seed)
    long = load_scenes(split, n + extra, seed=seed)
    assert np.array_equal(short.pixels, long.pixels[:n])
    assert short.captions == long.captions[:n]
    late = load_scenes(split, 1, seed=seed, start=n - 1)
    assert np.array_equal(late.pixels[0], short.pixels[-1])


@given(seeds)
def test_subsets_are_painted_the_same(seed):
    scenes = load_scenes("train", 90, seed=seed, hats=0.5)
    rows = [80, 3, 3, 17]
    assert np.array_equal(scenes[rows].pixels, scenes.pixels[rows])
    assert np.array_equal(scenes[rows].without(0), scenes.without(0)[rows])
    assert np.array_equal(scenes[80].image, scenes.images[80])
    assert scenes[-1].caption == scenes.captions[89]


@given(seeds)
def test_splits_and_seeds_differ(seed):
    sets = [
        load_scenes(split, 4, seed=s).pixels
        for s in (seed, seed + 1)
        for split in ("train", "val", "test")
    ]
    for i, one in enumerate(sets):
        for other in sets[:i]:
            assert not any(np.array_equal(a, b) for a in one for b in other)


@given(seeds, st.integers(48, 96), st.sampled_from([0.0, 0.05]))
def test_taking_an_object_out_changes_its_own_pixels_only(seed, size, noise):
    scenes = load_scenes("test", 12, seed=seed, size=size, noise=noise, hats=0.5, occlusion=0.6)
    full = scenes.amodal_masks
    for _ in range(8):  # horns and tips fade out over some pixels
        full = _dilate(full)
    for j in range(3):
        changed = np.any(scenes.without(j) != scenes.images, axis=1)
        assert not np.any(changed & ~full[:, j])
        present = scenes.objects["present"][:, j]
        assert not changed[~present].any()
        # ... and almost all of what was seen of it: an object may resemble its ground.
        seen = scenes.masks[:, j]
        assert (changed & seen)[present].sum() >= 0.8 * seen[present].sum()
    hat = np.any(scenes.without("hat") != scenes.images, axis=1)
    assert not np.any(hat & ~full[:, 0])
    assert np.array_equal(hat.any(axis=(1, 2)), scenes.objects["hat"][:, 0])


@given(seeds)
def test_what_an_object_hid_is_seen_without_it(seed):
    scenes = load_scenes("test", 40, seed=seed, n_objects=2, occlusion=1.0, noise=0.0)
    alone = scenes.without(0)
    hidden = scenes.amodal_masks[:, 1] & scenes.masks[:, 0]
    nothing = scenes.without(np.broadcast_to([True, True, False], (40, 3)).copy())
    revealed = np.any(alone != nothing, axis=1)
    assert hidden.sum() > 0
    assert revealed[hidden].mean() > 0.9


@given(seeds)
def test_masks_are_disjoint_and_within_the_full_ones(seed):
    scenes = load_scenes("val", 20, seed=seed, hats=0.5, occlusion=0.8)
    assert scenes.masks.sum(axis=1).max() <= 1
    assert not np.any(scenes.masks & ~scenes.amodal_masks)
    area = scenes.masks.sum(axis=(2, 3))
    assert np.all((area > 0) == scenes.objects["present"])
    assert np.all(area[:, :1] >= area[:, 1:])


@given(seeds)
def test_no_object_leaves_the_frame(seed):
    scenes = load_scenes("train", 60, seed=seed, hats=1.0, species=None)
    one = scenes.objects[scenes.objects["present"]]
    reach = 1.1 * one["radius"]  # the tips of a star
    top = np.where(one["hat"], 1.52, 1.1) * one["radius"]
    assert (one["x"] - reach).min() >= 0
    assert (one["x"] + reach).max() <= 1
    assert (one["y"] - top).min() >= 0
    assert (one["y"] + reach).max() <= 1


@given(seeds)
def test_attribute_masks_are_the_objects_that_have_it(seed):
    scenes = load_scenes("train", 16, seed=seed, hats=0.5)
    table = scenes.attributes
    everything = np.zeros((16, 64, 64), dtype=int)
    for name in ATTRIBUTE_NAMES:
        mask = scenes.attribute_masks(name)
        shown = table[:, ATTRIBUTE_NAMES.index(name)]
        if name not in BACKGROUNDS:
            assert np.array_equal(mask.any(axis=(1, 2)), shown), name
        if name in FAMILIES["colour"] or name in BACKGROUNDS or name == "hat":
            everything += mask
    assert np.all(everything == 1)


@given(seeds, st.booleans())
def test_claims_are_true_and_captions_say_them(seed, free):
    scenes = load_scenes("train", 40, seed=seed, hats=0.5, species=None if free else "default")
    layout = scenes.layout
    rng = np.random.default_rng(seed)
    for claims in (full_claims(layout), draw_claims(layout, rng)):
        assert claims_hold(claims, layout).diagonal().all()
        assert np.all((claims >= 0).any(axis=(1, 2)))
    for i, caption in enumerate(scenes.captions):
        words = set(caption.replace(",", "").split())
        said = {name for name in ATTRIBUTE_NAMES if name in words}
        expected = set(np.array(ATTRIBUTE_NAMES)[scenes.attributes[i]].tolist())
        assert said == expected


def test_claims_hold_is_what_a_loop_finds():
    scenes = load_scenes("val", 25, seed=3, hats=0.5)
    layout = scenes.layout
    claims = draw_claims(layout, np.random.default_rng(0))
    expected = np.zeros((25, 25), dtype=bool)
    for j in range(25):
        for i in range(25):
            fine = claims[j, 0, -1] in (-1, layout.background[i])
            for row in claims[j]:
                stated = {
                    f: v for f, v in zip(CLAIM_FAMILIES[:-1], row[:-1], strict=True) if v >= 0
                }
                objects = [o for o in layout.objects[i] if o["present"]]
                fine &= any(all(o[f] == v for f, v in stated.items()) for o in objects)
            expected[j, i] = fine
    assert np.array_equal(claims_hold(claims, layout), expected)


def test_words_of_one_claim():
    rows = np.full((3, 3, 7), -1, dtype=np.int8)
    rows[0, 0, 0], rows[1, 0, 1], rows[2, 0, 6] = 1, 0, 3
    assert word(rows) == [
        "a photo of an orange object",
        "a photo of a circle",
        "a photo of an object at night",
    ]


@given(seeds)
def test_a_knob_changes_only_what_it_names(seed):
    plain = load_scenes("train", 30, seed=seed)
    noisy = load_scenes("train", 30, seed=seed, noise=0.1)
    assert np.array_equal(plain.objects, noisy.objects)
    assert np.array_equal(plain.masks, noisy.masks)
    dressed = load_scenes("train", 30, seed=seed, hats=1.0)
    for field in ("colour", "shape", "texture", "size", "x", "radius", "angle"):
        assert np.array_equal(plain.objects[field][:, 0], dressed.objects[field][:, 0])
    homely = load_scenes("train", 30, seed=seed, context_correlation=1.0)
    homes = [BACKGROUNDS.index(SPECIES[y].background) for y in homely.y]
    assert np.array_equal(homely.layout.background, homes)
    assert np.array_equal(plain.objects, homely.objects)


@given(seeds)
def test_labels_follow_the_signature(seed):
    scenes = load_scenes("train", 50, seed=seed)
    truth = scenes.class_attributes[scenes.y]
    assert np.all(scenes.main_attributes[truth])
    assert truth.sum(axis=1).tolist() == [3] * 50
    radius = np.where(scenes.objects["present"], scenes.objects["radius"], 0)
    assert np.all(radius.argmax(axis=1) == 0)


@pytest.mark.parametrize("choice", ["seen", "held_out"])
def test_combinations_are_kept_apart(choice):
    scenes = load_scenes("train", 800, seed=5, species=None, combinations=choice)
    objects = scenes.objects[scenes.objects["present"]]
    triples = np.stack([objects[f] for f in ("colour", "shape", "texture")], axis=-1)
    shown = {tuple(t) for t in triples.tolist()}
    allowed = {tuple(t) for t in COMBINATIONS[np.isin(HELD_OUT, choice == "held_out")].tolist()}
    assert shown <= allowed
    assert len(shown) > 0.9 * len(allowed)


def test_every_value_is_held_out_in_part():
    held = COMBINATIONS[HELD_OUT]
    assert len(held) == 32
    for column, count in ((0, 8), (1, 8), (2, 4)):
        values, times = np.unique(held[:, column], return_counts=True)
        assert len(values) == count
        assert np.all(times == 32 // count)


def test_the_cube_needs_colour_and_shape_and_texture():
    signatures = [s.attributes for s in SPECIES]
    for signature in signatures[:8]:
        for family in range(3):
            twins = [
                o
                for o in signatures
                if o != signature and all(o[k] == signature[k] for k in range(3) if k != family)
            ]
            assert twins
    assert len(set(signatures)) == len(SPECIES)
    uses = np.array([sum(name in s for s in signatures) for name in ATTRIBUTE_NAMES])
    assert (uses == 4).sum() == 6
    assert (uses == 1).sum() == 4
