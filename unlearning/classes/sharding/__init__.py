"""An ensemble over shards: forgetting by training a part again."""
