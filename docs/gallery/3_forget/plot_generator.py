"""
A generator that forgets
========================

The same latents before and after the embedded generator was told to forget "red": red objects get
another colour, and the others stay as they were. (A few steps only, to be quick.)
"""

from conceptlab import load_encoder
from conceptlab.datasets import load_embedded_gan, load_embedded_judge
from unlearning.gan import TextToUnlearn, assess

attributes = {
    "colour": ["red", "yellow", "green", "blue"],
    "shape": ["circle", "square", "triangle"],
    "texture": ["plain", "checked"],
    "size": ["small", "large"],
    "accessory": ["no hat", "hat"],
}
encoder, gan = load_encoder("embedded"), load_embedded_gan()
unlearner = TextToUnlearn(
    encoder, "red", retain=attributes, n_survey=300, mapper_steps=12, steps=30, random_state=0
)
result = unlearner.unlearn(gan)
report = assess(gan, result, "red", encoder, load_embedded_judge(), retain=attributes, n=300)
grids = report.plot("grids")

# %%
# What the guide makes of it: its scores for "red".
scores = report.plot("scores")

# %%
# Shares by the guide, and by a judge that had no part in the training.
shares = report.plot("figures")
