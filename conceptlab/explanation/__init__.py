"""What was found in a model, as one object: frame, tree, plots, page."""

from conceptlab.explanation.result import Explanation

__all__ = ["Explanation"]
