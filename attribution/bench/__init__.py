"""Benchmarks that need attribution: known truth and real photos."""
