"""CRAFT under wrong settings, with new images, refitted, and read from a file."""

import numpy as np
import pytest
import torch
from planted import ColorNet, color_images
from torch import nn

from conceptlab.errors import InputError
from conceptlab.extractors import CRAFT, KMeansConcepts, SemiNMF
from conceptlab.importance import SobolImportance, sample_design
from conceptlab.models import SplitModel


@pytest.fixture(scope="module")
def images():
    return color_images()[0]


@pytest.fixture(scope="module")
def split():
    return SplitModel(ColorNet(), at="early")


def craft_of(split, **settings):
    return CRAFT(split, **{"n_concepts": 3, "patch_size": 8, "random_state": 0, **settings})


WRONG = [
    ("n_concepts", True, "TYPE"),
    ("patch_size", 2.5, "RANGE"),
    ("patch_size", "a", "RANGE"),
    ("n_crops", 1.5, "TYPE"),
    ("depth", -1, "RANGE"),
    ("depth", 1.5, "TYPE"),
    ("alpha", 2, "RANGE"),
    ("alpha", "x", "TYPE"),
    ("n_children", 1, "RANGE"),
    ("max_patches", 0, "RANGE"),
    ("layers", "early", "TYPE"),
    ("split_when", "atuo", "OPTION"),
    ("split_when", [99], "OPTION"),
    ("split_when", 5, "OPTION"),
    ("extractor", "nmf", "TYPE"),
    ("importance", "sobol", "TYPE"),
]


@pytest.mark.parametrize(("name", "value", "code"), WRONG, ids=[f"{n}={v}" for n, v, _ in WRONG])
def test_wrong_settings_are_named_before_the_model_runs(split, images, name, value, code):
    with pytest.raises(InputError, match=rf"(?s){name}.*\[CL-INPUT-{code}\]$"):
        craft_of(split, **{name: value}).fit(images, target=0)


class TestOtherImages:
    """Images that were not fitted."""

    def test_patches_come_from_the_images_they_are_cut_of(self, split, images):
        craft = craft_of(split).fit(images, target=0)
        order = np.random.default_rng(1).permutation(len(images))
        fitted = craft.explain(images, target=0, maps=None, n_patches=4)
        moved = craft.explain(images[order], target=0, maps=None, n_patches=4)
        for old, new in zip(fitted.patches, moved.patches, strict=True):
            assert np.allclose(
                np.sort([patch.mean() for patch in old]), np.sort([patch.mean() for patch in new])
            )

    def test_fewer_images_than_fitted(self, split, images):
        craft = craft_of(split).fit(images, target=0)
        few = craft.explain(images[:2], target=0, maps=None)
        assert all(patch.shape == (3, 8, 8) for row in few.patches for patch in row)
        known = craft.explain(images[:2], target=0, maps=None, patch_images=images)
        whole = craft.explain(images, target=0, maps=None)
        for left, right in zip(known.patches, whole.patches, strict=True):
            np.testing.assert_array_equal(np.stack(left), np.stack(right))

    def test_one_class_of_many(self, split, images):
        labels = np.arange(len(images)) % 2
        fitted = craft_of(split, n_concepts=2).fit_classes(images, labels, targets=[1])[1]
        own = fitted.explain(images[labels == 1], target=1, maps=None, n_patches=2)
        known = fitted.explain(images, target=1, maps=None, n_patches=2)
        for left, right in zip(own.patches, known.patches, strict=True):
            assert np.allclose(
                np.sort([patch.mean() for patch in left]),
                np.sort([patch.mean() for patch in right]),
            )


def test_a_second_fit_forgets_the_first(split, images):
    craft = craft_of(split).fit(images, target=0)
    craft.rank_selection_ = "of n_concepts='auto'"
    craft.set_params(n_concepts=2).fit(images, target=None)
    for name in ("importance_", "importances_", "rank_selection_"):
        assert not hasattr(craft, name)


