"""Typeset documents: nothing too wide, fonts embedded, the same bytes, names of any kind, and errors in one line."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import FinishedRun, Place

from bench.interface import SCENARIOS, UsageError
from bench.records import load, save
from reports import against, build, latex, pdf, tables, typeset
from reports.grid import Row, Table
from tests.fabricated import NASTY, fabricate
from tests.typeset import complaints, in_two_columns, needs_poppler, needs_tex

KEPT = sorted(path.parent for path in (Path(__file__).parents[1] / "docs" / "results").rglob("run.json"))
HOSTILE = (
    r"\input{/etc/hostname}", r"\end{document}", "%", "}{", "$x^2_i", "#1 & co \\\\ ~", "`a' ,, -- \"", "naïve_日本_😀",
    "a" * 90, "[1]*", "\\write18{touch gone}", "^^5cinput", "ß×÷€≥", "-1.5 ± 2", "?`!`",
)  # fmt: skip


@needs_tex
@pytest.mark.slow
@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_documents_of_kept_results_have_nothing_too_wide(folder: Path, tmp_path: Path) -> None:
    for name in ("records.csv", "run.json", "samples.npz"):
        shutil.copy(folder / name, tmp_path)
    build(tmp_path)
    (tmp_path / "out").mkdir()
    assert complaints(pdf.typeset(tmp_path / "report.tex", tmp_path / "out")) == []


@needs_tex
@pytest.mark.slow
def test_tables_of_kept_results_fit_pages_of_two_columns(tmp_path: Path) -> None:
    found = [load(folder) for folder in KEPT]
    parts = [latex.tables_file(one, [*tables.build(one), *against.tables([one])]) for one in found]
    text = "\n\\clearpage\n".join(parts)  # TeX holds only so many tables back
    (tmp_path / "table.tex").write_text(text)
    assert len(found) > 3
    assert in_two_columns(tmp_path / "table.tex", tmp_path) == []


@needs_tex
def test_tables_of_every_scenario_fit_pages_of_two_columns(tmp_path: Path) -> None:
    found = [load(fabricate(tmp_path / name, name, deep=True)) for name in SCENARIOS]
    text = "\n".join(latex.tables_file(one, tables.build(one)) for one in found)
    (tmp_path / "table.tex").write_text(text)
    assert in_two_columns(tmp_path / "table.tex", tmp_path) == []


@needs_tex
def test_tables_of_any_shape_fit(tmp_path: Path) -> None:
    run = {"dataset": "d", "architecture": "a", "scenario": "s", "config_hash": "ab", "seeds": [0], "methods": []}
    row = {"0.5": 1, "100.00 ± 12.34": 2, "−88.29 [−90.41, −86.18]*": 2, "1,234 ± 56": 2, "< 0.001": 1}
    made = []
    for columns in (1, 2, 3, 5, 8, 13):
        kinds = [list(row)[place % len(row)] for place in range(columns)]
        heads = [("method", ""), *((f"a quantity {place}", "→ retrained") for place in range(columns))]
        name = "retrained pool (n=50)"
        rows = [Row(name, "method", [name, *kinds], "ok")] * (3 if columns > 3 else 120)
        made.append(latex.table_environment(Table(f"t{columns}", "C", "U", heads, rows), run, {}))
    (tmp_path / "table.tex").write_text("\n\n".join(made))
    assert in_two_columns(tmp_path / "table.tex", tmp_path) == []


@pytest.fixture(scope="module")
def out(tiny: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run with the document that one command makes of it."""
    place = Place(tmp_path_factory.mktemp("document"))
    shutil.copytree(tiny.out, place.out)
    finished = place.call("report", "out", "--pdf")
    assert finished.code == 0, finished.err
    assert finished.err.splitlines() == ["PDF: out/report.pdf"]
    return place.out


@needs_tex
@needs_poppler
def test_one_command_makes_the_document(out: Path) -> None:
    text = subprocess.run(["pdftotext", out / "report.pdf", "-"], capture_output=True, text=True).stdout
    results = load(out)
    assert results.run["config_hash"] in text
    assert "Learn to unlearn for deep neural networks" in " ".join(text.split())
    assert all(f"Figure {number}:" in text for number in range(1, 1 + len(list((out / "figures").glob("*.pdf")))))
    fonts = subprocess.run(["pdffonts", out / "report.pdf"], capture_output=True, text=True).stdout.splitlines()[2:]
    assert len(fonts) > 3
    assert all(re.search(r" yes (yes|no) +(yes|no) +\d+ +\d+$", font) for font in fonts), fonts
    assert not any("Type 3" in font for font in fonts)
    size = subprocess.run(["pdfinfo", out / "report.pdf"], capture_output=True, text=True).stdout
    assert re.search(r"^Title: +\S", size, re.MULTILINE)
    assert "CreationDate" not in size


