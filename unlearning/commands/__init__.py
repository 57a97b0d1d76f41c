"""The shell commands of ``unlearning``."""
