"""Class removal: where a method sends a class that it has forgotten, against where retraining sends it.

Runs as a script and, cell by cell, as a notebook (jupytext's percent format). PRESET names another preset.
"""

# %%
import os

from bench import run

found = run(scenario="class_removal", methods=["pgu", "scrub"], preset=os.environ.get("PRESET", "digits"))

# %% [markdown]
# A model that never saw the class takes its images for others, for some more often than for others. Each column is the
# share of the removed class, in percent, that is taken for one of the classes which stay.

# %%
last = found.summary.reset_index()
shares = last[last["metric"].str.match("predicted_share:(?!.*_sd$)") & (last["part"] == "forget")]
shares = shares.assign(taken_for=shares["metric"].str.removeprefix("predicted_share:"))
print(shares.pivot(index="method", columns="taken_for", values="value").round(0))

# %% [markdown]
# Total variation is the distance of such a row from the retrained pool's; the row `reference` is the pool's own floor.

# %%
print(
    found.summary.xs(("class_shift_tv", "forget", 0), level=("metric", "part", "step"))[["value", "low", "high"]].round(
        2
    )
)
