"""Several requests after each other, without the data of the earlier ones."""

from __future__ import annotations

__all__ = ["unlearn_sequence"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.base import clone
from torch import nn

from conceptlab.errors import InputError
from conceptlab.progress import Progress
from conceptlab.seeds import draw_seed
from unlearning.classes.base import Unlearner
from unlearning.data import as_samples
from unlearning.result import UnlearnResult


def unlearn_sequence(
    unlearner: Unlearner,
    model: nn.Module,
    requests: Sequence[Any],
    *,
    retain: Any,
    valid: Any = None,
    progress: Progress = None,
    checkpoint: Any = None,
) -> list[UnlearnResult]:
    """Answer requests one by one, each on the model of the one before.

    The data of an earlier request are gone when the next one comes, as they
    must be where they were deleted; an audit after each request shows whether
    an earlier class comes back.

    Parameters
    ----------
    unlearner : Unlearner
        The method; cloned for each request. With an integer `random_state`
        request i uses ``random_state + i``.
    model : torch.nn.Module
        The classifier; never changed.
    requests : sequence
        For each request the data to forget, as in :meth:`Unlearner.unlearn`.
    retain : object
        All data to start with that no request has withdrawn; samples of a
        class are taken out when its request comes, and those of later requests
        still count as retained until then.
    valid : object, optional
        Held-out data.
    progress : bool, callable or None
        See ``conceptlab.progress``.
    checkpoint : path-like, optional
        A folder; request i uses the folder ``request-i`` in it.

    Returns
    -------
    list of UnlearnResult
        One for each request.

    Examples
    --------
    >>> import torch
    >>> from unlearning import LogitMask
    >>> model, X = nn.Linear(5, 5), torch.eye(5)
    >>> first, second = unlearn_sequence(
    ...     LogitMask(), model, [(X[:1], [0]), (X[1:2], [1])], retain=(X[1:], [1, 2, 3, 4])
    ... )
    >>> first.classes, second.classes
    ([0], [1])
    """
    if len(requests) == 0:
        raise InputError("requests is empty: give at least one.", code="CL-INPUT-EMPTY")
    kept = as_samples(retain, name="retain")
    results: list[UnlearnResult] = []
    for i, request in enumerate(requests):
        forget = as_samples(request, name=f"forget of request {i + 1}")
        kept = kept.select(~torch.isin(kept.y, torch.tensor(forget.classes)))
        if len(kept) == 0:
            raise InputError(
                f"Nothing is left to retain after request {i + 1}.", code="CL-INPUT-EMPTY"
            )
        one = clone(unlearner)
        if hasattr(one, "random_state") and one.random_state is not None:
            one.set_params(random_state=draw_seed(one.random_state) + i)
        result = one.unlearn(
            model,
            forget=forget,
            retain=kept,
            valid=valid,
            progress=progress,
            checkpoint=None if checkpoint is None else Path(checkpoint) / f"request-{i + 1}",
        )
        results.append(result)
        model = result.model
    return results
