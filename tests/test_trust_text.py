"""Text of a run stays text: it becomes no tag of a page, no link of Markdown, no command of TeX or of a terminal."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_leaderboard
import test_page
from command import ROOT, FinishedRun
from markdown_it import MarkdownIt

from bench import cli
from bench.interface import UsageError
from bench.records import Results, load, save
from bench.store import Store, key
from reports import document, leaderboard, markdown, page, pdf, tables
from tests.html_page import Page
from tests.test_leaderboard import five  # noqa: F401
from tests.test_page import browser, needs_chromium  # noqa: F401
from tests.typeset import needs_tex

pytestmark = pytest.mark.hard
AUDITED = ROOT / "docs" / "results" / "cifar10-small" / "sample_removal"
TAGS = "\"><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'></style><a href=javascript:1>"
LINKS = "[x](javascript:alert(1)) ![y](http://example.org/z.png) <http://example.org> <b> &lt;b&gt; | end"
ESCAPES = "\x1b]0;title\x07\x1b[31m\x9b2J\x08\r\x00end"
HARMLESS = "zzz"
KEPT = (("scenario",), ("audit", "family"))  # what a report looks up; anything else there is refused


def marked(value: Any, mark: str, place: tuple[str | int, ...] = ()) -> Any:
    """The same with a mark at the end of every text."""
    if isinstance(value, str) and not any(place[: len(kept)] == kept for kept in KEPT):
        return value + mark
    if isinstance(value, dict):
        return {name: marked(one, mark, (*place, name)) for name, one in value.items()}
    if isinstance(value, list):
        return [marked(one, mark, (*place, number)) for number, one in enumerate(value)]
    return value


def altered(results: Results, mark: str, *, audit: bool) -> Results:
    """The run with the mark at the end of all its texts; without `audit` those of the audit stay as they are."""
    run = marked(results.run, mark) | ({} if audit else {"audit": results.run["audit"]})
    records = [
        dataclasses.replace(one, method=one.method + mark * (one.method != "reference"), status=f"{one.status}{mark}")
        for one in results.records
    ]
    return dataclasses.replace(results, run=run, records=records)


def html(results: Results) -> str:
    return page.render(results, tables.build(results), [])


def in_html(results: Results) -> str:
    """The tables as a reader of Markdown shows them, who takes HTML for HTML."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return str(reader.render(markdown.page(results, tables.build(results))))


