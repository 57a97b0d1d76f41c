"""The methods that make a classifier forget, one a file."""

__all__: list[str] = []
