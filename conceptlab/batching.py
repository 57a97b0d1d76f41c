"""Run a function over many rows in batches that fit the memory.

``batch_size="auto"`` starts large, halves when memory runs out, and remembers
what fitted, so that the next call starts there.
"""

from __future__ import annotations

__all__ = ["BatchMemory", "check_batch_size", "iter_batches", "run_batched", "run_together"]

import gc
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import torch

from conceptlab.arrays import as_tensor, resolve_device
from conceptlab.errors import InputError
from conceptlab.progress import Progress, track

T = TypeVar("T")
AutoInt = int | Literal["auto"]
_START = {"cpu": 64}
_START_ELSEWHERE = 256
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


class BatchMemory:
    """What batch size has fitted so far; one for each model and kind of input.

    Attributes
    ----------
    fitted : int or None
        The size that ``"auto"`` starts from; None until memory has run out once.

    Examples
    --------
    >>> memory = BatchMemory()
    >>> print(memory.fitted)
    None
    """

    def __init__(self) -> None:
        self.fitted: int | None = None


def check_batch_size(batch_size: Any) -> AutoInt:
    """Check that `batch_size` is "auto" or an integer of at least one.

    Parameters
    ----------
    batch_size : int or "auto"
        What a user gave.

    Returns
    -------
    int or "auto"

    Raises
    ------
    InputError
        ``CL-INPUT-OPTION`` otherwise.

    Examples
    --------
    >>> check_batch_size("auto"), check_batch_size(np.int64(8))
    ('auto', 8)
    """
    if batch_size == "auto":
        return "auto"
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size < 1:
        raise InputError(
            f"batch_size must be 'auto' or an integer of at least 1, got {batch_size!r}.",
            code="CL-INPUT-OPTION",
        )
    return int(batch_size)


def iter_batches(
    fn: Callable[[int, int], T],
    n: int,
    *,
    batch_size: AutoInt = "auto",
    device: torch.device | str = "cpu",
    largest: int | None = None,
    memory: BatchMemory | None = None,
    description: str = "compute",
    progress: Progress = None,
) -> Iterator[tuple[int, int, T]]:
    """Call ``fn(start, stop)`` for consecutive ranges that cover ``range(n)``.

    Parameters
    ----------
    fn : callable
        Works on rows ``start`` to ``stop``; called again with fewer rows when
        memory runs out and `batch_size` is "auto".
    n : int
        Number of rows.
    batch_size : int or "auto"
        Rows a call.
    device : torch.device or str
        Where `fn` computes; decides the first size.
    largest : int, optional
        The first size, where the caller knows better.
    memory : BatchMemory, optional
        Kept between calls by the owner of the model.
    description, progress
        See :func:`conceptlab.progress.track`; one step is one batch.

    Yields
    ------
    start, stop : int
    value : object
        What `fn` returned for the range.

    Raises
    ------
    InputError
        For a bad `batch_size`. Memory that does not suffice for one row raises
        the error of torch itself.

    Examples
    --------
    >>> [value for _, _, value in iter_batches(lambda a, b: list(range(a, b)), 5, batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """
    batch_size = check_batch_size(batch_size)
    memory = memory or BatchMemory()
    if batch_size == "auto":
        usual = largest or _START.get(torch.device(device).type, _START_ELSEWHERE)
        first = memory.fitted or usual
    else:
        first = batch_size
    starts = range(0, n, first)
    for start in track(starts, description=description, progress=progress, unit="batch"):
        stop, limit = min(start + first, n), first
        while start < stop:
            if batch_size == "auto":
                limit = min(limit, memory.fitted or limit)
            end = min(start + limit, stop)
            try:
                value = fn(start, end)
            except (RuntimeError, MemoryError) as error:
                if batch_size != "auto" or end - start == 1 or not _is_out_of_memory(error):
                    raise
                failed = True
            else:
                failed = False
            if failed:  # outside the handler, whose traceback keeps the tensors alive
                memory.fitted = limit = max(1, (end - start) // 2)
                _free_memory()
                continue
            yield start, end, value
            start = end


def run_batched(
    fn: Callable[[torch.Tensor], torch.Tensor],
    x: Any,
    *,
    batch_size: AutoInt = "auto",
    device: torch.device | str = "auto",
    memory: BatchMemory | None = None,
    out_device: torch.device | str | None = None,
    description: str = "compute",
    progress: Progress = None,
) -> torch.Tensor:
    """Apply `fn` to the rows of `x` in batches and join the answers.

    Parameters
    ----------
    fn : callable
        Takes (b, ...) on `device`, answers (b, ...), row by row.
    x : array-like of shape (n, ...)
        Moved to `device` batch by batch.
    batch_size, memory, description, progress
        See :func:`iter_batches`.
    device : torch.device or str
        Where to compute; see :func:`conceptlab.arrays.resolve_device`.
    out_device : torch.device or str, optional
        Where the answer is gathered; the device of `x` by default.

    Returns
    -------
    torch.Tensor of shape (n, ...)

    Raises
    ------
    InputError
        If `x` has no rows (``CL-INPUT-EMPTY``) or `batch_size` is bad.

    Examples
    --------
    >>> run_batched(lambda b: 2 * b, torch.ones(5, 3), batch_size=2).sum()
    tensor(30.)
    """
    target = resolve_device(device, like=x)
    tensor = as_tensor(x)
    if len(tensor) == 0:
        raise InputError("There are no rows to run over. Give at least one.", code="CL-INPUT-EMPTY")
    home = torch.device(out_device) if out_device is not None else tensor.device
    out: torch.Tensor | None = None
    for start, stop, value in iter_batches(
        lambda a, b: fn(tensor[a:b].to(target)).to(home),
        len(tensor),
        batch_size=batch_size,
        device=target,
        memory=memory,
        description=description,
        progress=progress,
    ):
        if out is None:
            if stop == len(tensor):
                return value
            out = value.new_empty((len(tensor), *value.shape[1:]))
        out[start:stop] = value
    if out is None:
        raise RuntimeError("no batch was run")
    return out


def run_together(
    fn: Callable[[int, int], torch.Tensor],
    n: int,
    *,
    batch_size: int | str = "auto",
    memory: BatchMemory | None = None,
) -> torch.Tensor:
    """Call ``fn(0, n)``, or for parts of the range when memory runs out.

    Parameters
    ----------
    fn : callable
        Works on rows ``start`` to ``stop`` of one batch, and answers with as many.
    n : int
        Rows of the batch.
    batch_size : int or "auto"
        What the user said of the size of batches; a number is not gone below.
    memory : BatchMemory, optional
        Kept between batches.

    Returns
    -------
    torch.Tensor of shape (n, ...)
    """
    size: AutoInt = "auto" if batch_size == "auto" else max(n, 1)
    batches = iter_batches(fn, n, batch_size=size, largest=n, memory=memory, progress=False)
    parts = [value for _, _, value in batches]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
