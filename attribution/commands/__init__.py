"""The shell commands of ``attribution``."""
