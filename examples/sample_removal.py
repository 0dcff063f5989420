"""Sample removal: methods with one and the same error on the forgotten samples can be far apart for an attacker.

Runs as a script and, cell by cell, as a notebook (jupytext's percent format). PRESET names another preset.
"""

# %%
import os

from bench import run

found = run(scenario="sample_removal", methods=["scrub", "eu_k"], preset=os.environ.get("PRESET", "digits"))

# %% [markdown]
# By the paper's measure, the error on the forgotten samples, a gap of 0 to retraining is what one wants: here it is in
# percentage points, with its 95 % interval.

# %%
gaps = found.summary.xs(("error_gap", "forget", 0), level=("metric", "part", "step"))
print(gaps[["value", "low", "high"]].round(1))

# %% [markdown]
# An attacker who knows the method and makes models with it sees more than errors. His area under the ROC curve is .5
# where forgotten and never seen samples look alike.

# %%
deciding = f"attack_auc:{found.info['audit']['headline']}"
areas = found.summary.xs((deciding, "forget", 0), level=("metric", "part", "step"))
print(areas[["value", "low", "high"]].round(2))
print(found.verdicts["verdict"])
