"""
Is the ranking faithful?
========================

Concepts are removed (and restored) one by one, the most important first. The curve of the
ranking should fall faster than random orders, and much faster than the reverse.
"""

from attribution.explain import measure
from conceptlab import CRAFT, SplitModel
from conceptlab.datasets import load_embedded_classifier, load_scenes

scenes = load_scenes("test", 240, seed=0)
images = scenes[scenes.y == 0].images
split = SplitModel(load_embedded_classifier(), at="layer3")
craft = CRAFT(split, n_concepts=10, patch_size=32, random_state=0).fit(images, target=None)

explanation = craft.explain(images, target=0, maps=None)
explanation.faithfulness = measure(craft, images, explanation)
shown = explanation.plot("faithfulness")
