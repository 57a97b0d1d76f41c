"""Where concepts are in an image, and how well such maps point."""

from __future__ import annotations

__all__ = ["METHODS", "concept_maps", "energy_pointing", "pointing_game"]

from conceptlab.maps.concept import METHODS, concept_maps
from conceptlab.maps.scores import energy_pointing, pointing_game
