"""What the user of a run is told: a warning of its own kind, that can be filtered."""

from __future__ import annotations

__all__ = ["UnlearningWarning"]


class UnlearningWarning(UserWarning):
    """Something about a run or its data that its user should know."""
