"""
Suppressed, or removed?
=======================

A small network learns four classes and forgets one. The bars are the network that forgot; the
marks beside them say what that is worth: a trick that switches the output off (diamonds), and
two networks that never saw the class (line, with the noise between the two).
"""

import torch
from torch import nn

from conceptlab.datasets import Species, load_scenes
from unlearning import ConceptPoisoning, Retrain, as_samples, split_classes
from unlearning.audit import audit

species = [
    Species("red circle", "red", "circle", "plain"),
    Species("red star", "red", "star", "plain"),
    Species("blue circle", "blue", "circle", "plain"),
    Species("yellow star", "yellow", "star", "plain"),
]
train, test = (
    load_scenes(split, n, seed=0, species=species, n_objects=1, size=32)
    for split, n in (("train", 500), ("test", 300))
)
data, held_out = as_samples((train.images, train.y)), as_samples((test.images, test.y))


def build():
    layers = [nn.BatchNorm2d(3, affine=False)]
    for a, b in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(a, b, 3, 2, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))


torch.manual_seed(0)
model = build()
optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4)
order = torch.Generator().manual_seed(0)
for _ in range(15):
    for x, y in data.batches(64, order):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
model.eval()

forget, retain = split_classes(data, 3)
parts = {"forget": forget, "retain": retain}
retrained = [
    Retrain(build, epochs=15, lr=0.05, random_state=s).unlearn(model, **parts) for s in (1, 2)
]
result = ConceptPoisoning(scope="all", random_state=0).unlearn(model, **parts)
report = audit(
    model,
    result,
    retrained=retrained,
    test=held_out,
    concepts=(test.attributes, list(test.attribute_names)),
    class_names=list(test.class_names),
    relearn=True,
    max_steps=40,
    random_state=0,
    **parts,
)
print(report.verdict)
figures = report.plot("figures")

# %%
# The class is taught again: how soon is it known? What was only hidden comes back at once.
relearn = report.plot("relearn")

# %%
# Where samples of the class go. A retrained network spreads them by likeness.
destinations = report.plot("destinations")

# %%
# What concepts add to the class's logit, before and after.
concepts = report.plot("concepts")
