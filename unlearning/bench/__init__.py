"""Benchmarks of the package; run them by ``python -m conceptlab.bench NAME``."""

__all__: list[str] = []
