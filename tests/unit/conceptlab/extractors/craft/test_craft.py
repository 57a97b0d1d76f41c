import numpy as np
import pytest
import torch
from planted import ColorNet, color_images
from sklearn.base import clone
from split_models import SmallCNN, small_vit

from conceptlab.errors import CheckpointError, InputError, SpaceMismatchError, SplitError
from conceptlab.extractors import CRAFT, NMFConcepts, SemiNMF
from conceptlab.models import SplitModel


@pytest.fixture(scope="module")
def images():
    return color_images()[0]


def craft_at(layer, k, **settings):
    settings = {"patch_size": 8, "random_state": 0, **settings}
    return CRAFT(SplitModel(ColorNet(), at=layer), k, **settings)


def colors_of(components):
    """The colour that each concept is, by its strongest channel; 'no' when it is mixed."""
    unit = components / components.sum(axis=1, keepdims=True)
    return [int(row.argmax()) if row.max() > 0.9 else None for row in unit]


class TestKnownTruth:
    @pytest.mark.parametrize("patches", ["grid", "random", "none"])
    def test_colours_are_found(self, images, patches):
        craft = craft_at("early", 3, patches=patches).fit(images, target=0)
        assert sorted(colors_of(craft.components_)) == [0, 1, 2]

    def test_best_patches_show_the_colour(self, images):
        craft = craft_at("early", 3).fit(images, target=0)
        for root, color in zip(craft.tree_.roots, colors_of(craft.components_), strict=True):
            for image, y, x, side in craft.patches_[root.patches[:5]]:
                patch = images[image, :, y : y + side, x : x + side].mean((1, 2))
                assert int(patch.argmax()) == color

    def test_the_maps_show_the_image_that_holds_most_of_each_concept(self, images):
        craft = craft_at("early", 3, patches="none").fit(images, target=0)
        best = set(craft.transform(images.numpy()).argmax(axis=0).tolist())
        for n in (3, 4, len(images), len(images) + 9):
            found = craft.explain(images, target=0, maps="upsample", n_maps=n)
            assert len(found.shown) == len(found.maps) == min(n, len(images))
            assert best <= set(found.shown.tolist())
            assert np.array_equal(found.shown, np.unique(found.shown))
        one = craft.explain(images, target=0, maps="upsample", n_maps=1)
        assert one.shown.tolist() == [one.coefficients[:, one.order[0]].argmax()]

    def test_importance_is_the_closed_form(self, images):
        """The head is linear in the pooled coefficients, so ST_i = c_i^2 / sum of c^2."""
        craft = craft_at("early", 3).fit(images, target=0)
        assert craft.importance_.exact
        U = craft.transform(images.numpy())
        # output 0 = mean(red) + mean(green); blue does not count
        c = U * craft.components_[:, :2].sum(axis=1)
        expected = (c**2 / (c**2).sum(axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(craft.importances_, expected, atol=1e-4)
        blue = colors_of(craft.components_).index(2)
        assert craft.importances_[blue] < 1e-3

    def test_the_merged_concept_is_split_and_the_pure_one_is_not(self, images):
        craft = craft_at("late", 2, layers=["early"], depth=1).fit(images, target=0)
        pure = [root for root in craft.tree_.roots if root.vector.argmax() == 1]
        merged = [root for root in craft.tree_.roots if root.vector.argmax() == 0]
        assert len(merged) == len(pure) == 1
        assert not pure[0].children
        assert pure[0].test is not None
        children = np.stack([child.vector for child in merged[0].children])
        assert sorted(colors_of(children)) == [0, 1]
        assert all(child.layer == "early" for child in merged[0].children)
        assert all(np.isfinite(child.importance) for child in merged[0].children)

    def test_the_layer_of_the_recursion_is_found(self, images):
        named = craft_at("late", 2, layers=["early"], depth=1).fit(images, target=0)
        found = craft_at("late", 2, depth=1).fit(images, target=0)
        assert str(found.tree_) == str(named.tree_)

    def test_recursion_without_crops(self, images):
        craft = craft_at("late", 2, layers=["early"], depth=1, patches="none").fit(images, target=0)
        merged = next(root for root in craft.tree_.roots if root.vector.argmax() == 0)
        assert sorted(colors_of(np.stack([c.vector for c in merged.children]))) == [0, 1]


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_whole_images_go_through_the_body_once(kind, monkeypatch):
    """Every position is a row already, so neither g nor coding is run again for the importance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, layer = (
            (SmallCNN().eval(), "block")
            if kind == "cnn"
            else (small_vit().eval(), "encoder.layers.encoder_layer_1")
        )
    split = SplitModel(model, at=layer)
    pictures = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen, g = [], split.g
    monkeypatch.setattr(split, "g", lambda x: seen.append(len(x)) or g(x))
    craft = CRAFT(split, 3, patches="none", extractor=SemiNMF(), batch_size=8, random_state=0)
    craft.fit(pictures, target=1)
    assert seen.count(8) == 3, "24 images in batches of 8, once"
    again = craft.estimate_importance(pictures, target=1)
    np.testing.assert_allclose(craft.importance_.values, again.values, rtol=1e-3, atol=1e-5)
    one_by_one = craft.set_params(batch_size=5).fit(pictures, target="predicted")
    found = split.predict(pictures)
    np.testing.assert_array_equal(one_by_one.importance_.target, found)


class TestOptions:
    def test_the_user_decides_what_is_split(self, images):
        seen = []
        craft = craft_at("late", 2, layers=["early"], depth=1)
        craft.set_params(split_when=lambda node, test: seen.append((node.name, test.p_value))).fit(
            images
        )
        assert [name for name, _ in seen] == ["concept 0", "concept 1"]
        assert craft.tree_.depth == 0
        craft.set_params(split_when=[1]).fit(images)
        assert [len(root.children) for root in craft.tree_.roots] == [0, 2]

    def test_no_target_no_ranking(self, images):
        craft = craft_at("early", 3).fit(images, target=None)
        assert not hasattr(craft, "importance_")
        assert np.isnan(craft.tree_.roots[0].importance)

    def test_disk_and_memory_agree(self, images):
        memory = craft_at("early", 3).fit(images, target=0)
        disk = craft_at("early", 3, storage="disk").fit(images, target=0)
        assert sorted(colors_of(disk.components_)) == sorted(colors_of(memory.components_))

    def test_auto_finds_the_planted_rank(self, images):
        mixer = torch.nn.Conv2d(3, 12, 1, bias=False)
        weights = np.random.default_rng(0).random((12, 3, 1, 1)).astype(np.float32)
        mixer.weight.data = torch.from_numpy(weights)
        pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(12, 2)]
        split = SplitModel(torch.nn.Sequential(mixer, torch.nn.ReLU(), *pool), at="1")
        craft = CRAFT(split, "auto", patch_size=8, random_state=0).fit(images, target=0)
        assert craft.rank_selection_.n_concepts == 3
        assert craft.components_.shape == (3, 12)

    def test_classes_in_one_pass(self, images, monkeypatch):
        craft = craft_at("early", 3)
        calls = []
        g = SplitModel.g
        monkeypatch.setattr(SplitModel, "g", lambda self, x: calls.append(len(x)) or g(self, x))
        both = craft.fit_classes(images, targets=None, progress=False)
        n_crops = sum(len(c.patches_) for c in both.values())
        # each crop once; whole images once for importance
        assert sum(calls) <= n_crops + 2 * len(images)
        assert set(both) == {0, 1}
        alone = clone(craft).fit(images[craft.split.predict(images) == 1], target=1)
        np.testing.assert_allclose(
            np.sort(both[1].importances_), np.sort(alone.importances_), atol=1e-3
        )

    def test_classes_by_label(self, images):
        y = np.arange(len(images)) % 2
        both = craft_at("early", 3).fit_classes(images, y)
        assert set(both[1].patches_[:, 0]) == set(np.flatnonzero(y == 1))
        with pytest.raises(InputError, match="No image of class 7"):
            craft_at("early", 3).fit_classes(images, y, targets=[7])

    def test_another_extractor(self, images):
        craft = craft_at("early", 3, extractor=SemiNMF()).fit(images, target=0)
        assert isinstance(craft.extractor_, SemiNMF)

    def test_rename(self, images):
        craft = craft_at("late", 2, layers=["early"], depth=1).fit(images, target=0)
        craft.rename(["a", "b"])
        assert craft.concept_names_ == ["a", "b"]
        assert craft.tree_["a"].name == "a"
        assert all(c.name.startswith(r.name + ".") for r in craft.tree_.roots for c in r.children)
        with pytest.raises(InputError, match="2 different names"):
            craft.rename(["a", "a"])

    def test_bank_carries_the_space(self, images):
        craft = craft_at("early", 3).fit(images, target=0)
        bank = craft.to_bank()
        assert bank.space == craft.split.fingerprint
        assert list(bank.names) == craft.concept_names_


class TestContract:
    def test_like_in_like_out(self, images):
        craft = craft_at("early", 3).fit(images, target=0)
        from_tensor, from_array = craft.transform(images), craft.transform(images.numpy())
        assert isinstance(from_tensor, torch.Tensor)
        assert isinstance(from_array, np.ndarray)
        np.testing.assert_allclose(from_tensor.numpy(), from_array, rtol=1e-6)
        assert craft.transform(images, pooled=False).shape == (24, 32, 32, 3)

    def test_same_seed_same_bits(self, images, request):
        crafts = [craft_at("early", 3, patches="random") for _ in range(2)]
        request.getfixturevalue("global_state_untouched")
        a, b = (craft.fit(images, target=0) for craft in crafts)
        assert a.components_.tobytes() == b.components_.tobytes()
        assert a.importances_.tobytes() == b.importances_.tobytes()

    def test_the_model_is_untouched(self, images):
        model = ColorNet().train()
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        craft = CRAFT(SplitModel(model, at="late"), 2, patch_size=8, layers=["early"], depth=1)
        craft.fit(images, target=0).explain(images)
        with pytest.raises(InputError):
            craft.fit(images, target=9)
        assert model.training
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_clone_and_params(self):
        craft = craft_at("early", 3, depth=1)
        again = clone(craft)
        assert again.split is craft.split
        assert again.get_params()["n_concepts"] == 3
        assert "CRAFT(" in repr(again)

    def test_save_and_load(self, images, tmp_path):
        craft = craft_at("late", 2, layers=["early"], depth=1).fit(images, target=0)
        craft.save(tmp_path / "craft")
        back = CRAFT.load(tmp_path / "craft", craft.split)
        assert back.transform(images).numpy().tobytes() == craft.transform(images).numpy().tobytes()
        assert str(back.tree_) == str(craft.tree_)
        assert back.importances_.tobytes() == craft.importances_.tobytes()
        with pytest.raises(SpaceMismatchError, match="fitted at layer 'late'"):
            CRAFT.load(tmp_path / "craft", craft.split.at_layer("early"))
        (tmp_path / "craft" / "data.json").write_text("{}")
        with pytest.raises(CheckpointError, match="changed or truncated"):
            CRAFT.load(tmp_path / "craft", craft.split)


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"patches": "girds"}, "Did you mean 'grid'"),
            ({"storage": "dik"}, "Did you mean 'disk'"),
            ({"n_concepts": 0}, "a whole number of at least 1, got 0"),
            ({"n_concepts": 50}, "50"),
            ({"patch_size": 64}, "larger than image 0"),
        ],
    )
    def test_settings(self, images, settings, text):
        with pytest.raises(InputError, match=text):
            craft_at("early", 3).set_params(**settings).fit(images)

    @pytest.mark.parametrize(
        ("target", "text"),
        [
            (2, "target 2 is out of range: the model has 2 outputs"),
            (-1, "out of range"),
            ("blue", "target must be 'predicted'"),
            (0.5, "class numbers"),
            ([0, 1], "2 numbers for 24 images"),
        ],
    )
    def test_targets(self, images, target, text):
        with pytest.raises(InputError, match=text) as info:
            craft_at("early", 3).fit(images, target=target)
        assert info.value.code == "CL-INPUT-TARGET"

    def test_a_bare_model(self, images):
        with pytest.raises(InputError, match="Wrap the model"):
            CRAFT(ColorNet(), 3).fit(images)

    def test_images(self, images):
        craft = craft_at("early", 3)
        with pytest.raises(InputError, match="permute|moveaxis|transpose"):
            craft.fit(images.permute(0, 2, 3, 1).contiguous())
        with pytest.raises(InputError, match="0"):
            craft.fit(images[:0])
        bad = images.clone()
        bad[3, 1, 2, 0] = float("nan")
        with pytest.raises(InputError, match="NaN"):
            craft.fit(bad)

    def test_signed_activations(self, images):
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        )
        craft = CRAFT(SplitModel(model, at="0"), 2, patch_size=8, extractor=NMFConcepts())
        with pytest.raises(InputError, match="SemiNMF") as info:
            craft.fit(images)
        assert info.value.code == "CL-INPUT-NEGATIVE"

    def test_unknown_layer(self):
        with pytest.raises(SplitError, match="late"):
            craft_at("lat", 2)

    def test_unfitted(self, images):
        from sklearn.exceptions import NotFittedError

        with pytest.raises(NotFittedError):
            craft_at("early", 3).transform(images)
