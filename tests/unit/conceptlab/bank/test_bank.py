"""ConceptBank: frozen, checked, selected, merged, shown and stored."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from word_encoder import WordEncoder

from conceptlab.bank import BankScorer, ConceptBank
from conceptlab.encoders import CallableEncoder
from conceptlab.errors import CheckpointError, InputError, SpaceMismatchError
from conceptlab.extractors import PCAConcepts

HOSTILE = ['<script>alert("x")</script>', "a & b", "<img src=x onerror=alert(1)>", "naïve 圆", "'"]


@pytest.fixture
def bank():
    rng = np.random.default_rng(0)
    return ConceptBank(
        rng.normal(size=(4, 6)).astype(np.float32),
        ["red", "round", "striped", "dark red"],
        space="s" * 64,
        intercepts=[0.1, 0.2, 0.3, 0.4],
        parents=[None, None, 1, 0],
        meta={"source": "test", "concepts": {"auc": [0.9, 0.8, None, 0.6]}},
    )


@pytest.fixture
def encoder():
    def texts(items):
        rows = [[len(t), t.count("e"), ord(t[0]) % 7, 1.0] for t in items]
        return torch.tensor(rows, dtype=torch.float32)

    return CallableEncoder(
        lambda x: torch.cat([x.mean((2, 3)), torch.ones(len(x), 1)], 1), texts, fingerprint="tiny"
    )


def test_it_is_frozen(bank):
    with pytest.raises(AttributeError, match=r"frozen.*rename, select or merge"):
        bank.names = ("a",)
    with pytest.raises(ValueError, match="read-only"):
        bank.vectors[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        bank.intercepts[0] = 1
    bank.meta["source"] = "changed"
    assert bank.meta["source"] == "test"
    vectors = np.ones((1, 2))
    made = ConceptBank(vectors, ["a"], space=None)
    vectors[:] = 5
    assert made["a"].tolist() == [1, 1]
    assert vectors.flags.writeable


@pytest.mark.parametrize(
    ("vectors", "names", "options", "code", "words"),
    [
        (np.eye(3), ["a", "b", "a"], {}, "NAMES", r"more than once: \['a'\]"),
        (np.eye(2), ["a", ""], {}, "NAMES", r"empty; those at \[1\]"),
        (np.eye(2), ["a", "  "], {}, "NAMES", "empty"),
        (np.eye(2), ["a", 3], {}, "NAMES", r"must be strings.*\[3\]"),
        (np.eye(2), "ab", {}, "NAMES", "the string 'ab'"),
        (np.eye(2), ["a"], {}, "SHAPE", "2 vectors but 1 names"),
        ([[0.0, 0.0], [1.0, 0.0]], ["nil", "b"], {}, "ZERO", r"length zero: \['nil'\]"),
        ([[np.nan, 0.0], [1.0, 0.0]], ["bad", "b"], {}, "NONFINITE", r"\['bad'\]"),
        (np.ones(3), ["a", "b", "c"], {}, "RANK", r"\(3,\)"),
        (np.ones((0, 3)), [], {}, "EMPTY", r"\(0, 3\)"),
        (np.eye(2), ["a", "b"], {"intercepts": [1.0]}, "SHAPE", "intercepts must be 2"),
        (np.eye(2), ["a", "b"], {"intercepts": [1.0, np.inf]}, "SHAPE", "finite"),
        (np.eye(2), ["a", "b"], {"parents": [1, 0]}, "SHAPE", "own ancestor"),
        (np.eye(2), ["a", "b"], {"parents": [0, None]}, "SHAPE", "own ancestor"),
        (np.eye(2), ["a", "b"], {"parents": [5, None]}, "SHAPE", "indices from 0 to 1"),
        (np.eye(2), ["a", "b"], {"meta": {"x": np.nan}}, "TYPE", "JSON values"),
        (np.eye(2), ["a", "b"], {"meta": {"concepts": {"auc": [1]}}}, "SHAPE", r"\['auc'\]"),
        (np.eye(2), ["a", "b"], {"space": 3}, "TYPE", "must be a fingerprint"),
        ([["x", "y"]], ["a"], {}, "TYPE", "Expected numbers"),
    ],
)
def test_mistakes_are_named(vectors, names, options, code, words):
    with pytest.raises(InputError, match=words) as caught:
        ConceptBank(vectors, names, **{"space": None, **options})
    assert caught.value.code == f"CL-INPUT-{code}"


def test_first_five_duplicates_are_named():
    names = [f"n{i}" for i in range(8)] * 2
    with pytest.raises(InputError, match=r"\['n0', 'n1', 'n2', 'n3', 'n4'\]"):
        ConceptBank(np.eye(16), names, space=None)


def test_reading_it(bank):
    assert len(bank) == 4
    assert list(bank) == ["red", "round", "striped", "dark red"]
    assert "red" in bank
    assert "blue" not in bank
    np.testing.assert_array_equal(bank["round"], bank.vectors[1])
    np.testing.assert_array_equal(bank[-1], bank.vectors[3])
    assert bank[:2].names == ("red", "round")
    assert bank[["striped", "red"]].names == ("striped", "red")
    with pytest.raises(InputError, match="Did you mean 'striped'"):
        bank["stripes"]
    with pytest.raises(IndexError):
        bank[4]


def test_select(bank):
    part = bank.select([2, 3])
    assert part.parents == (None, None)
    assert part.meta["concepts"]["auc"] == [None, 0.6]
    np.testing.assert_array_equal(part.intercepts, np.float32([0.3, 0.4]))
    assert bank.select(np.array([True, False, False, True])).parents == (None, 0)
    assert bank.select(lambda name: "red" in name).names == ("red", "dark red")
    assert bank.select(torch.tensor([1])).names == bank.select("round").names == ("round",)
    chain = ConceptBank(np.eye(3), ["a", "b", "c"], space=None, parents=[None, 0, 1])
    assert chain.select(["c", "a"]).parents == (1, None)
    for which, words in {
        ("blue",): "Unknown concept 'blue'",
        (9,): "no concept 9",
        (True, False): "mask has 2 entries for 4",
        ("red", 0): r"more than once: \['red'\]",
        (): "No concept is left",
    }.items():
        with pytest.raises(InputError, match=words):
            bank.select(list(which))


def test_merge(bank):
    other = ConceptBank(
        np.ones((2, 6), np.float32),
        ["big", "old"],
        space=bank.space,
        parents=[None, 0],
        meta={"concepts": {"classes": [["x"], []]}},
    )
    both = bank.merge(other)
    assert both.names == (*bank.names, "big", "old")
    assert both.parents == (None, None, 1, 0, None, 4)
    assert both.intercepts.tolist()[4:] == [0, 0]
    assert both.meta["concepts"]["classes"] == [None] * 4 + [["x"], []]
    assert both.meta["concepts"]["auc"][4:] == [None, None]
    assert both.select(range(4)) == bank
    with pytest.raises(InputError, match=r"in both banks, such as \['red'"):
        bank.merge(bank)
    with pytest.raises(SpaceMismatchError, match=r"ssssssssssssssss\.\.\..*other"):
        bank.merge(ConceptBank(np.ones((1, 6)), ["x"], space="other"))
    with pytest.raises(InputError, match="lengths 6 and 2"):
        bank.merge(ConceptBank(np.eye(2), ["x", "y"], space=None))
    with pytest.raises(InputError, match="takes a ConceptBank"):
        bank.merge("bank")


def test_rename(bank):
    assert bank.rename({"red": "crimson"}).names[0] == "crimson"
    assert bank.rename(str.upper).names[1] == "ROUND"
    assert bank.rename(list("abcd")).names == ("a", "b", "c", "d")
    with pytest.raises(InputError, match="Unknown concept 'blue'"):
        bank.rename({"blue": "b"})
    with pytest.raises(InputError, match="more than once"):
        bank.rename({"red": "round"})


def test_score(bank):
    X = np.random.default_rng(1).normal(size=(5, 6))
    V = bank.vectors.astype(np.float64)
    np.testing.assert_allclose(bank.score(X), X @ V.T + bank.intercepts, rtol=1e-6)
    np.testing.assert_allclose(bank.score(X, similarity="dot"), X @ V.T, rtol=1e-6)
    unit = lambda A: A / np.linalg.norm(A, axis=-1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(bank.score(X, similarity="cosine"), unit(X) @ unit(V).T, rtol=1e-6)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = bank.score(torch.from_numpy(X).to(dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found.float(), bank.score(X), atol=0.1)
    assert bank.score(X.astype(np.float32)).dtype == np.float32
    assert bank.score(X.reshape(1, 5, 6)).shape == (1, 5, 4)
    assert bank.score(X[0]).shape == (4,)
    assert bank.score(X[:0]).shape == (0, 4)
    leaf = torch.from_numpy(X).requires_grad_()
    bank.score(leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad[0], V.sum(0), rtol=1e-6)
    with pytest.raises(InputError, match=r"length 6.*space ssss") as caught:
        bank.score(X[:, :4])
    assert caught.value.code == "CL-INPUT-FEATURES"
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        bank.score(X, similarity="cosin")
    with pytest.raises(InputError, match="NaN"):
        bank.score(X * np.nan)
    with pytest.raises(SpaceMismatchError, match=r"ssss.*tttt") as caught:
        bank.score(X, space="t" * 64)
    assert caught.value.code == "CL-SPACE-MISMATCH"


def test_half_precision_banks_compute_in_single(bank):
    for dtype in (np.float16, torch.float16):
        vectors = bank.vectors
        vectors = vectors.astype(dtype) if dtype is np.float16 else torch.tensor(vectors).half()
        half = ConceptBank(vectors, bank.names, space=None)
        assert half.vectors.dtype == np.float16
        X = np.ones((2, 6), np.float32)
        np.testing.assert_allclose(half.score(X), bank.score(X, similarity="dot"), atol=5e-3)


def test_nearest_and_similarity(bank):
    S = bank.similarity()
    np.testing.assert_allclose(np.diag(S), 1)
    (first, cosine), *_ = bank.nearest(bank["striped"] * 3, n=2)
    assert first == "striped"
    assert cosine == pytest.approx(1)
    others = bank.nearest("striped", n=10)
    assert "striped" not in [name for name, _ in others]
    np.testing.assert_allclose([c for _, c in others], -np.sort(-S[2][[0, 1, 3]]))
    with pytest.raises(InputError, match="length zero"):
        bank.nearest(np.zeros(6))
    with pytest.raises(InputError, match=r"shape \(6,\)"):
        bank.nearest(np.ones(3))


def test_equality_follows_content(bank):
    twin = ConceptBank(
        bank.vectors,
        bank.names,
        space=bank.space,
        intercepts=bank.intercepts,
        parents=bank.parents,
    )
    assert twin == bank
    assert len({twin, bank}) == 1
    for other in (bank.rename({"red": "x"}), bank[:3], bank.select([1, 0, 2, 3])):
        assert other != bank
    assert bank != "bank"


def test_copies(bank):
    assert clone(bank, safe=False) is copy.deepcopy(bank) is copy.copy(bank) is bank
    again = pickle.loads(pickle.dumps(bank))
    assert again == bank
    assert again.meta == bank.meta


def test_save_and_load(bank, tmp_path):
    path = bank.save(tmp_path / "bank")
    again = ConceptBank.load(path, space=bank.space)
    assert again == bank
    assert again.meta == bank.meta
    assert again.vectors.dtype == np.float32
    with pytest.raises(SpaceMismatchError):
        ConceptBank.load(path, space="other")
    data = (path / "data.json").read_text().replace("round", "sound")
    (path / "data.json").write_text(data)
    with pytest.raises(CheckpointError, match=r"data\.json was changed"):
        ConceptBank.load(path)
    manifest = json.loads((path / "manifest.json").read_text())
    import hashlib

    twice = data.replace("sound", "red")
    (path / "data.json").write_text(twice)
    manifest["sha256"]["data.json"] = hashlib.sha256(twice.encode()).hexdigest()
    manifest["size"]["data.json"] = len(twice.encode())
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"describe a whole ConceptBank.*more than once"):
        ConceptBank.load(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        ConceptBank.load(tmp_path / "gone")


def test_html_is_escaped_and_short():
    bank = ConceptBank(np.eye(5), HOSTILE, space="<b>", meta={"concepts": {"<i>": ["<u>"] * 5}})
    text = bank._repr_html_()
    for tag in ("<script", "<img", "<i>", "<u>", "<b>,", "space <b>"):
        assert tag not in text
    assert "&lt;script&gt;" in text
    many = ConceptBank(np.eye(50), [f"c{i}" for i in range(50)], space=None)
    assert "and 30 more" in many._repr_html_()
    assert "50 concepts" in repr(many)


def test_table(bank):
    frame = bank.to_frame()
    assert frame.index.tolist() == list(bank.names)
    assert frame.loc["striped", "parent"] == "round"
    assert frame.loc["red", "auc"] == 0.9


def test_from_texts(encoder):
    bank = ConceptBank.from_texts(encoder, ["red", "green"], templates="the {}")
    assert bank.space == encoder.fingerprint
    np.testing.assert_allclose(
        bank.vectors, encoder.encode_text(["red", "green"], templates="the {}"), rtol=1e-6
    )
    assert bank.meta["templates"] == "the {}"
    grouped = ConceptBank.from_texts(encoder, {"warm": ["red", "orange"], "cold": "blue"})
    mean = encoder.encode_text(["red", "orange"]).mean(0)
    np.testing.assert_allclose(grouped["warm"], mean / np.linalg.norm(mean), rtol=1e-5)
    assert grouped.meta["concepts"]["texts"] == [["red", "orange"], ["blue"]]
    with pytest.raises(InputError, match=r"No text is given for \['x'\]"):
        ConceptBank.from_texts(encoder, {"x": []})
    with pytest.raises(InputError, match="more than once"):
        ConceptBank.from_texts(encoder, ["a", "a"])
    with pytest.raises(InputError, match="must be an Encoder"):
        ConceptBank.from_texts("embedded", ["a"])


def test_from_json(encoder, tmp_path):
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps({"apple": ["red", "round ", "red"], "moon": ["round", ""]}))
    bank = ConceptBank.from_json(path, encoder)
    assert bank.names == ("red", "round")
    assert bank.meta["concepts"]["classes"] == [["apple"], ["apple", "moon"]]
    path.write_text('["red", "round"]')
    assert ConceptBank.from_json(path, encoder) == bank
    for content, words in {
        "{": "Cannot read concepts",
        '{"a": "red"}': "Class 'a'.*no list of strings",
        "[1]": "The file.*no list of strings",
        "3": "no list of strings",
        "[]": "holds no concepts",
    }.items():
        path.write_text(content)
        with pytest.raises(InputError, match=words):
            ConceptBank.from_json(path, encoder)
    with pytest.raises(InputError, match="No such file"):
        ConceptBank.from_json(tmp_path / "gone.json", encoder)


def test_from_extractor():
    X = np.random.default_rng(0).normal(size=(40, 5))
    y = np.arange(40) % 3
    pca = ConceptBank.from_extractor(PCA(2).fit(X), space="s")
    assert pca.names == ("pca0", "pca1")
    assert pca.space == "s"
    assert ConceptBank.from_extractor(KMeans(3, n_init=1).fit(X), list("abc")).names[0] == "a"
    head = LogisticRegression().fit(X, y)
    bank = ConceptBank.from_extractor(head)
    assert bank.names == ("concept0", "concept1", "concept2")
    np.testing.assert_allclose(bank.score(X), head.decision_function(X))
    with pytest.raises(Exception, match="not fitted"):
        ConceptBank.from_extractor(PCA(2))
    with pytest.raises(InputError, match="no components_"):
        ConceptBank.from_extractor(make_pipeline(PCA(2)).fit(X))


def test_from_examples_with_images(encoder):
    rng = np.random.default_rng(0)
    red, blue = (rng.random((12, 3, 4, 4)).astype(np.float32) for _ in range(2))
    red[:, 0], blue[:, 2] = 1.0, 1.0
    bank = ConceptBank.from_examples(encoder, {"red": red, "blue": blue}, random_state=0)
    assert bank.space == encoder.fingerprint
    scores = bank.score(encoder.encode_image(red))
    assert (scores[:, 0] > 0).all()
    assert (scores[:, 1] < 0).all()
    assert bank.meta["concepts"]["auc"] == [1.0, 1.0]
    assert bank.meta["concepts"]["n_negative"] == [12, 12]
    shared = ConceptBank.from_examples(encoder, {"red": red}, negatives=blue, random_state=0)
    np.testing.assert_allclose(shared["red"], bank["red"])


def test_from_examples_mistakes(encoder):
    P = np.random.default_rng(0).normal(size=(6, 3))
    for examples, words in [
        ({}, "examples is empty"),
        ({"a": P}, "'a' has no examples without it"),
        ({"a": (P[:1], P)}, "Concept 'a'.*at least 2 examples.*got 1 and 6"),
        ({"a": (P, P)}, "Concept 'a'.*same mean"),
        ({"a": (P, P[:, :2])}, r"negatives of concept 'a' have shape \(6, 2\)"),
        ({"a": (P[None], P)}, "For images give an encoder"),
        ({"a": (P * np.nan, P)}, "positives of concept 'a'.*NaN"),
    ]:
        with pytest.raises(InputError, match=words):
            ConceptBank.from_examples(None, examples)
    with pytest.raises(InputError, match="Did you mean 'shrunken'"):
        ConceptBank.from_examples(None, {"a": (P, P + 1)}, method="shrunk")


def test_scorer_in_a_pipeline(bank):
    X = np.random.default_rng(0).normal(size=(30, 6))
    y = (X[:, 0] > 0).astype(int)
    pipe = make_pipeline(BankScorer(bank), LogisticRegression()).fit(X, y)
    assert clone(pipe)[0].bank is bank
    assert pipe[:-1].get_feature_names_out().tolist() == list(bank.names)
    frame = BankScorer(bank).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == list(bank.names)
    scorer = BankScorer(bank, similarity="cosine").fit(X)
    found = scorer.transform(torch.from_numpy(X).float())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, bank.score(X, similarity="cosine"), atol=1e-5)
    with pytest.raises(InputError, match=r"3 features, but the vectors.*length 6"):
        BankScorer(bank).fit(X[:, :3])
    with pytest.raises(InputError, match="must be a ConceptBank or None"):
        BankScorer("bank").fit(X)
    with pytest.raises(InputError, match="Unknown similarity"):
        BankScorer(bank, similarity="x").fit(X)


def test_concepts_that_were_found_are_named_and_serve_as_a_bank():
    encoder = WordEncoder(dim=12)
    words = ["red", "blue", "round", "tall", "wide"]
    axes = encoder.encode_text(words)
    rng = np.random.default_rng(0)
    extractor = PCAConcepts(3, random_state=0).fit(rng.normal(size=(40, 12)))
    extractor.components_ = axes[[3, 0, 2]] * np.array([[2.0], [0.5], [1.0]])
    bank = ConceptBank.from_extractor(extractor, encoder=encoder, words=words)
    assert list(bank) == ["tall", "red", "round"]
    assert bank.space == encoder.fingerprint
    np.testing.assert_array_equal(bank.vectors, extractor.components_)
    np.testing.assert_allclose(bank.meta["concepts"]["cosine"], 1, atol=1e-5)
    extractor.components_ = axes[[3, 3, 2]]  # two want the same word: it is given once
    again = list(ConceptBank.from_extractor(extractor, encoder=encoder, words=words))
    assert len(set(again)) == 3
    assert "tall" in again
    for change, message in (
        ({"words": words[:2]}, "2 words were given for 3 concepts"),
        ({"encoder": WordEncoder(dim=5)}, "length 12, but vectors of words 5"),
        ({"encoder": None}, "words are read by an encoder"),
    ):
        arguments = {"extractor": extractor, "encoder": encoder, "words": words, **change}
        with pytest.raises(InputError, match=message):
            ConceptBank.from_extractor(arguments.pop("extractor"), **arguments)
