"""
A sparse bottleneck: weights and reasons
========================================

Ten species, each a colour, a texture and a shape, told apart by three concepts a class. The heat
map shows which class looks at what, the waterfall what decided for one image.
"""

import numpy as np

from bottlenecks import SparseCBM
from conceptlab import ConceptBank, load_encoder
from conceptlab.datasets import load_scenes

encoder = load_encoder("embedded")
train, test = load_scenes("train", 1000, seed=0), load_scenes("test", 300, seed=0)
species = np.array(train.class_names)
bank = ConceptBank.from_texts(encoder, train.attribute_names)
model = SparseCBM(bank, nec=3, random_state=0)
model.fit(encoder.encode_image(train.images), species[train.y])
weights = model.plot("weights", top=20)

# %%
# A logit is the bias and what the concepts add to it, in order of size.
X = encoder.encode_image(test.images)
wrong = np.flatnonzero(model.predict(X) != species[test.y])
why = model.plot("waterfall", X, sample=int(wrong[0]))
