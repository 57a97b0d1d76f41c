"""What holds for every bank."""

import tempfile

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conceptlab.bank import ConceptBank

finite = st.floats(-100, 100, width=32)


@st.composite
def banks(draw, d=None):
    k = draw(st.integers(1, 6))
    width = d or draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    vectors = draw(arrays(dtype, (k, width), elements=finite))
    vectors[~vectors.any(axis=1), 0] = 1
    name = st.text(min_size=1, max_size=8).filter(lambda s: s.strip() and s.isprintable())
    names = draw(st.lists(name, min_size=k, max_size=k, unique=True))
    intercepts = draw(st.none() | arrays(dtype, (k,), elements=finite))
    parents = draw(
        st.none()
        | st.tuples(*(st.none() | st.integers(0, i - 1) if i else st.none() for i in range(k)))
    )
    return ConceptBank(vectors, names, space="s", intercepts=intercepts, parents=parents)


@given(banks())
def test_round_trip_keeps_every_bit(bank):
    with tempfile.TemporaryDirectory() as folder:
        again = ConceptBank.load(bank.save(f"{folder}/bank"))
    assert again == bank
    assert again.vectors.dtype == bank.vectors.dtype
    assert again.vectors.tobytes() == bank.vectors.tobytes()


@given(banks(d=3), st.randoms(use_true_random=False))
def test_score_follows_the_order_of_concepts(bank, random):
    order = list(range(len(bank)))
    random.shuffle(order)
    X = np.linspace(-1, 1, 12).reshape(4, 3)
    turned = bank.select(order)
    np.testing.assert_allclose(turned.score(X), bank.score(X)[:, order], rtol=1e-5, atol=1e-4)
    assert turned.select([order.index(i) for i in range(len(bank))]) == bank


@given(banks(d=3))
def test_merge_of_parts_is_the_whole_up_to_links(bank):
    half = len(bank) // 2
    if half == 0:
        return
    both = bank[:half].merge(bank[half:])
    assert both.names == bank.names
    np.testing.assert_array_equal(both.vectors, bank.vectors)


@given(banks(d=4), st.floats(0.01, 100))
def test_cosine_does_not_see_lengths(bank, scale):
    X = np.linspace(-1, 2, 8).reshape(2, 4)
    longer = ConceptBank(bank.vectors.astype(np.float64) * scale, bank.names, space=None)
    np.testing.assert_allclose(
        longer.score(X * scale, similarity="cosine"), bank.score(X, similarity="cosine"), atol=1e-5
    )
