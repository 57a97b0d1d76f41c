"""Sparse linear heads over concepts."""

from __future__ import annotations

from bottlenecks.heads.estimator import SparseLinearHead as SparseLinearHead
from bottlenecks.heads.estimator import sparse_softmax_path as sparse_softmax_path
from bottlenecks.heads.objective import (
    number_of_effective_concepts as number_of_effective_concepts,
)
from bottlenecks.heads.path import SoftmaxPath as SoftmaxPath

__all__ = [
    "SoftmaxPath",
    "SparseLinearHead",
    "number_of_effective_concepts",
    "sparse_softmax_path",
]
