"""Data sets with objects to remove: rendered scenes, COCO's format, folders."""

from __future__ import annotations

from unlearning.removal.datasets.base import RemovalDataset
from unlearning.removal.datasets.coco import CocoRemovals
from unlearning.removal.datasets.folder import MaskFolder
from unlearning.removal.datasets.scenes import SceneRemovals

__all__ = ["CocoRemovals", "MaskFolder", "RemovalDataset", "SceneRemovals"]
