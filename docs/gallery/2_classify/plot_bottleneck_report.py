"""
Would any concepts do?
======================

Accuracy through named concepts stands beside random directions of the same number and a dense
probe. Names are checked, too: how well does output j tell whether concept j is there, and does it
tell more than that?
"""

from bottlenecks import SparseCBM, evaluate
from conceptlab import ConceptBank, load_encoder
from conceptlab.datasets import load_scenes

encoder = load_encoder("embedded")
train, test = load_scenes("train", 800, seed=0), load_scenes("test", 300, seed=0)
names = ["red", "blue", "yellow", "circle", "star", "heart", "striped", "dotted", "plain"]
columns = [train.attribute_names.index(name) for name in names]
bank = ConceptBank.from_texts(encoder, names)
X = encoder.encode_image(train.images)
model = SparseCBM(bank, nec=3, random_state=0).fit(X, train.y)
report = evaluate(
    model,
    encoder.encode_image(test.images),
    test.y,
    test.main_attributes[:, columns],
    train=(X, train.y),
    n_random=3,
    n_permutations=3,
    random_state=0,
)
accuracy = report.plot("accuracy")

# %%
# The name of each output, beside the score that it was made from.
fidelity = report.plot("fidelity")

# %%
# What outputs say beyond their concepts, beside shuffled outputs.
leakage = report.plot("leakage")
