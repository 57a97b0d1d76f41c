"""
What a concept looks like
=========================

The crops in which each concept is strongest, the most important concept on top.
"""

from conceptlab import CRAFT, SplitModel
from conceptlab.datasets import load_embedded_classifier, load_scenes

scenes = load_scenes("test", 240, seed=0)
images = scenes[scenes.y == 4].images
split = SplitModel(load_embedded_classifier(), at="layer3")
craft = CRAFT(split, n_concepts=8, patch_size=32, random_state=0).fit(images, target=None)

explanation = craft.explain(images, target=4, maps=None)
figure = explanation.plot("patches", top=5)
