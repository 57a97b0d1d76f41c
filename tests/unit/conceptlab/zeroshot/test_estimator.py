"""The zero-shot classifier: kinds of input, files, errors, scikit-learn's rules."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import check_estimator
from zeroshot_world import bank, images_of

from conceptlab import ConceptBank
from conceptlab.encoders import CallableEncoder
from conceptlab.errors import CheckpointError, InputError, SpaceMismatchError
from conceptlab.vocabulary import ClassConcepts, write_concepts
from conceptlab.zeroshot import RULES, BayesianZeroShot, pool, pool_weights

WORDS = ("red", "green", "blue", "dark", "bright", "frog", "newt", "toad")


def read(texts):
    """Count known words; a constant keeps vectors from being zero."""
    return torch.tensor(
        [[0.1, *(float(word in t.rstrip(".").split()) for word in WORDS)] for t in texts],
        dtype=torch.float32,
    )


def look(pixels):
    """Red, green and blue as the words for them."""
    colour = pixels.mean(dim=(2, 3))
    rest = torch.zeros(len(pixels), len(WORDS) - 3)
    return torch.cat([torch.full((len(pixels), 1), 0.1), colour, rest], dim=1)


@pytest.fixture(scope="module")
def encoder():
    return CallableEncoder(look, read, dim=9, name="words", fingerprint="words 1")


TEXTS = {"toad": ["red", "red dark"], "frog": ["green", "green bright", "bright"], "newt": ["blue"]}


@pytest.fixture(scope="module")
def colours():
    images = np.zeros((3, 3, 8, 8), dtype=np.float32)
    for i in range(3):
        images[i, i] = 1
    return images


# -- scikit-learn ---------------------------------------------------------------------
def test_check_estimator_in_full():
    results = check_estimator(BayesianZeroShot(), on_skip=None)
    assert not [r for r in results if r["status"] == "failed"]


@pytest.mark.parametrize("rule", ["lse", "mean_embedding"])
def test_check_estimator_for_rules_with_paths_of_their_own(rule):
    check_estimator(BayesianZeroShot(rule=rule), on_skip=None)


def test_columns_are_sorted_as_metrics_expect(encoder, colours):
    model = BayesianZeroShot(TEXTS, encoder).fit()
    assert model.classes_.tolist() == ["frog", "newt", "toad"]
    assert model.concept_names_ == [TEXTS["frog"], TEXTS["newt"], TEXTS["toad"]]
    assert model.concept_labels_.tolist() == [2, 2, 0, 0, 0, 1]
    labels = ["toad", "frog", "newt"]
    proba = model.predict_proba(colours)
    assert model.predict(colours).tolist() == labels
    assert log_loss(labels, proba, labels=model.classes_) < 0.1


def test_clone_keeps_encoder_and_concepts(encoder):
    concepts = ClassConcepts(TEXTS).embed(encoder)
    model = clone(BayesianZeroShot(concepts, encoder, rule="lse"))
    assert model.concepts is concepts
    assert model.rule == "lse"
    assert model.fit().predict(concepts.bank.vectors).tolist()[0] == "toad"


def test_integer_labels_count_the_classes_in_their_order(encoder, colours):
    model = BayesianZeroShot(TEXTS, encoder).fit(colours, [0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.class_names_.tolist() == ["toad", "frog", "newt"]
    assert model.predict(colours).tolist() == [0, 1, 2]
    assert model.score(colours, [0, 1, 2]) == 1.0


def test_two_classes_answer_as_scikit_learn_does():
    P = bank(K=2)
    X, _ = images_of(P)
    model = BayesianZeroShot(P).fit()
    decision = model.decision_function(X)
    assert decision.shape == (40,)
    assert ((decision > 0) == model.predict(X).astype(bool)).all()


# -- input ----------------------------------------------------------------------------
def test_images_and_their_vectors_give_the_same(encoder, colours, tmp_path):
    from PIL import Image

    model = BayesianZeroShot(TEXTS, encoder).fit()
    expected = model.predict_proba(encoder.encode_image(colours))
    np.testing.assert_allclose(model.predict_proba(colours), expected, rtol=1e-6)
    paths = []
    for i, image in enumerate(colours):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray((255 * np.moveaxis(image, 0, -1)).astype(np.uint8)).save(paths[-1])
    np.testing.assert_allclose(model.predict_proba(paths), expected, rtol=1e-5)
    assert len(model.explain(colours)) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_like_in_like_out(dtype):
    P = bank()
    X = torch.from_numpy(images_of(P)[0]).to(dtype)
    model = BayesianZeroShot(P).fit()
    for method in (
        "scores",
        "decision_function",
        "predict_proba",
        "predict_log_proba",
        "concept_posterior",
    ):
        answer = getattr(model, method)(X)
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == dtype
        same = getattr(model, method)(X.numpy().astype(np.float32))
        assert same.dtype == np.float32
        np.testing.assert_allclose(answer.double(), same, rtol=0.02, atol=0.05)
    assert pool(X, "trim").dtype == dtype


def test_a_frame_keeps_its_names():
    P = bank(d=3)
    X = pd.DataFrame(images_of(P)[0], columns=["a", "b", "c"])
    model = BayesianZeroShot(P).fit(X, images_of(P)[1])
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.predict(X).shape == (40,)


def test_all_forms_of_concepts_agree(encoder, colours, tmp_path):
    path = write_concepts(TEXTS, tmp_path / "concepts.json")
    embedded = ClassConcepts(TEXTS).embed(encoder)
    vectors = {c: embedded.bank.vectors[embedded.rows(c)] for c in TEXTS}
    X = encoder.encode_image(colours)
    expected = BayesianZeroShot(TEXTS, encoder).fit().predict_proba(X)
    for concepts in (ClassConcepts(TEXTS), embedded, path, str(path), vectors):
        model = BayesianZeroShot(concepts, encoder).fit()
        np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)


def test_the_prompt_reaches_the_encoder(encoder):
    model = BayesianZeroShot(TEXTS, encoder).fit()
    bare = BayesianZeroShot(TEXTS, encoder, prompt="concept").fit()
    named = read(["a photo of a toad with red."]).numpy()[0]
    np.testing.assert_allclose(model.vectors_[0], named / np.linalg.norm(named), rtol=1e-6)
    assert np.abs(model.vectors_ - bare.vectors_).max() > 0.1


def test_scale_is_the_encoders_or_that_of_clip(encoder):
    assert BayesianZeroShot(TEXTS, encoder).fit().scale_ == 100.0
    own = CallableEncoder(look, read, dim=9, fingerprint="words 2")
    own.__class__ = type("Scaled", (CallableEncoder,), {"logit_scale": property(lambda s: 14.0)})
    assert BayesianZeroShot(TEXTS, own).fit().scale_ == 14.0
    assert BayesianZeroShot(TEXTS, own, scale=3).fit().scale_ == 3.0


def test_rows_of_zeros_get_the_prior():
    model = BayesianZeroShot(bank(), class_prior=[1, 2, 3, 2, 2]).fit()
    proba = model.predict_proba(np.zeros((2, 12)))
    np.testing.assert_allclose(proba[0], [0.1, 0.2, 0.3, 0.2, 0.2])


def test_class_priors(encoder, colours):
    named = BayesianZeroShot(TEXTS, encoder, class_prior={"toad": 2, "frog": 1, "newt": 1}).fit()
    np.testing.assert_allclose(np.exp(named.class_log_prior_), [0.25, 0.25, 0.5])
    X, y = np.repeat(colours, [4, 1, 1], axis=0), np.repeat(["toad", "frog", "newt"], [4, 1, 1])
    counted = BayesianZeroShot(TEXTS, encoder, class_prior="empirical").fit(X, y)
    np.testing.assert_allclose(np.exp(counted.class_log_prior_), np.array([2, 2, 5]) / 9)


def test_concept_priors_by_class(encoder):
    flat = BayesianZeroShot(TEXTS, encoder, rule="mean", concept_prior=[1, 0, 1, 1, 2, 1]).fit()
    by = {"toad": [1, 0], "frog": [1, 1, 2]}
    named = BayesianZeroShot(TEXTS, encoder, rule="mean", concept_prior=by).fit()
    X = np.random.default_rng(0).random((4, 9))
    np.testing.assert_allclose(flat.scores(X), named.scores(X))
    toad = {
        "toad": ["red"],
        "frog": ["green", "green bright", "bright", "bright"],
        "newt": ["blue"],
    }
    repeated = BayesianZeroShot(toad, encoder, rule="mean").fit()
    np.testing.assert_allclose(flat.scores(X), repeated.scores(X), rtol=1e-5)


# -- degenerate concepts --------------------------------------------------------------
@pytest.mark.parametrize("rule", [*RULES])
def test_one_concept_a_class(rule):
    P = bank(C=1)
    X, _ = images_of(P)
    model = BayesianZeroShot(P, rule=rule, scale=10.0).fit()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(model.scores(X), 10 * unit @ P[:, 0].T, rtol=1e-6)


@pytest.mark.parametrize("rule", [*RULES])
def test_all_concepts_equal(rule):
    P = np.repeat(bank(C=1), 6, axis=1)
    X, _ = images_of(P)
    model = BayesianZeroShot(P, rule=rule, scale=10.0).fit()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(model.scores(X), 10 * unit @ P[:, 0].T, rtol=1e-6)
    assert np.isfinite(model.explain(X).evidence).all()


# -- errors ---------------------------------------------------------------------------
BAD_FITS = [
    ({"concepts": {"frog": ["green"], "newt": []}}, "1 of 2 classes have no concepts: 'newt'"),
    ({"concepts": {"frog": ["green"]}}, r"at least two classes, got 1 class: \['frog'\]"),
    ({"concepts": {"frog": np.eye(3), "newt": np.eye(4)}}, "class 'newt' have shape"),
    ({"concepts": np.eye(3)}, r"axes \(classes, concepts, features\)"),
    ({"concepts": np.zeros((2, 1, 3))}, "'0: concept 0' has length zero"),
    ({"concepts": np.full((2, 1, 3), np.nan)}, "Input concepts contains NaN"),
    ({"concepts": 3}, "concepts must be ClassConcepts"),
    ({"concepts": "no-such-file.json"}, "no-such-file.json"),
    ({"rule": "trimm"}, "Unknown pooling rule 'trimm'. Did you mean 'trim'"),
    ({"rule_options": {"lamda": 2}}, "Unknown option of rule 'trim' 'lamda'. Did you mean 'lam'"),
    ({"rule_options": {"lam": 0.5}}, "lam must be a number of at least 1, got 0.5"),
    ({"rule_options": {"kappa": 3}}, "kappa must be two numbers 0 < low <= high"),
    (
        {"rule": "trimmed_mean", "rule_options": {"share": 0.5}},
        "share must be a number of at least 0 and below 0.5",
    ),
    ({"rule_options": 3}, "rule_options must be a mapping"),
    ({"temperature": 0}, "temperature must be a number above 0"),
    ({"scale": -1}, "scale must be a number above 0"),
    ({"class_prior": [1, 1, 0]}, "class_prior must be 3 finite numbers above 0"),
    ({"class_prior": "empirical"}, "counts labels, but fit got none"),
    ({"class_prior": "emprical"}, "Unknown class prior 'emprical'. Did you mean 'empirical'"),
    ({"class_prior": {"frog": 1}}, "must name every class once; it has 1 of 3 names"),
    ({"concept_prior": "even"}, "concept_prior must be numbers, or a mapping"),
    ({"concept_prior": [1, 2]}, r"expected one weight for each of the 6"),
    ({"concept_prior": {"frog": [1]}}, "class has 3 concepts"),
    ({"concept_prior": {"frg": [1]}}, "Unknown class 'frg'. Did you mean 'frog'"),
    ({"concept_prior": {"newt": [0]}}, "above 0 for one concept of every class"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_FITS)
def test_bad_arguments_are_answered(encoder, arguments, message):
    model = BayesianZeroShot(**{"concepts": TEXTS, "encoder": encoder, **arguments})
    with pytest.raises(InputError, match=message):
        model.fit()
    assert not model.__sklearn_is_fitted__()


def test_texts_need_an_encoder():
    with pytest.raises(InputError, match="there is no encoder to read them"):
        BayesianZeroShot(TEXTS).fit()


def test_nan_rows_are_named(encoder):
    X = np.ones((3, 9))
    X[1, 4] = np.nan
    model = BayesianZeroShot(TEXTS, encoder).fit()
    with pytest.raises(InputError, match=r"X contains NaN: 1 of 27 .* first at index \(1, 4\)"):
        model.predict(X)


def test_features_of_another_width(encoder):
    model = BayesianZeroShot(TEXTS, encoder).fit()
    with pytest.raises(InputError, match="X has 4 features, but BayesianZeroShot is expecting 9"):
        model.predict(np.ones((2, 4)))
    with pytest.raises(InputError, match="X has 4 features, but the concept vectors have 9"):
        BayesianZeroShot(TEXTS, encoder).fit(np.ones((3, 4)), ["frog", "newt", "toad"])


def test_images_without_an_encoder():
    model = BayesianZeroShot(bank()).fit()
    with pytest.raises(InputError, match="no encoder to read them"):
        model.predict(np.zeros((2, 3, 8, 8)))


def test_labels_that_are_no_classes(encoder):
    X = np.ones((2, 9))
    with pytest.raises(InputError, match="Unknown class 'forg'. Did you mean 'frog'"):
        BayesianZeroShot(TEXTS, encoder).fit(X, ["frog", "forg"])
    with pytest.raises(InputError, match="Label 3 is no class"):
        BayesianZeroShot(TEXTS, encoder).fit(X, [0, 3])
    with pytest.raises(InputError, match="labels y without X"):
        BayesianZeroShot(TEXTS, encoder).fit(y=[0, 1])
    with pytest.raises(InputError, match="inconsistent numbers of samples"):
        BayesianZeroShot(TEXTS, encoder).fit(X, ["frog"])
    with pytest.raises(InputError, match="at least two classes, got 1 class"):
        BayesianZeroShot().fit(X, ["frog", "frog"])


def test_concepts_of_another_encoder(encoder):
    other = CallableEncoder(look, read, dim=9, name="others", fingerprint="words 9")
    with pytest.raises(SpaceMismatchError, match="made by another encoder"):
        BayesianZeroShot(ClassConcepts(TEXTS).embed(other), encoder).fit()


def test_texts_over_the_context_length():
    class Short(CallableEncoder):
        def _token_counts(self, texts):
            return [len(t.split()) for t in texts]

    short = Short(look, read, dim=9, fingerprint="short")
    short.context_length = 6
    with pytest.raises(InputError, match=r"\[CL-INPUT-TEXT\]"):
        BayesianZeroShot({"a": ["red"], "b": ["blue with a long tail"]}, short).fit()


BAD_POOLS = [
    (([[np.nan, 1.0]],), {}, "Input S contains NaN"),
    ((np.ones((3, 0)),), {}, "at least one"),
    ((3.0,), {}, "at least one"),
    ((np.ones(3), "mean_embedding"), {}, "averages vectors"),
    ((np.ones(3), "mean"), {"lam": 2}, "Rule 'mean' has no options"),
    ((np.ones((2, 3)),), {"prior": [1, 2]}, "does not fit S"),
    ((np.ones((2, 3)),), {"prior": [0, 0, 0]}, "above 0 for one concept of every row"),
    ((np.ones((2, 3)),), {"prior": [1, -1, 1]}, "at least 0"),
    (("red",), {}, "S must hold numbers, got 'red'"),
    ((np.ones((2, 3)),), {"prior": "even"}, "prior must hold numbers, got 'even'"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), BAD_POOLS)
def test_bad_pooling_is_answered(arguments, options, message):
    for function in (pool, pool_weights):
        with pytest.raises(InputError, match=message):
            function(*arguments, **options)


# -- files ----------------------------------------------------------------------------
@pytest.mark.parametrize("rule", ["trim", "lse"])
def test_saved_and_loaded_to_the_bit(tmp_path, encoder, colours, rule):
    model = BayesianZeroShot(
        TEXTS, encoder, rule=rule, concept_prior=[1, 2, 1, 1, 3, 1], class_prior=[1, 2, 3]
    ).fit(colours, ["toad", "frog", "newt"])
    path = model.save(tmp_path / "model")
    loaded = BayesianZeroShot.load(path, encoder)
    np.testing.assert_array_equal(loaded.predict_proba(colours), model.predict_proba(colours))
    assert loaded.classes_.tolist() == model.classes_.tolist()
    assert loaded.concept_names_ == model.concept_names_
    assert loaded.temperature_ == model.temperature_
    first, second = loaded.explain(colours).to_frame(), model.explain(colours).to_frame()
    pd.testing.assert_frame_equal(first, second)
    refitted = clone(loaded).fit(colours, ["toad", "frog", "newt"])
    np.testing.assert_allclose(refitted.scores(colours), model.scores(colours), rtol=1e-5)


def test_saved_integers_and_halves(tmp_path):
    P = bank().astype(np.float16)
    X, y = images_of(P.astype(float))
    model = BayesianZeroShot(P, rule_options={"kappa": (0.2, 3.0)}).fit(X, y)
    loaded = BayesianZeroShot.load(model.save(tmp_path / "model"))
    assert loaded.vectors_.dtype == np.float16
    assert loaded.classes_.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(loaded.scores(X), model.scores(X))


def test_files_that_do_not_fit(tmp_path, encoder):
    path = BayesianZeroShot(TEXTS, encoder).fit().save(tmp_path / "model")
    other = CallableEncoder(look, read, dim=9, name="others", fingerprint="words 9")
    with pytest.raises(SpaceMismatchError, match="made by another encoder"):
        BayesianZeroShot.load(path, other)
    ConceptBank(np.eye(2), ["a", "b"], space=None).save(tmp_path / "bank")
    with pytest.raises(CheckpointError, match="holds a 'ConceptBank'"):
        BayesianZeroShot.load(tmp_path / "bank")


# -- explanation ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def explanation(encoder, colours):
    return BayesianZeroShot(TEXTS, encoder).fit().explain(colours)


def test_the_table_adds_up(explanation):
    frame = explanation.to_frame()
    for i in range(3):
        for r, role in enumerate(("winner", "runner-up")):
            part = frame[(frame.image == i) & (frame.role == role)]
            total = part.evidence.sum() + explanation.reference[i]
            assert total == pytest.approx(explanation.score[i, r], rel=1e-12)
            assert part.weight.sum() == pytest.approx(1)
            assert part.posterior.sum() == pytest.approx(1)
            assert list(part.evidence) == sorted(part.evidence, reverse=True)
    assert explanation.predicted == ["toad", "frog", "newt"]
    assert len(explanation.to_frame(1)) == len(frame[frame.image == 1])


def test_json_and_html_of_an_explanation(explanation):
    import json

    facts = json.loads(json.dumps(explanation.to_dict(top=1)))
    assert facts["images"][0]["winner"]["class"] == "toad"
    assert len(facts["images"][1]["winner"]["concepts"]) == 1
    html = explanation._repr_html_()
    assert "toad" in html
    assert "class='drawn'" in html
    with pytest.raises(InputError, match="no image 3"):
        explanation.plot(3)


def test_names_are_escaped():
    concepts = {"<b>x</b>": np.eye(4)[:2], "y": np.eye(4)[2:]}
    html = BayesianZeroShot(concepts).fit().explain(np.eye(4)[:1])._repr_html_()
    assert "<b>x</b>" not in html


def test_plotted_bars_add_up(explanation):
    ax = explanation.plot(0, top=8)
    width = sum(patch.get_width() for patch in ax.patches)
    assert width == pytest.approx(np.nansum(explanation.evidence[0]))


def test_bars_beyond_the_top_are_drawn_together():
    P = bank(C=9)
    found = BayesianZeroShot(P, rule="mean").fit().explain(images_of(P, 2)[0])
    ax = found.plot(0, top=3)
    assert len(ax.patches) == 8
    assert sum("the other 6 together" in t.get_text() for t in ax.get_yticklabels()) == 2
    width = sum(patch.get_width() for patch in ax.patches)
    assert width == pytest.approx(np.nansum(found.evidence[0]))


def test_posterior_bars(explanation):
    from conceptlab.plot.posterior import posterior_bars

    ax = posterior_bars(explanation, 1)
    assert sum(patch.get_width() for patch in ax.patches) == pytest.approx(1)
