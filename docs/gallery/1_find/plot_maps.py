"""
Where a concept is: four methods
================================

The same concepts located by implicit differentiation at the layer, by their coefficients at
each position, by covering squares, and by random masks.
"""

from conceptlab import CRAFT, SplitModel
from conceptlab.datasets import load_embedded_classifier, load_scenes
from conceptlab.plot import map_grid

scenes = load_scenes("test", 240, seed=0)
images = scenes[scenes.y == 0].images
split = SplitModel(load_embedded_classifier(), at="layer3")
craft = CRAFT(split, n_concepts=6, patch_size=32, random_state=0).fit(images, target=0)
top = [int(i) for i in craft.importances_.argsort()[::-1][:3]]


def draw(method, **options):
    maps = craft.maps(images[:3], method=method, **options)
    return map_grid(images[:3], maps, craft.concept_names_, concepts=top)


implicit = draw("implicit")

# %%
# Coefficients of each position, enlarged: as coarse as the layer.
upsample = draw("upsample")

# %%
# Fall of the coefficient when a square is covered.
occlusion = draw("occlusion", window=16, stride=8)

# %%
# Mean coefficient under random masks.
rise = draw("rise", n_masks=200, random_state=0)
