"""An ensemble over shards: forgetting by training a part again."""

__all__: list[str] = []
