"""
Why this class, and not that one?
=================================

Zero-shot by concepts: what the sentences of winner and runner-up add to their scores. Hatched
bars are outliers, sentences that do not fit the image; some of them were made false on purpose.
"""

import numpy as np

from conceptlab import load_encoder
from conceptlab.datasets import load_scenes
from conceptlab.plot.posterior import posterior_bars
from conceptlab.zeroshot import BayesianZeroShot
from conceptlab.zeroshot.scenes import scene_concepts

encoder = load_encoder("embedded")
scenes = load_scenes("test", 60, seed=0, n_objects=1)
concepts = scene_concepts(scenes.species, 12, outliers="absent", rate=0.2, random_state=0)
model = BayesianZeroShot(concepts, encoder).fit()
explanation = model.explain(scenes.images)
image = int(np.argsort(explanation.log_odds)[5])  # a close one
evidence = explanation.plot(image)

# %%
# Within the winner: which sentence is it most likely to be?
posterior = posterior_bars(explanation, image)
