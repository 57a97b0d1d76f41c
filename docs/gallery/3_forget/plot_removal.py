"""
Which remover is better?
========================

Red objects are taken out of rendered scenes and the results compared with other scenes that never
held one. Lines are bootstrap intervals; removers that cannot be told apart share a rank.
"""

from unlearning.removal import RemovalBenchmark, SceneRemovals

data = SceneRemovals(("red", "star"), n=160, random_state=0)
benchmark = RemovalBenchmark("embedded", n_min=20, n_bootstrap=60, random_state=0)
report = benchmark.run(data, ["blur+1", "telea", "telea+2", "telea-2", "biharmonic+1"])
ranking = report.plot("ranking")

# %%
# Class by class.
classes = report.plot("classes")

# %%
# The truth is known here, so the score can be judged, too.
agreement = report.plot("agreement")

# %%
# What is left of the class, and what else changed, concept by concept: a mask that leaves a rim.
concepts = report.plot("concepts", remover="telea -2", of="red")

# %%
# The best and worst pictures.
pictures = report.plot("pictures", remover="telea +2", of="red")
