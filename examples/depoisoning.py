"""Depoisoning: how much accuracy comes back when all of the poison is known, and when only half of it is.

Runs as a script and, cell by cell, as a notebook (jupytext's percent format). PRESET names another preset.
"""

# %%
import os

import pandas as pd

from bench import run

preset = os.environ.get("PRESET", "digits")
found = {
    share: run(scenario="depoisoning", methods=["scrub"], preset=preset, set={"scenario.known_fraction": share})
    for share in (1.0, 0.5)
}

# %% [markdown]
# `restored` is the share of the accuracy lost to wrong labels that came back: 0 before, 1 as if they had never been.
# Retraining without the known half still learns the other half, so it is no longer the ideal.

# %%
restored = {
    f"{share:.0%} known": one.summary.xs(("restored", "test", 0), level=("metric", "part", "step"))["value"]
    for share, one in found.items()
}
print(pd.DataFrame(restored).round(2))
