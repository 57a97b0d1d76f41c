"""
How many corrections does it take?
==================================

Concepts are set to the truth by hand, one after another. Which is asked for next is the policy's
choice: at random, the least decided one, or the one that is expected to help most.
"""

import numpy as np

from bottlenecks import SparseCBM
from conceptlab import ConceptBank, load_encoder
from conceptlab.datasets import load_scenes
from conceptlab.plot import intervention_plot

encoder = load_encoder("embedded")
train, test = load_scenes("train", 1000, seed=0), load_scenes("test", 400, seed=0)
species = np.array(train.class_names)
X, X_test = encoder.encode_image(train.images), encoder.encode_image(test.images)
y, y_test = species[train.y], species[test.y]
bank = ConceptBank.from_texts(encoder, train.attribute_names)
model = SparseCBM(bank, nec=3, random_state=0).fit(X, y)
dense = SparseCBM(bank, sparsity=0, head="dense", random_state=0).fit(X, y)
curves = {}
for policy in ("random", "uncertainty", "gain"):
    found = model.intervention_curve(
        X_test, test.main_attributes, y_test, policy=policy, budget=8, random_state=0
    )
    curves[policy] = found.steps, found.accuracy
ax = intervention_plot(curves, n_samples=len(y_test), baseline=dense.score(X_test, y_test))
