"""CRAFT: concepts by recursive activation factorisation."""

__all__: list[str] = []
