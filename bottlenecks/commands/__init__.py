"""The shell commands of ``bottlenecks``."""

__all__: list[str] = []
