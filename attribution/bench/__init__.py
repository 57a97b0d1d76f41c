"""Benchmarks that need attribution: known truth and real photos."""

__all__: list[str] = []
