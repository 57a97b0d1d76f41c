"""
Are these concepts any good?
============================

Sentences are looked at before they are used: how much nearer each is to its own class than to
any other, and which are duplicates, too long, or nearer to another class. Three in ten were made
to describe another species.
"""

from conceptlab import load_encoder
from conceptlab.datasets import load_scenes
from conceptlab.vocabulary import audit
from conceptlab.zeroshot.scenes import scene_concepts

scenes = load_scenes("test", 10, seed=0)
concepts = scene_concepts(scenes.species, 20, outliers="rival", rate=0.3, random_state=0)
found = audit(concepts, load_encoder("embedded"), prototypes="mean")
print(found)
figure = found.plot()
