"""Benchmarks of the bottlenecks: us beside the peer."""
