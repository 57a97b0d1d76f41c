"""
Scenes: a world with known truth
================================

Rendered images whose class, caption, attributes and objects are known. The same image can be
had without any of its objects.
"""

from conceptlab.datasets import load_scenes
from conceptlab.plot.scenes import scene_counterfactuals, scene_grid

scenes = load_scenes("train", 12, seed=3)
grid = scene_grid(scenes, n=8, columns=4)

# %%
# The visible part of every object is known too: pink is the main one.
masks = scene_grid(scenes, n=8, columns=4, captions=False, masks=True)

# %%
# The same images with one object removed.
removed = scene_counterfactuals(scenes)
