"""Concept vectors and images for tests of the zero-shot classifier."""

import numpy as np


def bank(K=5, C=7, d=12, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, 1, d))
    P = centres + 0.7 * rng.normal(size=(K, C, d))
    return (P / np.linalg.norm(P, axis=-1, keepdims=True)).astype(dtype)


def images_of(P, n=40, seed=1, noise=0.8):
    rng = np.random.default_rng(seed)
    y = rng.integers(len(P), size=n)
    return P.mean(axis=1)[y] + noise * rng.normal(size=(n, P.shape[-1])) / np.sqrt(P.shape[-1]), y
