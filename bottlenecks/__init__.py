"""Classification through concepts: sparse, named bottlenecks."""
