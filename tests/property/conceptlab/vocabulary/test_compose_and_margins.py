"""Laws of composition, margins, selection and the audit."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils import check_random_state  # noqa: F401  (loaded once, before examples are timed)

from conceptlab.encoders import CallableEncoder
from conceptlab.errors import InputError, SpaceMismatchError
from conceptlab.vocabulary import (
    ClassConcepts,
    audit,
    compose,
    concept_margins,
    distinct_sets,
    filter_margins,
    select_diverse,
)


def random_encoder(dim=16, salt=""):
    """Every text gets a direction of its own."""

    def encode(texts):
        return np.stack(
            [np.random.default_rng([*f"{salt}{t}".encode()]).normal(size=dim) for t in texts]
        )

    return CallableEncoder(
        lambda x: x.mean(dim=(2, 3)), encode, dim, name="random", fingerprint=f"random{salt}"
    )


words = st.text("abcdefgh", min_size=1, max_size=3)
ragged = st.dictionaries(
    st.sampled_from(["k1", "k2", "k3", "k4"]), st.lists(words, max_size=6), min_size=1
)
filled = st.dictionaries(
    st.sampled_from(["k1", "k2", "k3", "k4"]),
    st.lists(words, min_size=1, max_size=6),
    min_size=2,
)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 60), st.integers(0, 99))
def test_sets_are_distinct_sorted_and_as_many_as_there_are(m, size, n, seed):
    size = min(size, m)
    sets = distinct_sets(m, size, n, seed)
    assert sets.shape == (min(n, math.comb(m, size)), size)
    assert len({tuple(row) for row in sets.tolist()}) == len(sets)
    assert (np.diff(sets, axis=1) > 0).all()
    assert sets.min() >= 0
    assert sets.max() < m
    np.testing.assert_array_equal(sets, distinct_sets(m, size, n, seed))
    if n >= math.comb(m, size):
        assert sets.tolist() == [list(c) for c in itertools.combinations(range(m), size)]


def test_sets_of_fifty_are_drawn_evenly():
    counts = np.zeros(50)
    for seed in range(20):
        sets = distinct_sets(50, 3, 500, seed)
        assert len({tuple(row) for row in sets.tolist()}) == 500
        counts += np.bincount(sets.ravel(), minlength=50)
    expected = 20 * 500 * 3 / 50
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


@given(ragged, st.integers(1, 4), st.integers(1, 8), st.integers(0, 99))
def test_composed_concepts_are_unordered_and_unlike(texts, size, n, seed):
    atoms = ClassConcepts(texts)
    made = compose(atoms, size, n, random_state=seed)
    assert made == compose(atoms, size, n, random_state=seed)
    for label in atoms.classes:
        distinct = set(atoms[label])
        members = [frozenset(text.split(" or ")) for text in made[label]]
        used = min(size, len(distinct))
        assert len(set(members)) == len(members)
        assert all(len(m) == used and m <= distinct for m in members)
        assert len(members) == (min(n, math.comb(len(distinct), used)) if distinct else 0)
        alone = compose(atoms.select_classes([label]), size, n, random_state=seed)
        assert alone[label] == made[label]  # other classes change nothing


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: compose(c, 0), "size must be a whole number of at least 1, got 0"),
        (lambda c: distinct_sets(3, 4), "between 1 and the number of items, 3, got 4"),
        (lambda c: distinct_sets(3, 2, 0), "n must be a whole number of at least 1, got 0"),
        (lambda c: concept_margins(c.select_classes(["a"]), random_encoder()), "only one"),
        (lambda c: concept_margins(c), "no vectors for this: give an encoder"),
        (lambda c: concept_margins(c.embed(random_encoder())), "Plain class prompts need an enc"),
        (lambda c: concept_margins(c, random_encoder(), prototypes="median"), "Unknown kind of p"),
        (lambda c: concept_margins(c, random_encoder(), prototypes=np.eye(3)), r"\(2, 16\), got"),
        (lambda c: filter_margins(c, random_encoder(), min_concepts=0), "min_concepts must be"),
        (
            lambda c: select_diverse(c, 0, random_encoder()),
            "n_select must be a whole number of at least 1",
        ),
        (lambda c: select_diverse(c, 1, random_encoder(), kernel="rbf"), "Unknown kernel 'rbf'"),  # type: ignore[arg-type]
        (lambda c: audit("abc"), "must be a mapping from class"),  # type: ignore[arg-type]
        (lambda c: audit(c).clean(keep=["typo"]), "'typo' is no fault. Known: duplicate"),
    ],
)
def test_bad_input_gets_a_clear_answer(call, words):
    with pytest.raises(InputError, match=words):
        call(ClassConcepts({"a": ["x", "y"], "b": ["z"]}))


@given(filled, st.sampled_from(["plain", "mean"]))
def test_margins_by_their_definition(texts, kind):
    encoder = random_encoder()
    bank = ClassConcepts(texts).embed(encoder)
    found = concept_margins(bank, encoder, prototypes=kind)
    P = bank.bank.vectors.astype(np.float64)
    plain = encoder.encode_text(bank.plain_prompts()).astype(np.float64)
    for row, k in enumerate(bank.labels):
        scores = []
        for j, (start, stop) in enumerate(bank.ranges):
            if kind == "plain":
                centre = plain[j]
            else:
                others = [P[i] for i in range(start, stop) if i != row]
                centre = np.sum(others, axis=0) if others else np.full(16, np.nan)
                if np.linalg.norm(centre) < 1e-9:
                    centre = np.full(16, np.nan)
            scores.append(P[row] @ centre / np.linalg.norm(centre))
        rest = [s for j, s in enumerate(scores) if j != k]
        expected = scores[k] - max(rest)
        assert found.values[row] == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(filled, st.floats(-0.5, 0.5), st.integers(1, 4))
def test_filter_keeps_what_passes_and_never_too_few(texts, threshold, least):
    encoder = random_encoder()
    bank = ClassConcepts(texts).embed(encoder)
    values = concept_margins(bank, encoder).values
    made = filter_margins(bank, encoder, threshold=threshold, min_concepts=least)
    for k, label in enumerate(bank.classes):
        row = values[bank.offsets[k] : bank.offsets[k + 1]]
        passed = int((row >= threshold).sum())
        assert len(made[label]) == max(passed, min(least, len(row)))
        kept = [v for v, t in zip(row, bank[label], strict=True) if t in made[label]]
        assert max(kept) == max(row)
    assert made.bank is not None


def planted(foreign):
    """Four classes with directions of their own; some concepts belong to another class."""
    centres = np.eye(12)[:4]
    texts = {f"k{k}": [f"k{k} own{i}" for i in range(8)] for k in range(4)}
    for k, i in foreign:
        texts[f"k{k}"][i] = f"k{(k + 1) % 4} stray{i}"

    def encode(items):
        rows = []
        for text in items:
            k = next(
                int(w[1]) for w in text.replace(".", "").split() if w[0] == "k" and w[1:].isdigit()
            )
            noise = np.random.default_rng([*text.encode()]).normal(size=12) * 0.1
            rows.append(centres[k] + noise)
        return np.stack(rows)

    encoder = CallableEncoder(lambda x: x.mean(dim=(2, 3)), encode, 12, fingerprint="planted")
    return ClassConcepts(texts), encoder


@pytest.mark.parametrize("prototypes", ["plain", "mean"])
def test_margin_filter_finds_exactly_the_planted_strays(prototypes):
    foreign = {(0, 1), (0, 5), (2, 0), (3, 7)}
    concepts, encoder = planted(foreign)
    made = filter_margins(concepts, encoder, template="concept", prototypes=prototypes)
    expected = {
        f"k{k}": [t for i, t in enumerate(concepts[f"k{k}"]) if (k, i) not in foreign]
        for k in range(4)
    }
    assert made.texts == expected
    assert made.meta["margin_filter"] == {"threshold": 0.0, "dropped": 4, "kept_up": []}


def test_a_margin_that_cannot_be_measured_is_no_reason_to_drop():
    bank = ClassConcepts({"a": ["alone"], "b": ["x", "y"]}).embed(random_encoder())
    made = filter_margins(bank, prototypes="mean", threshold=-3.0)
    assert made.texts == bank.texts
    assert made.meta["margin_filter"]["kept_up"] == []


@pytest.mark.parametrize("kernel", ["text", "residual"])
@pytest.mark.parametrize("exchange", [False, True])
def test_select_diverse_keeps_as_many_as_asked(kernel, exchange):
    concepts = compose(ClassConcepts({"a": list("uvwxyz"), "b": ["u", "v"]}), 2, 12, random_state=0)
    encoder = random_encoder()
    made = select_diverse(concepts, 5, encoder, kernel=kernel, exchange=exchange)
    assert made.counts.tolist() == [5, 1]
    assert set(made["a"]) <= set(concepts["a"])
    again = select_diverse(concepts.embed(encoder), 5, encoder, kernel=kernel, exchange=exchange)
    assert again.texts == made.texts
    assert again.bank is not None


def test_select_by_margin_alone_is_the_limit_of_large_weight():
    encoder = random_encoder()
    concepts = ClassConcepts({"a": [f"x{i}" for i in range(12)], "b": ["y"]}).embed(encoder)
    made = select_diverse(concepts, 4, encoder, margin_weight=200.0)
    values = concept_margins(concepts, encoder).values[:12]
    assert set(made["a"]) == {f"x{i}" for i in np.argsort(-values)[:4]}


def test_select_diverse_avoids_twins():
    def encode(texts):
        return np.stack([np.eye(4)["rgbk".index(t.strip(".")[-1])] for t in texts])

    encoder = CallableEncoder(lambda x: x.mean(dim=(2, 3)), encode, 4, fingerprint="twins")
    concepts = ClassConcepts({"k": ["one r", "two r", "one g", "two g", "one b", "two b"]})
    chosen = select_diverse(concepts, 3, encoder)["k"]
    assert {text[-1] for text in chosen} == {"r", "g", "b"}


# -- audit ---------------------------------------------------------------------------------
def test_audit_finds_exactly_what_was_planted():
    concepts, encoder = planted({(1, 3)})
    texts = concepts.texts
    texts["k0"] += ["k0  OWN0", "k0 own1"]  # duplicates of letters
    texts["k3"] = texts["k3"][:2]
    found = audit(texts, encoder, template="concept", min_concepts=4)
    frame = found.to_frame().set_index("concept")
    assert list(frame.index[frame["duplicate"]]) == ["k0  OWN0", "k0 own1"]
    assert frame.loc["k0  OWN0", "twin"] == "k0 own0"
    assert list(frame.index[frame["negative margin"]]) == ["k2 stray3"]
    assert frame.loc["k2 stray3", "rival"] == "k2"
    assert found.named[texts["k0"].index("k0 own1")] == ["k0"]
    assert found.near_empty == ("k3",)
    assert not found.ok
    assert found.by_class().loc["k0", "duplicate"] == 2
    assert "classes with fewer than 4 concepts: 1 (k3)" in str(found)
    cleaned = found.clean(keep=["own name", "other name", "near-duplicate"])
    assert cleaned["k0"] == concepts["k0"]
    assert cleaned["k1"] == [t for t in concepts["k1"] if "stray" not in t]


@given(ragged)
def test_audit_of_texts_agrees_with_a_plain_count(texts):
    found = audit(texts)
    for label, (start, stop) in zip(found.concepts.classes, found.concepts.ranges, strict=True):
        values = texts[label]
        assert found.faults["duplicate"][start:stop].sum() == len(values) - len(set(values))
    assert set(found.shared) == {
        t for vs in texts.values() for t in vs if sum(t in w for w in texts.values()) > 1
    }
    assert set(found.skipped) == {"too long", "near-duplicate", "negative margin"}
    assert found.empty == tuple(label for label, values in texts.items() if not values)
    cleaned = found.clean()
    assert all((len(cleaned[c]) == 0) == (not values) for c, values in texts.items())
    assert not audit(cleaned).faults["duplicate"].any() or cleaned.meta["audit"]["kept_up"]


def test_audit_of_one_class_of_empty_ones_and_of_vectors():
    one = audit({"a": ["x", "y"], "b": []}, random_encoder())
    assert one.skipped == {"negative margin": "margins compare classes, and only one has concepts"}
    assert one.margins is None
    assert one.plot() is not None
    none = audit({"a": [], "b": []}, random_encoder())
    assert none.near_empty == none.empty == ("a", "b")
    assert none.plot() is not None
    bank = ClassConcepts({"a": ["x", "y"], "b": ["z", "w"]}).embed(random_encoder())
    assert "negative margin" in audit(bank).faults  # from the vectors alone
    with pytest.raises(SpaceMismatchError, match="made by another encoder"):
        audit(bank, random_encoder(salt="other"))


def test_audit_of_long_texts():
    encoder = random_encoder()
    encoder.context_length = 9
    encoder._token_counts = lambda texts: [len(text.split()) for text in texts]
    found = audit({"a": ["x", "y " * 20, "z"], "b": ["v", "w"]}, encoder, min_concepts=2)
    assert found.faults["too long"].tolist() == [False, True, False, False, False]
    assert np.isnan(found.margins[1])
    assert np.isfinite(found.margins[[0, 2, 3, 4]]).all()
    assert found.clean(keep=["negative margin"])["a"] == ["x", "z"]
