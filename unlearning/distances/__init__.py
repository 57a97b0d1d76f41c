"""Distances between two sets of features."""

__all__: list[str] = []
