"""What every number in the records is, from `metrics.toml`; `python -m reports.metrics` prints docs/metrics.md."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.interface import Record

SOURCE = Path(__file__).with_name("metrics.toml")
LINES = {
    "what": "what it is",
    "good": "good",
    "retrained": "retraining gets",
    "floor": "floor",
    "source": "source",
}
DOCUMENT = "docs/metrics.md"
HEAD = """# What every number means

Every metric in `records.csv`, from `reports/metrics.toml` by `make docs`. Best is nearest to retrained models, not
lowest or highest; a floor is what retrained models get against each other, so that nothing can be asked to go below it.
"""


@dataclass(frozen=True)
class Entry:
    """A metric: its `key`, its full `name`, the title of its group, and its lines, each what it tells and the text."""

    key: str
    name: str
    group: str
    lines: tuple[tuple[str, str], ...]


@functools.cache
def entries() -> dict[str, Entry]:
    """Every metric by its key, in the order of the file."""
    found = {}
    for group in tomllib.loads(SOURCE.read_text(encoding="utf-8")).values():
        for key, said in group.items():
            if key != "title":
                lines = tuple((told, str(said[line])) for line, told in LINES.items())
                found[key] = Entry(key, said.get("name", key), group["title"], lines)
    return found


def entry(metric: str) -> Entry | None:
    """What a metric of the records is; the class or attack after a colon does not matter. None for an unknown one."""
    known, base = entries(), metric.partition(":")[0]
    if base in known:
        return known["sd"] if metric != base and metric.endswith("_sd") else known[base]
    for suffix in ("gap", "sd"):
        if base.endswith(f"_{suffix}") and base.removesuffix(f"_{suffix}") in known:
            return known[suffix]
    return None


def present(records: Iterable[Record]) -> list[Entry]:
    """The entries of these records, each once, in the order of the file."""
    found = {one.key for metric in {record.metric for record in records} if (one := entry(metric))}
    return [one for key, one in entries().items() if key in found]


def document() -> str:
    """The page of all metrics, in Markdown."""
    blocks, group = [HEAD], ""
    for one in entries().values():
        blocks += [f"## {one.group}\n"] if one.group != group else []
        group = one.group
        blocks.append("\n".join([f"### `{one.name}`\n", *(f"- **{told}**: {text}" for told, text in one.lines)]) + "\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    print(document(), end="")
