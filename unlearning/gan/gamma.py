"""Degree of unlearning from distributions of image-text scores."""

from __future__ import annotations

__all__ = ["degree_of_unlearning"]

from typing import Any

from conceptlab.arrays import ArrayLike, as_floats, check_finite
from conceptlab.errors import InputError


def degree_of_unlearning(before: Any, after: Any, reference: ArrayLike) -> float:
    """Tell how far scores moved from what they were to what they would be without the concept.

    Parameters
    ----------
    before, after : array-like of shape (n,)
        Image-text scores of latents that had the concept, by the old and the new generator.
    reference : array-like of shape (m,)
        Scores of images of latents that never had it, by the old generator.

    Returns
    -------
    float
        1 - W(after, reference) / W(before, reference) with the Wasserstein-1 distance W: 0
        where nothing was forgotten, 1 where the scores cannot be told from the reference;
        negative where they moved away.

    Raises
    ------
    InputError
        Empty or non-finite scores, or scores of `before` that equal the reference, where
        there is nothing to forget.

    Notes
    -----
    The paper assesses unlearning by the Wasserstein-1 distance between distributions of
    scores from other vision-language models; dividing by the distance before makes models
    with different scales comparable.

    References
    ----------
    "Prompting Forgetting: Unlearning in GANs via Textual Guidance", 2025, arXiv:2504.01218.

    Examples
    --------
    >>> degree_of_unlearning([1.0, 1.0], [0.25, 0.25], [0.0, 0.0])
    0.75
    """
    from scipy.stats import wasserstein_distance

    parts = {}
    for name, values in (("before", before), ("after", after), ("reference", reference)):
        parts[name] = as_floats(values, name).ravel()
        if not parts[name].size:
            raise InputError(f"{name} holds no scores.", code="CL-INPUT-EMPTY")
        check_finite(parts[name], name)
    whole = float(wasserstein_distance(parts["before"], parts["reference"]))
    if whole == 0:
        raise InputError(
            "The scores before equal those of the reference: there is nothing to forget.",
            code="CL-INPUT-ZERO",
        )
    return 1.0 - float(wasserstein_distance(parts["after"], parts["reference"])) / whole
