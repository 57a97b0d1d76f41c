"""The shell commands of ``unlearning``."""

__all__: list[str] = []
