"""
The same maps, before and after
===============================

A concept that was found in the original is looked for in the model that forgot: same layer, same
images, one colour scale.
"""

from conceptlab import CRAFT, SplitModel
from conceptlab.datasets import load_embedded_classifier, load_scenes
from unlearning import ConceptPoisoning, split_classes
from unlearning.audit import trace_concepts

train, test = load_scenes("train", 300, seed=0), load_scenes("test", 120, seed=0)
model = load_embedded_classifier()
forget, retain = split_classes((train.images, train.y), 0)
result = ConceptPoisoning(random_state=0).unlearn(model, forget=forget, retain=retain)

split = SplitModel(model, at="layer4", class_names=model.class_names)
craft = CRAFT(split, n_concepts=10, patches="none", random_state=0)
craft.fit(train.images, target="predicted")
trace = trace_concepts(craft, result, test.images, test.y, [0])
figure = trace.plot(top=2)
