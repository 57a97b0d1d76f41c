"""The shell commands of ``conceptlab``."""
