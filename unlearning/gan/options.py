"""Checks of what is asked for, before anything is computed."""

from __future__ import annotations

__all__ = ["check_families", "target_texts"]

from collections.abc import Mapping, Sequence

from conceptlab.errors import InputError


def target_texts(target: str | Sequence[str]) -> list[str]:
    """Give the targets as a list, each once.

    Raises
    ------
    InputError
        No text, or an empty one (``CL-INPUT-EMPTY``).
    """
    given = [target] if isinstance(target, str) else target
    good = isinstance(given, Sequence) and all(isinstance(t, str) and t.strip() for t in given)
    if not good or not given:
        raise InputError(
            f"target must be a text or several, got {target!r}.", code="CL-INPUT-EMPTY"
        )
    return list(dict.fromkeys(given))


def check_families(retain: Mapping[str, Sequence[str]] | None) -> None:
    """See that attributes come in families of texts.

    Raises
    ------
    InputError
        ``CL-INPUT-TYPE``.
    """
    if retain is None:
        return
    example = '{"colour": ["red", "blue"], ...}'
    if not isinstance(retain, Mapping):
        raise InputError(
            f"retain must be families of texts, such as {example}, got {type(retain).__name__}.",
            code="CL-INPUT-TYPE",
        )
    for name, values in retain.items():
        texts = not isinstance(values, str) and isinstance(values, Sequence)
        if not texts or not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise InputError(
                f"retain[{name!r}] must be a list of texts, such as {example}, got {values!r}.",
                code="CL-INPUT-TYPE",
            )
