"""The shell commands of ``attribution``."""

__all__: list[str] = []
