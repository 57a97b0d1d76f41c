"""Methods that make a classifier forget classes, one a file; see :mod:`unlearning`."""

from __future__ import annotations

__all__: list[str] = []
