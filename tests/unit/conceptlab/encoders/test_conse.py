"""ConSE: an image is the mix of its likeliest names."""

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab import ConceptBank
from conceptlab.encoders import ConSEEncoder
from conceptlab.errors import InputError
from conceptlab.zeroshot import BayesianZeroShot

NAMES = ["red", "green", "blue"]
WORDS = dict(zip(NAMES, np.random.default_rng(0).normal(size=(3, 5)), strict=True))


def read(texts):
    return np.stack([WORDS.get(text, np.ones(5)) for text in texts])


class Colour(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(8.0))

    def forward(self, x):
        return self.weight * x.mean(dim=(2, 3))


def images():
    return np.random.default_rng(1).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("n_names", [1, 2, 3])
def test_equal_to_the_sum_by_hand(n_names):
    classifier = Colour().train()
    encoder = ConSEEncoder(classifier, read, NAMES, n_names)
    found = encoder.encode_image(images(), normalize=False)
    unit = np.stack([v / np.linalg.norm(v) for v in WORDS.values()])
    for image, row in zip(images(), found, strict=True):
        e = np.exp(8 * image.mean(axis=(1, 2)) / 255)
        p = e / e.sum()
        top = np.argsort(-p)[:n_names]
        np.testing.assert_allclose(row, (p[top] / p[top].sum()) @ unit[top], atol=1e-5)
    assert classifier.training
    assert classifier.weight.requires_grad
    assert encoder.fingerprint == ConSEEncoder(Colour(), read, NAMES, n_names).fingerprint


def test_it_serves_banks_and_zero_shot():
    encoder = ConSEEncoder(Colour(), read, NAMES, 1)
    pure = np.zeros((3, 3, 8, 8), dtype=np.uint8)
    for k in range(3):
        pure[k, k] = 255
    bank = ConceptBank.from_texts(encoder, NAMES, templates=None)
    assert bank.score(encoder.encode_image(pure)).argmax(axis=1).tolist() == [0, 1, 2]
    X = encoder.encode_image(pure)
    model = BayesianZeroShot({n: v[None] for n, v in zip(NAMES, bank.vectors, strict=True)}).fit()
    assert model.predict(X).tolist() == NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Colour(), read, NAMES, 0), "n_names must be a whole number of at least 1"),
        ((lambda x: x, read, NAMES), "must be a torch.nn.Module"),
        ((Colour(), lambda texts: np.ones(3), NAMES), r"expected \(3, d\)"),
        ((Colour(), lambda texts: np.zeros((3, 2)), NAMES), "'red' has length zero"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        ConSEEncoder(*arguments)


def test_another_width_is_named_when_it_comes():
    with pytest.raises(InputError, match="3\\) for 2 class names"):
        ConSEEncoder(Colour(), read, NAMES[:2], 1).encode_image(images())
    encoder = ConSEEncoder(Colour(), lambda t: np.ones((len(t), 5 if len(t) == 3 else 4)), NAMES, 1)
    with pytest.raises(InputError, match="vectors of length 5"):
        encoder.encode_text(["a text"])
