"""The handbook is what the code says, and the code of every method that ships says enough."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from command import ROOT

from bench import contract, handbook, layers, references, registry
from bench.choices import BASELINES
from bench.cli import main
from bench.interface import Need

SHIPPED = registry.shipped("methods")
MINE = '''"""Mine: moves | halts."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.interface import Context, DataView, Method, Need, State


class Mine(Method):
    """Descends a * b * c while a < b, but `a * b` is code.

    d' = d
    - sum of gradients, on a line that begins like a list.

    Deviations from the paper: one (not; two); two; three; four.

    Status `stuck`: it did not move.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.VALIDATION
    supports: ClassVar[tuple[str, ...]] = ("class_removal", "incremental")
    cite: ClassVar[str] = "carlini2022lira"
    prepares_with: ClassVar[tuple[str, ...] | None] = ("mode",)
    cost: ClassVar[str] = "epochs x 3 n_forget F1"
    search: ClassVar[dict[str, tuple[object, ...]]] = {"lr": (0.1, 1e-4), "clip": (None, 2.0)}

    mode: Literal["free", "bound"] = Field(default="free", description="free | bound")
    lr: float = Field(default=2e5, gt=0, le=1e6, description="step size")
    clip: float | None = Field(default=None, ge=-1, lt=3, description="limit")
    shares: dict[str, Annotated[float, Field(ge=0)]] = Field(default={}, description="by layer")
    at: tuple[int, ...] = Field(default=(3, 5), description="epochs")
    again: bool = Field(default=True, description="reads validation data")
    epochs: int = Field(default=3, ge=0, description="passes")

    def reads(self) -> Need:
        needs = self.needs | Need.RETAIN if self.mode == "bound" else self.needs
        return needs if self.again else needs & ~Need.VALIDATION

    def prepare(self, model, data: DataView, ctx: Context) -> State:
        """Sums of something. And more."""
        return {}

    def unlearn(self, model, data: DataView, ctx: Context):
        return model
'''


def test_the_page_is_what_the_code_says() -> None:
    kept = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert kept == handbook.page() + "\n", "docs/methods.md is stale; run make docs"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_method_says_where_it_comes_from_what_it_costs_and_where_it_deviates(name: str) -> None:
    cls = registry.load("methods", name)
    file = f"methods/{name}.py"
    if name not in BASELINES:
        assert cls.cite in references.load(), (
            f"{file}: `cite` must be a key of reports/references.bib, got {cls.cite!r}"
        )
    assert cls.cost, f"{file}: say in `cost` what a request takes, such as 'epochs x 3 n_forget F1' (docs/methods.md)"
    told, deviations = handbook.split(cls)
    assert told, f"{file}: the class needs a docstring that says what the method does"
    assert deviations or "no deviations" in cls.__doc__.lower(), (
        f"{file}: the docstring needs a paragraph that begins with 'Deviations:' or 'No deviations'"
    )
    for field, info in cls.model_fields.items():
        assert info.description, f"{file}: the hyper-parameter {field} needs a description"
    strange = set(cls.search) - set(cls.model_fields)
    assert not strange, f"{file}: `search` names {strange}, which are no hyper-parameters"


def test_every_reference_can_be_written_out() -> None:
    text = references.FILE.read_text(encoding="utf-8")
    assert len(references.load()) == text.count("\n@") + text.startswith("@")
    for key, entry in references.load().items():
        written = references.full(entry)
        assert {"author", "title", "year"} <= set(entry), key
        assert any(venue in entry for venue in references.VENUES), key
        assert not set(written) & set("\\{}"), written


def test_a_reference_loses_its_tex() -> None:
    assert (
        references.plain(r"Tram\`er, Fran\c{c}ois, M\"{u}ller, {SalUn}, 1--2") == "Tramèr, François, Müller, SalUn, 1–2"
    )
    lira = references.load()["carlini2022lira"]
    assert references.short(lira) == "Carlini et al. 2022"
    assert references.full(lira).endswith(
        "Andreas Terzis, Florian Tramèr: *Membership Inference Attacks From First Principles*. "
        "IEEE Symposium on Security and Privacy, 2022"
    )
    assert references.short(references.load()["chen2016xgboost"]) == "Chen and Guestrin 2016"


def test_the_page_holds_every_method_test_and_architecture() -> None:
    page = handbook.page()
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings[-len(SHIPPED) :] == [*BASELINES, *(name for name in SHIPPED if name not in BASELINES)]
    assert [title.replace(" ", "_") for title, _ in handbook.contract()] == [t.__name__ for t in contract.TESTS]
    assert all(f"- **{title}**: {text}" in page for title, text in handbook.contract())
    for name in registry.shipped("architectures"):
        listed = layers.published(name)
        assert f"| `{name}` | {len(listed)} | `{'` `'.join(listed)}` |" in page
    assert set(handbook.READS) == set(Need)


def test_a_section_says_what_the_class_says(
    plug_in: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "methods", "--markdown", plug_in("mine.py", MINE)]) == 0
    lines = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    expected = [
        "## mine",
        "Mine: moves | halts.",
        r"Descends a \* b \* c while a \< b, but `a * b` is code.",
        "d' = d - sum of gradients, on a line that begins like a list.",
        "Status `stuck`: it did not move.",
        "- **Reads**: forget, validation; with `mode = bound` also retain; with `again = false` not validation",
        "- **Scenarios**: class removal, incremental",
        "- **BatchNorm**: trains: statistics, scale and shift move",
        "- **Another seed**: gives another result",
        "- **Before any request**: Sums of something. And more; anew when `mode` changes",
        "- **Cost**: epochs × 3 n_forget F1",
        "- **Turned off by**: `epochs = 0`",
        "**Deviations from the paper:**",
        *("- one (not; two)", "- two", "- three", "- four"),
        "| name | type | default | range | meaning |",
        r"| `mode` | `free` or `bound` | `free` |  | free \| bound |",
        "| `lr` | float | `200000` | > 0, ≤ 1e+06 | step size |",
        "| `clip` | float or none | `none` | ≥ -1, < 3 | limit |",
        "| `shares` | float ≥ 0, by name | `{}` |  | by layer |",
        "| `at` | list of int | `[3, 5]` |  | epochs |",
        "| `again` | bool | `true` |  | reads validation data |",
        "**`tune` tries** `lr` 0.1, 0.0001; `clip` none, 2.",
    ]
    assert [line for line in lines if line in expected] == expected
    [source] = [line for line in lines if line.startswith("- **Source**: Nicholas Carlini, ")]
    assert source.endswith("2022 (`carlini2022lira`)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods", "--markdown", "srub"], "did you mean scrub?"),
        (["attacks", "--markdown"], "list methods --markdown"),
        (["--markdown"], "list methods --markdown"),
    ],
)
def test_what_has_no_page_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_method_that_needs_settings_is_one_line(
    plug_in: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    bare = MINE.replace('Field(default=3, ge=0, description="passes")', 'Field(ge=0, description="passes")')
    assert main(["list", "methods", "--markdown", plug_in("mine.py", bare)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot describe" in line
