"""
What is a class known by?
=========================

Before a class is forgotten: which concepts make the model say it, more than any other class? The
class is ``cindo``, a red striped star.
"""

import torch

from conceptlab import ConceptBank
from conceptlab.datasets import load_embedded_classifier, load_scenes
from unlearning import ConceptPoisoning, features_and_logits, split_classes

train = load_scenes("train", 500, seed=0)
model = load_embedded_classifier()
with torch.no_grad():
    features, _ = features_and_logits(model, torch.as_tensor(train.images))
shown = ["red", "blue", "yellow", "circle", "star", "heart", "striped", "dotted", "plain"]
examples = {}
for name in shown:
    has = torch.as_tensor(train.main_attributes[:, train.attribute_names.index(name)])
    examples[name] = features[has].numpy(), features[~has].numpy()
bank = ConceptBank.from_examples(None, examples, random_state=0)

forget, retain = split_classes((train.images, train.y), train.class_names.index("cindo"))
method = ConceptPoisoning(bank, epochs=1, random_state=0)
result = method.unlearn(model, forget=forget, retain=retain)
ax = result.details["concepts"].plot()
