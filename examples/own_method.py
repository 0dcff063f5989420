"""A method of your own: one file, judged beside the built-in ones, with another setting as a row of its own.

Runs as a script and, cell by cell, as a notebook (jupytext's percent format). PRESET names another preset.
"""

# %%
import os
from pathlib import Path

from bench import load, run

# In a notebook, name the file as it is seen from there.
mine = Path(__file__).with_name("ascent.py") if "__file__" in globals() else Path("ascent.py")
found = run(
    scenario="sample_removal",
    methods=[mine, f"{mine}+lr=1.0", "neg_grad"],
    preset=os.environ.get("PRESET", "digits"),
)

# %% [markdown]
# The verdict on each row, and its grounds.

# %%
print(found.verdicts[["verdict", "reason"]].to_string())

# %% [markdown]
# What was forgotten is half of the story. The gap of the test error says what it cost: on the digits the small step
# changes no answer, and the large one that forgets everything leaves a model that knows nothing.

# %%
for part in ("forget", "test"):
    print(part, found.summary.xs(("error_gap", part, 0), level=("metric", "part", "step"))["value"].round(1).to_dict())

# %% [markdown]
# Everything is in the results folder, which `load` reads again, tomorrow or on another machine.

# %%
again = load(found.folder)
print(again.records.equals(found.records), sorted(path.name for path in found.folder.iterdir()))