@needs_tex
def test_the_same_results_make_the_same_bytes(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "report.pdf").unlink()
    (path,) = typeset([tmp_path / "elsewhere"])
    assert path.read_bytes() == (out / "report.pdf").read_bytes()


@needs_tex
@needs_poppler
def test_names_of_any_kind_are_printed_and_run_nothing(tmp_path: Path) -> None:
    results = load(fabricate(tmp_path, "class_removal", deep=True))
    run = results.run
    new = dict(zip(("scrub", "eu_k", "pgu"), HOSTILE, strict=False))
    for entry in run["methods"]:
        entry["name"] = new.get(entry["name"], entry["name"])
        entry["status"] = f"failed: {' '.join(HOSTILE)}" if entry["status"] != "ok" else "ok"
    run |= {"dataset": " ".join(HOSTILE), "title": f"{' '.join(HOSTILE)} {NASTY}", "command": "\n".join(HOSTILE)}
    run |= {"class_names": [*HOSTILE[:5], NASTY], "architecture": "\\relax" * 20, "git": "}\n\\bye"}
    records = [dataclasses.replace(one, method=new.get(one.method, one.method)) for one in results.records]
    samples = {"/".join(new.get(part, part) for part in name.split("/")): own for name, own in results.samples.items()}
    save(tmp_path, dataclasses.replace(results, run=run, records=records, samples=samples))
    build(tmp_path)
    (path,) = typeset([tmp_path])
    shown = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True).stdout
    assert r"\input{/etc/hostname}" in shown
    assert r"\write18{touch gone}" in " ".join(shown.split())
    assert not list(tmp_path.rglob("gone"))


def test_without_tex_everything_else_is_written(tiny: FinishedRun, tmp_path: Path) -> None:
    place = Place(tmp_path, {"PATH": str(tmp_path)})
    place.out.mkdir()
    for name in ("records.csv", "run.json", "samples.npz"):
        shutil.copy(tiny.out / name, place.out)
    finished = place.call("report", "out", "--pdf")
    assert finished.code == 2
    assert "no pdflatex" in finished.error
    assert "apt-get install texlive-science" in finished.error
    assert "## What was forgotten" in finished.out
    assert {"table.md", "table.tex", "report.tex", "report.html", "references.bib"} <= {
        path.name for path in place.out.iterdir()
    }


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Path]:
    tex = tmp_path / "report.tex"
    tex.write_text("\\documentclass{article}\n\\begin{document}\n\\nosuchcommand\n\\end{document}\n")
    tex.with_suffix(".pdf").write_bytes(b"of an earlier run")
    yield tex
    assert tex.with_suffix(".pdf").read_bytes() == b"of an earlier run"


@needs_tex
def test_the_first_error_of_tex_is_told_in_one_line(broken: Path) -> None:
    with pytest.raises(UsageError) as told:
        pdf.compile(broken)
    assert str(told.value) == f"pdflatex fails on {broken}: line 3: Undefined control sequence."


@needs_tex
def test_a_document_without_end_is_stopped(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.write_text("\\documentclass{article}\\begin{document}\\loop\\iftrue\\repeat\\end{document}")
    monkeypatch.setattr(pdf, "LIMIT", 1)
    with pytest.raises(UsageError, match="pdflatex was stopped after 1 s"):
        pdf.compile(broken)


@needs_tex
@pytest.mark.parametrize("name", ["nosuch.sty", "nosuch.cls"])
def test_a_package_that_is_missing_is_named(name: str, broken: Path) -> None:
    kind = "usepackage" if name.endswith("sty") else "documentclass"
    before = "\\documentclass{article}" if kind == "usepackage" else ""
    broken.write_text(f"{before}\\{kind}{{nosuch}}\\begin{{document}}x\\end{{document}}")
    with pytest.raises(UsageError, match=f"{name}' not found.*apt-get install"):
        pdf.compile(broken)


@needs_tex
def test_nothing_outside_the_folder_is_read_or_run(broken: Path) -> None:
    secret = broken.parent.parent / "secret.tex"
    secret.write_text("told")
    for command in (
        f"\\input{{{secret}}}",
        "\\input{../secret}",
        "\\openin1=../secret \\ifeof1 \\errmessage{shut}\\fi",
    ):
        broken.write_text(f"\\documentclass{{article}}\\begin{{document}}{command}\\end{{document}}")
        with pytest.raises(UsageError):
            pdf.compile(broken)