class TestFiles:
    """What a folder keeps."""

    @pytest.mark.parametrize("own_design", [False, True])
    def test_the_importance_that_was_asked_for(self, split, images, tmp_path, own_design):
        sampler = sample_design(64, 3, random_state=5) if own_design else "halton"
        asked = SobolImportance(n_design=64, sampler=sampler, exact=False, n_bootstrap=20)
        craft = craft_of(split, importance=asked).fit(images, target=0)
        again = CRAFT.load(craft.save(tmp_path / "c"), split)
        np.testing.assert_array_equal(
            again.estimate_importance(images, target=0).values, craft.importance_.values
        )

    def test_settings_and_numpy_numbers(self, split, images, tmp_path):
        craft = craft_of(
            split, n_concepts=np.int64(3), extractor=SemiNMF(), split_when=(1,), patch_size=8
        ).fit(images, target=0)
        again = CRAFT.load(craft.save(tmp_path / "c"), split)
        assert (again.n_concepts, list(again.split_when)) == (3, [1])
        assert isinstance(again.extractor, SemiNMF)
        np.testing.assert_array_equal(again.fit(images, target=0).components_, craft.components_)

    def test_a_model_in_place_of_its_cut(self, split, images, tmp_path):
        path = craft_of(split).fit(images, target=0).save(tmp_path / "c")
        with pytest.raises(InputError, match="SplitModel"):
            CRAFT.load(path, ColorNet())


def test_a_model_that_gives_nan_is_named(images):
    broken = ColorNet()
    with torch.no_grad():
        next(m for m in broken.modules() if isinstance(m, nn.Conv2d)).weight[0] = torch.nan
    with pytest.raises(InputError, match=r"model gives NaN.*\[CL-INPUT-NONFINITE\]$"):
        craft_of(SplitModel(broken, at="early")).fit(images, target=0)


def test_targets_by_name(images):
    names = ["warm", "cold"]
    split = SplitModel(ColorNet(), at="early")
    split.f(images[:1])
    names = [f"class {i}" for i in range(split.n_outputs)]
    named = SplitModel(ColorNet(), at="early", class_names=names)
    by_name = craft_of(named).fit(images, target=names[1])
    by_number = craft_of(named).fit(images, target=1)
    np.testing.assert_array_equal(by_name.importances_, by_number.importances_)
    with pytest.raises(InputError, match=r"class 1.*\[CL-INPUT-TARGET\]$"):
        craft_of(named).fit(images, target="class one")


def test_labels_and_names_of_the_wrong_kind(split, images):
    for y in (["a"] * len(images), np.full(len(images), 0.5)):
        with pytest.raises(InputError, match=r"\[CL-INPUT-LABELS\]$"):
            craft_of(split).fit_classes(images, y)
    craft = craft_of(split).fit(images, target=0)
    for names in ("abc", ["a", "", "b"]):
        with pytest.raises(InputError, match=r"\[CL-INPUT-NAMES\]$"):
            craft.rename(names)
    with pytest.raises(InputError, match=r"n_maps.*\[CL-INPUT-RANGE\]$"):
        craft.explain(images, n_maps=-1)


def test_hard_clusters_have_no_gradient(split, images):
    craft = craft_of(split, extractor=KMeansConcepts()).fit(images, target=0)
    with pytest.raises(InputError, match=r"upsample.*\[CL-INPUT-OPTION\]$"):
        craft.maps(images[:2])
    assert craft.maps(images[:2], method="upsample").shape[:2] == (2, 3)


@pytest.mark.parametrize("option", [{"window": 0}, {"stride": 0}])
def test_a_window_of_nothing(split, images, option):
    craft = craft_of(split).fit(images, target=None)
    with pytest.raises(InputError, match=r"window.*\[CL-INPUT-RANGE\]$"):
        craft.maps(images[:1], method="occlusion", **option)