def structure(text: str) -> list[tuple[str, list[str]]]:
    """The tags of a page with the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in Page(text).tags]


@pytest.mark.parametrize("audit", [True, False])
@pytest.mark.parametrize(("shown", "mark"), [(html, TAGS), (in_html, TAGS), (in_html, LINKS)])
def test_no_text_becomes_a_tag_or_a_link(shown: Callable[[Results], str], mark: str, audit: bool) -> None:
    results = load(AUDITED)
    plain, hostile = (shown(altered(results, one, audit=audit)) for one in (HARMLESS, mark))
    assert plain.count(HARMLESS) > 20 and structure(f"<p>{mark}</p>") != structure("<p></p>")
    assert structure(hostile) == structure(plain)
    assert Page(hostile).text.count("javascript:") > plain.count(HARMLESS) // 3, "it is shown, as text"


def test_no_text_becomes_a_tag_of_a_leaderboard(five: Path, tmp_path: Path) -> None:  # noqa: F811
    shown = []
    for mark in (HARMLESS, TAGS + LINKS):
        for number in range(5):
            test_leaderboard.change(five / f"run{number}", dataset=f"digits{mark}", architecture=f"net{mark}")
            test_leaderboard.say(five / f"run{number}", "a", status=f"failed: {mark}")
        leaderboard.build([five], tmp_path / "board")
        reader = MarkdownIt("commonmark", {"html": True}).enable("table")
        text = reader.render((tmp_path / "board" / "leaderboard.md").read_text())
        shown.append([structure((tmp_path / "board" / "leaderboard.html").read_text()), structure(text)])
    assert shown[0] == shown[1]


@needs_chromium
def test_a_browser_runs_nothing_of_a_hostile_run(browser: Any, five: Path, tmp_path: Path) -> None:  # noqa: F811
    test_leaderboard.change(five / "run0", dataset=f"digits{TAGS}")
    leaderboard.build([five], tmp_path)
    (tmp_path / "report.html").write_text(html(altered(load(AUDITED), TAGS, audit=False)), encoding="utf-8")
    for name in ("report", "leaderboard"):
        tab = test_page.Tab(browser, tmp_path / f"{name}.html")
        assert "window.hacked = 1" in tab.page.inner_text("body")
        assert tab.page.evaluate("window.hacked") is None and tab.said == []
        tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 6\">')")
        tab.page.wait_for_timeout(100)
        assert tab.page.evaluate("window.hacked") is None, "nor what comes to the page later"
        tab.context.close()


# TeX


@needs_tex
def test_tex_runs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary, tex = tmp_path / "ran", tmp_path / "report.tex"
    body = rf"\immediate\write18{{touch {canary}}}\immediate\openout3={tmp_path}/written.txt x"
    tex.write_text(rf"\documentclass{{article}}\begin{{document}}{body}\end{{document}}")
    with pytest.raises(UsageError):
        pdf.compile(tex)
    assert not canary.exists() and not (tmp_path / "written.txt").exists()
    monkeypatch.setattr(pdf, "LATEX", ("pdflatex", "-shell-escape", *pdf.LATEX[2:]))
    monkeypatch.setattr(pdf, "ENVIRONMENT", {"openout_any": "a"})
    pdf.compile(tex)
    assert canary.exists() and (tmp_path / "written.txt").exists(), "it is the flag and the settings that hold it back"


def test_no_text_of_a_run_is_a_command_of_tex() -> None:
    mark = r"\input{/etc/passwd}\write18{id}$x^^5cy"
    results = altered(load(AUDITED), mark, audit=True)
    text = document.text(results, tables.build(results), [])
    assert r"\textbackslash{}input\{" in text
    assert not re.search(r"\\input\{/|\\write18|\^\^", text)


# Terminals


def steering(text: str) -> list[str]:
    """What a terminal would take for a command."""
    return re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A results folder whose every text would move the cursor, name the window and color what follows."""
    results = load(AUDITED)
    save(tmp_path / "out", dataclasses.replace(results, samples={}))
    run = marked(json.loads((tmp_path / "out" / "run.json").read_text()), ESCAPES)
    run["audit"] = results.run["audit"]
    (tmp_path / "out" / "run.json").write_text(json.dumps(run))
    path = tmp_path / "out" / "records.csv"
    lines = path.read_text().replace(",pgu,", f",pgu{ESCAPES.replace(chr(13), '')},").replace(",ok", ",ok\x1b[31m")
    path.write_text(lines)
    assert steering(lines) and steering(ESCAPES)
    return tmp_path


@pytest.mark.parametrize(
    "words", ["report out", "compare out --baseline new.json --update-baseline", "leaderboard out --out board"]
)
def test_a_terminal_is_not_steered_by_a_run(
    words: str, hostile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hostile)
    assert cli.main(words.split()) == 0
    out, err = capsys.readouterr()
    assert out and not steering(out) and not steering(err)
    for path in (*hostile.rglob("*.md"), *hostile.rglob("*.html"), *hostile.rglob("*.tex")):
        assert not steering(path.read_text()), path


def test_a_terminal_is_not_steered_by_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("store"))
    store.put("model", key(number=1), {}, {})
    shutil.copy(store.path("model", key(number=1)), store.path("model", key(number=1)).with_stem("\x1b]0;x\x07"))
    Path("mine.toml").write_text(r'"\u001b]0;x\u0007" = 1')
    for words in (["--methods", "\x1b]0;x\x07"], ["--preset", "mine.toml"], ["--preset", "\x1b[31m.toml"],
                  ["report", "\x1b[31m"], ["store", "ls"], ["\x1b[31m"]):  # fmt: skip
        cli.main(words)
        out, err = capsys.readouterr()
        assert "\N{REPLACEMENT CHARACTER}" in out + err and not steering(out + err), words


# Spreadsheets


def test_no_cell_of_records_is_a_formula(tiny: FinishedRun) -> None:
    """Numbers may be negative; names and remarks, which are words of ours or of a method's file, begin with letters."""
    cells = {cell for line in (tiny.out / "records.csv").read_text().splitlines() for cell in line.split(",")}
    assert len(cells) > 100
    assert not [cell for cell in cells if re.match(r"[=@+\t\r]|-(?!\d|inf|$)", cell)]
