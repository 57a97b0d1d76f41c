"""Images to work on: the rendered world with known truth, and folders of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from conceptlab.datasets.folder import FolderDataset as FolderDataset
    from conceptlab.datasets.folder import load_image_folder as load_image_folder
    from conceptlab.datasets.images import as_image_batch as as_image_batch
    from conceptlab.datasets.scenes import Scene as Scene
    from conceptlab.datasets.scenes import Scenes as Scenes
    from conceptlab.datasets.scenes import load_scenes as load_scenes
    from conceptlab.datasets.world import ATTRIBUTE_NAMES as ATTRIBUTE_NAMES
    from conceptlab.datasets.world import FAMILIES as FAMILIES
    from conceptlab.datasets.world import SPECIES as SPECIES
    from conceptlab.datasets.world import Species as Species

_HOMES = {
    "ATTRIBUTE_NAMES": "conceptlab.datasets.world",
    "FAMILIES": "conceptlab.datasets.world",
    "FolderDataset": "conceptlab.datasets.folder",
    "SPECIES": "conceptlab.datasets.world",
    "Scene": "conceptlab.datasets.scenes",
    "Scenes": "conceptlab.datasets.scenes",
    "Species": "conceptlab.datasets.world",
    "as_image_batch": "conceptlab.datasets.images",
    "load_embedded_classifier": "conceptlab.assets",
    "load_embedded_gan": "conceptlab.assets",
    "load_embedded_judge": "conceptlab.assets",
    "load_image_folder": "conceptlab.datasets.folder",
    "load_scenes": "conceptlab.datasets.scenes",
}

__all__ = [
    "ATTRIBUTE_NAMES",
    "FAMILIES",
    "SPECIES",
    "FolderDataset",
    "Scene",
    "Scenes",
    "Species",
    "as_image_batch",
    "load_embedded_classifier",
    "load_embedded_gan",
    "load_embedded_judge",
    "load_image_folder",
    "load_scenes",
]

__getattr__, __dir__ = attach(__name__, _HOMES)
