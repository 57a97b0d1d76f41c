"""What the evaluation needs to know of a data set."""

from __future__ import annotations

__all__ = ["RemovalDataset"]

from collections.abc import Sequence

import numpy as np
import torch

from conceptlab.errors import unknown_name


class RemovalDataset:
    """Images with object masks; a subclass gives the methods below.

    Images are named by integers that mean something to the data set alone.

    Attributes
    ----------
    name : str
        For reports.
    class_names : tuple of str
        What can be removed.
    size : (int, int)
        Height and width of all images.
    concepts : tuple of str
        Texts for concept presence and concept FID; empty where there are none.
    has_truth : bool
        Whether the true removals are known.

    Examples
    --------
    >>> from unlearning.removal import SceneRemovals
    >>> data = SceneRemovals(("star",), n=4, size=32)
    >>> isinstance(data, RemovalDataset), data.class_names
    (True, ('star',))
    """

    name: str = "data"
    class_names: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    concepts: tuple[str, ...] = ()
    has_truth: bool = False

    def with_class(self, name: str, *, min_area: float = 0.0, max_area: float = 1.0) -> np.ndarray:
        """Give the images that hold a class, (n,) int64.

        Parameters
        ----------
        name : str
            One of ``class_names``.
        min_area, max_area : float
            Bounds of the share of the picture that the class covers.

        Returns
        -------
        ndarray of shape (n,), int64
        """
        raise NotImplementedError

    def without_class(self, name: str) -> np.ndarray:
        """Give the images without any instance of the class, (n,) int64.

        Crowd and ignored regions count as the class.
        """
        raise NotImplementedError

    def images(self, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Read images, (n, 3, H, W) float32 in [0, 1]."""
        raise NotImplementedError

    def masks(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Give the union of the masks of all instances of a class.

        Parameters
        ----------
        name : str
            The class.
        ids : sequence of int
            Which images.

        Returns
        -------
        ndarray of shape (n, 1, H, W), bool
        """
        raise NotImplementedError

    def truth(self, name: str, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Give the images as they are without a class.

        Parameters
        ----------
        name : str
            The class.
        ids : sequence of int
            Which images.

        Returns
        -------
        Tensor of shape (n, 3, H, W), float32 in [0, 1]
        """
        raise NotImplementedError

    def places(self, name: str, ids: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Give masks of where a class would be in images without it.

        Parameters
        ----------
        name : str
            The class.
        ids : sequence of int
            Which images.

        Returns
        -------
        ndarray of shape (n, 1, H, W), bool, or None
            None where nobody knows; then holes of other images are borrowed.
        """
        return None

    def prompts(self, name: str) -> list[str]:
        """Give the texts that stand for the class."""
        words = name.replace("_", " ")
        return [f"a photo of a {words}.", f"a picture with a {words}.", f"a {words}."]

    def label(self, index: int) -> str:
        """Give what messages and reports call an image."""
        return str(index)

    def check_class(self, name: str) -> None:
        """Raise where a class is none of ``class_names``."""
        if name not in self.class_names:
            raise unknown_name("class", name, self.class_names)

    def __repr__(self) -> str:
        shown = ", ".join(self.class_names[:5]) + (", ..." if len(self.class_names) > 5 else "")
        return f"{type(self).__name__}({self.name!r}, classes: {shown})"
