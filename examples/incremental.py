"""Incremental removal: what the first of several requests took can come back while later ones are served.

Runs as a script and, cell by cell, as a notebook (jupytext's percent format). PRESET names another preset.
"""

# %%
import os

from bench import run

found = run(scenario="incremental", methods=["pgu", "scrub"], preset=os.environ.get("PRESET", "digits"))

# %% [markdown]
# `chunk1` holds the samples of the first request. Their error less that of the pool retrained for the same requests, in
# percentage points, after each request: below 0 the samples are known again.

# %%
first = found.summary.xs(("error_gap", "chunk1"), level=("metric", "part"))["value"].unstack("step")
print(first.rename(columns=lambda step: f"after {step + 1}").round(1))

# %% [markdown]
# Time adds up over the requests: seconds of all requests together, per repeat.

# %%
seconds = found.records[(found.records["metric"] == "seconds_request") & (found.records["seed"] != "all")]
print(seconds.groupby(["method", "seed"])["value"].sum().groupby("method").mean().round(3))
