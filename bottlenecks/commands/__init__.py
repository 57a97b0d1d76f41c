"""The shell commands of ``bottlenecks``."""
