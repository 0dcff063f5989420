"""Every method that ships, in every scenario it serves, through the real command line: no row fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import cli, registry
from bench.interface import SCENARIOS

FAST = ("--set", "shadow.train=2", "--set", "shadow.validation=1", "--set", "recipe.epochs=3", "--seeds", "1")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_method_fails(scenario: str, tmp_path: Path) -> None:
    where = ("--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"))
    shorter = ("--set", "incremental.steps=2") if scenario == "incremental" else ()
    assert cli.main(["--scenario", scenario, "--methods", "all", "--attacks", "none", *FAST, *shorter, *where]) == 0
    told = json.loads((tmp_path / "out/run.json").read_text())["methods"]
    assert {entry["name"] for entry in told} == set(registry.names("methods"))
    served = {name for name in registry.names("methods") if scenario in registry.load("methods", name).supports}
    idle = {name for name in served if registry.load("methods", name)().refuses(scenario)}  # what is not installed
    status = {entry["name"]: entry["status"] for entry in told}
    assert {name for name, said in status.items() if said == "ok"} == served - idle, status
    assert all(said.startswith("skipped: ") for name, said in status.items() if name not in served), status
