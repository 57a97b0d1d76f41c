"""
A concept that mixes two things
===============================

Few concepts must share: one of them holds two things, and the recursion splits it at an earlier
layer. By default a test decides; here a rule of our own splits every strong concept.
"""

from conceptlab import CRAFT, SplitModel
from conceptlab.datasets import load_embedded_classifier, load_scenes

scenes = load_scenes("test", 240, seed=0)
images = scenes[(scenes.y == 0) | (scenes.y == 8)].images
split = SplitModel(load_embedded_classifier(), at="layer4")
craft = CRAFT(
    split,
    n_concepts=4,
    patch_size=32,
    depth=1,
    layers=["layer3"],
    split_when=lambda node, test: node.importance > 0.4,
    random_state=0,
).fit(images)

print(craft.tree_)
ax = craft.tree_.plot()
