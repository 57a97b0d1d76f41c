"""The shell commands of ``conceptlab``."""

__all__: list[str] = []
