import numpy as np
import pytest
import torch
from planted import ColorNet, color_images

from attribution.explain import explain
from conceptlab.errors import InputError
from conceptlab.extractors import CRAFT, NMFConcepts, PCAConcepts
from conceptlab.extractors.craft.coded import code_images
from conceptlab.extractors.craft.growing import carrying
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.importance import Decision, SobolImportance
from conceptlab.models import SplitModel


@pytest.fixture(scope="module")
def images():
    return color_images()[0]


def craft(**settings):
    settings = {"patches": "none", "random_state": 0, **settings}
    return CRAFT(SplitModel(ColorNet(), at="early"), 3, **settings)


@pytest.mark.parametrize("how", [{}, {"patches": "grid", "patch_size": 8}, {"storage": "disk"}])
def test_planted_colours_are_found_again(images, how, tmp_path):
    found = craft(n_refits=3, **how).fit(images, target=0)
    assert found.stability_.shape == (3,)
    assert found.stability_.min() > 0.95
    assert found.explain(images, maps=None).to_frame()["stability"].min() > 0.95
    found.save(tmp_path / "craft")
    back = CRAFT.load(tmp_path / "craft", found.split)
    assert back.stability_.tobytes() == found.stability_.tobytes()
    assert back.decision_ == found.decision_


def test_noise_is_not_found_again():
    noise = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = craft(n_refits=4, extractor=PCAConcepts()).fit(noise, target=None)
    assert found.stability_[1:].mean() < 0.95


def test_intervals_over_refits_hold_those_of_images(images):
    given = craft().fit(images, target=0).importance_
    refit = craft(interval="refit").fit(images, target=0).importance_
    np.testing.assert_array_equal(refit.values, given.values)
    assert (refit.interval[:, 0] <= refit.mean + 0.02).all()
    assert (refit.interval[:, 1] >= refit.mean - 0.02).all()


def test_importance_with_the_rest_for_crops_positions_and_children(images):
    for how in ({"patches": "none"}, {"patches": "grid", "patch_size": 8}):
        for remainder in ("hold", "player"):
            found = CRAFT(
                SplitModel(ColorNet(), at="late"),
                2,
                layers=["early"],
                depth=1,
                importance=SobolImportance(remainder=remainder),
                random_state=0,
                **how,
            ).fit(images, target=0)
            assert found.importance_.remainder == remainder
            assert (found.importance_.rest is not None) == (remainder == "player")
            children = [child for root in found.tree_.roots for child in root.children]
            assert children
            assert all(np.isfinite(child.importance) for child in children)
            parent = next(root for root in found.tree_.roots if root.children)
            assert isinstance(parent.decision, Decision)
            assert parent.decision.short() in str(found.tree_)


def decided(sufficient=1.0, rest_agrees=0.0, fall=0.6):
    n = 10
    return Decision(
        sufficient, 0.0, 1.0, 0.5, 0.5, 0.8, 0.8 - fall, fall, 0, 1, rest_agrees, 0.4, n, 3
    )


def test_the_first_line_says_what_is_below_its_bar(images):
    found = craft().fit(images, target=0).explain(images, maps=None)
    found.decision = decided()
    assert found.warning() == ""
    assert found.to_html().count("Sufficient: 100%") == 1
    found.decision = decided(sufficient=0.38)
    assert found.warning().startswith("These concepts are not the model: alone they give its")
    assert "38%" in found.warning()
    found.tried = {"patches='none'": decided(sufficient=0.9), "n_concepts=6": decided(0.2)}
    assert "This would help: patches='none' (sufficient 90%" in found.warning()
    assert "n_concepts=6" not in found.warning()
    assert found.to_html().index("not the model") < found.to_html().index("Sufficient:")
    assert found.to_dict()["warning"] == found.warning()
    found.decision = decided(rest_agrees=0.92, fall=0.1)
    assert found.warning().startswith("The answer does not hang on these concepts: without them 92")
    bars = found.plot().patches
    assert {bar.get_alpha() for bar in bars} == {0.35}
    found.decision = decided()
    assert {bar.get_alpha() for bar in found.plot().patches} == {1.0}


def test_one_answer_only_has_no_base_rate():
    logits = np.array([[2.0, 0.0]] * 4)
    found = Decision.of(logits, logits, -logits, logits[:1], error=0.0)
    assert found.n_answers == 1
    assert "there is no base rate" in found.figures()


def test_what_would_help_is_measured():
    """One concept of crops cannot say what three colours do; the call tries more of them."""
    images, _ = color_images()
    found = explain(
        SplitModel(ColorNet(), at="early"),
        images,
        n_concepts=1,
        n_refits=0,
        depth=0,
        maps=None,
        faithfulness=False,
        random_state=0,
    )
    assert (found.tried == {}) == found.decision.carries
    assert all(isinstance(value, Decision) for value in found.tried.values())


def test_a_tree_without_a_split_says_what_the_test_can_see(images, tmp_path):
    found = craft(layers=["early"], depth=1, alpha=0.0).fit(images, target=0)
    assert found.tree_.depth == 0
    seen, made = found.tree_.power
    assert (seen, made) == (0, 3)  # at a level of 0 nothing is seen
    found.set_params(alpha=0.05).fit(images, target=0)
    if found.tree_.depth == 0:
        # Three pure colours: any two of them, half and half, are two clusters.
        assert found.tree_.power == (3, 3)
        assert "half-and-half mixture of two of these concepts in 3 of 3" in str(found.tree_)
        assert "3 of 3 cases" in found.explain(images, maps=None).to_html()
        found.save(tmp_path / "craft")
        assert CRAFT.load(tmp_path / "craft", found.split).tree_.power == (3, 3)


def test_more_concepts_where_the_first_do_not_carry_the_decision(images):
    split = SplitModel(ColorNet(), at="early")
    views = ImageViews.of(images, split, patches="none")
    rows = views.rows(split, storage="memory", progress=False)
    found = {
        k: code_images(views, split, NMFConcepts(k, random_state=0).fit(rows)).decision.carries
        for k in (1, 2)
    }
    expected = next((k for k, carries in found.items() if carries), 1)
    assert carrying(split, NMFConcepts(random_state=0), rows, views, 1) == expected


def test_bad_settings(images):
    with pytest.raises(InputError, match="Did you mean 'refit'"):
        craft(interval="refti").fit(images)
    with pytest.raises(InputError, match="n_refits must be a whole number"):
        craft(n_refits=-1).fit(images)
