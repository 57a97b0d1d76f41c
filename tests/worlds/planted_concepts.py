"""Concept scores with known truth: classes are signatures of concepts, seen through noise."""

import numpy as np


def planted(n=600, k=12, K=5, per_class=2, noise=0.35, seed=0):
    """Give scores (n, k), classes (n,), true concepts (n, k) and the table (K, k)."""
    rng = np.random.default_rng(seed)
    table = np.zeros((K, k), dtype=bool)
    for c in range(K):
        table[c, [(2 * c + i) % k for i in range(per_class)]] = True
    y = rng.integers(K, size=n)
    truth = table[y] | (rng.random((n, k)) < 0.1)
    scores = 0.2 + 0.05 * (truth + noise * rng.normal(size=(n, k)))
    return scores, y, truth, table


def bank_of(k=12, d=16, seed=1, space="space-a"):
    """Give a bank of orthonormal concepts and the features that have given scores."""
    from conceptlab import ConceptBank

    rows = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0][:k]
    return ConceptBank(rows, [f"word {j}" for j in range(k)], space=space)
