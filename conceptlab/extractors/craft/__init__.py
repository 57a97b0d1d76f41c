"""CRAFT: concepts by recursive activation factorisation."""
