"""What is said beside a LaTeX table: what it shows, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.tex import escape

if TYPE_CHECKING:
    from reports.grid import Table


def caption(table: Table, run: Mapping[str, Any], cited: Mapping[str, str]) -> str:
    """What the table shows and where it comes from, so that a lifted table can be traced and read alone."""
    remarks = dict.fromkeys(
        f"{row.method}: {row.remark}."
        for row in table.rows
        if row.remark != "ok" and (row.kind == "failed" or not table.by_request)  # the first table counts over requests
    )
    warning = f" {table.warning}." if table.warning else ""
    shown = " ".join([f"{table.caption}.{warning} {table.units}. {_origin(run)}.", *remarks])
    shown += "".join(f" {sign}: {told}." for sign, told in SIGNS.items() if _shows(table, sign))
    names = [name for name in cited if any(head == name for head, _ in table.heads)]
    attacks = f" Attacks: {', '.join(escape(name) + cited[name] for name in names)}." if names else ""
    return escape(shown) + attacks


SIGNS = {
    "†": "hyper-parameters other than the method's defaults",
    "*": "no difference from retrained models is shown, which is no proof that there is none",
}


def _shows(table: Table, sign: str) -> bool:
    return any(sign in cell for row in table.rows for cell in row.cells)


def _origin(run: Mapping[str, Any]) -> str:
    """Data, network, scenario, configuration, seeds and versions, in one line."""
    seeds = ", ".join(map(str, run["seeds"]))
    versions = run.get("versions", {})
    code = f"benchmark {versions.get('benchmark', '')} {str(run.get('git', ''))[:7]}".replace("  ", " ").strip()
    made = [code, *(f"{name} {versions[name]}" for name in ("python", "torch") if name in versions)]
    cell = f"{run['dataset']}, {run['architecture']}, {str(run['scenario']).replace('_', ' ')}"
    repeats = f"seed{'s' if len(run['seeds']) > 1 else ''} {seeds}"
    return f"{cell}; configuration {run['config_hash']}, {repeats}; {', '.join(made)}"


def provenance(run: Mapping[str, Any]) -> list[str]:
    """Comments that say how the numbers were made, in full."""
    versions = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
    told = {"made by": run.get("command"), "commit": run.get("git"), "with": versions}
    return [f"% {name}: {' '.join(str(text).split())}" for name, text in told.items() if text]
