"""All plots: each returns its Axes, a grid its Figure; none calls ``show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conceptlab._lazy import attach

if TYPE_CHECKING:
    from conceptlab.plot.audit import audit_plot as audit_plot
    from conceptlab.plot.bottlenecks import intervention_plot as intervention_plot
    from conceptlab.plot.bottlenecks import waterfall as waterfall
    from conceptlab.plot.bottlenecks import weight_map as weight_map
    from conceptlab.plot.curves import faithfulness_curves as faithfulness_curves
    from conceptlab.plot.generators import before_after_grid as before_after_grid
    from conceptlab.plot.generators import score_distributions as score_distributions
    from conceptlab.plot.generators import share_bars as share_bars
    from conceptlab.plot.importance import importance_bars as importance_bars
    from conceptlab.plot.maps import blend_maps as blend_maps
    from conceptlab.plot.maps import map_grid as map_grid
    from conceptlab.plot.maps import map_pairs as map_pairs
    from conceptlab.plot.patches import patch_grid as patch_grid
    from conceptlab.plot.tree import concept_tree as concept_tree

_HOMES = {
    "audit_plot": "conceptlab.plot.audit",
    "before_after_grid": "conceptlab.plot.generators",
    "blend_maps": "conceptlab.plot.maps",
    "concept_tree": "conceptlab.plot.tree",
    "faithfulness_curves": "conceptlab.plot.curves",
    "importance_bars": "conceptlab.plot.importance",
    "intervention_plot": "conceptlab.plot.bottlenecks",
    "map_grid": "conceptlab.plot.maps",
    "map_pairs": "conceptlab.plot.maps",
    "patch_grid": "conceptlab.plot.patches",
    "score_distributions": "conceptlab.plot.generators",
    "share_bars": "conceptlab.plot.generators",
    "waterfall": "conceptlab.plot.bottlenecks",
    "weight_map": "conceptlab.plot.bottlenecks",
}

__all__ = list(_HOMES)

__getattr__, __dir__ = attach(__name__, _HOMES)
