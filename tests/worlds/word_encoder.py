"""A small encoder of texts whose space is known: a text is the sum of its words' vectors."""

import hashlib
import re

import numpy as np

from conceptlab.encoders import CallableEncoder

SKIP = {"a", "photo", "of", "with", "the", "an"}


def word_vector(word, dim=64):
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).normal(size=dim)


class WordEncoder(CallableEncoder):
    """Sums word vectors; `meanings` gives words that stand for others; keeps what it read."""

    def __init__(self, meanings=None, *, context=None, dim=64, fingerprint="words"):
        self.texts = []
        self.meanings = dict(meanings or {})

        def encode(texts):
            self.texts += texts
            return np.stack([self.vector(text, dim) for text in texts]).astype(np.float32)

        super().__init__(
            lambda x: x.mean(dim=(2, 3)), encode, dim, name="words", fingerprint=fingerprint
        )
        self.context_length = context

    def _token_counts(self, texts):
        return [len(re.findall(r"[a-z0-9]+", text.lower())) for text in texts]

    def vector(self, text, dim):
        words = re.findall(r"[a-z0-9]+", text.lower())
        total = np.full(dim, 1e-3)
        for word in words:
            for meaning in self.meanings.get(word, [word]):
                if meaning not in SKIP:
                    total = total + word_vector(meaning, dim)
        return total
