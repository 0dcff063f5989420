"""The page in a real browser: it renders, sorts, tells what is known of a number, and everybody can use it."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records import Results, load
from reports import page, tables
from reports.numbers import REFERENCE, Numbers, significant
from tests.command import FinishedRun
from tests.fabricated import fabricate

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which the extra dev has")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium, in Debian the package chromium"
)

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HOSTILE = {
    "pgu": '"><script>window.hacked = 1</script>',
    "scrub": "</script><img src=x onerror='window.hacked = 2'>",
    "eu_k": "{{ 7 * 7 }} `code` &amp; \" ' <b>",
}


class Tab:
    """A page that a browser shows, what it wrote to the console and what it asked for beside itself."""

    def __init__(self, browser: Any, path: Path, *, scheme: str = "light", size: dict[str, int] = DESKTOP,
                 script: bool = True) -> None:  # fmt: skip
        self.context = browser.new_context(
            color_scheme=scheme, viewport=size, java_script_enabled=script, offline=True, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url.partition(",")[0]))
        self.page.goto(path.as_uri())

    def order(self, table: str) -> list[str]:
        """The names in the first column of a table, from the top."""
        names = f"table[aria-labelledby={table}] tbody th"
        return list(self.page.eval_on_selector_all(names, "all => all.map(one => one.dataset.value)"))

    def button(self, table: str, name: str) -> Any:
        """The button that sorts a table by this column."""
        return self.page.locator(f"table[aria-labelledby={table}]").get_by_role(
            "button", name=f"Sort by {name}", exact=True
        )

    def cell(self, table: str, method: str, name: str) -> Any:
        """The cell of a method in the column of this name."""
        heads = f"table[aria-labelledby={table}] thead th"
        column = self.page.eval_on_selector_all(heads, "all => all.map(one => one.dataset.name)").index(name)
        row = self.page.locator(f"table[aria-labelledby={table}] tbody tr").filter(
            has=self.page.locator(f"th[data-value='{method}']")
        )
        return row.locator("td").nth(column - 1)

    def tip(self) -> dict[str, str]:
        """The lines of the tooltip, empty while there is none."""
        if not self.page.locator("#tip").is_visible():
            return {}
        names, texts = (self.page.locator(f"#tip {kind}").all_inner_texts() for kind in ("dt", "dd"))
        return dict(zip(names, texts, strict=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium, that of the system; nothing is downloaded."""
    # Chromium has no sandbox of its own for root, as in a container.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu", *root])
        yield running
        running.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A deep audit of a class removal with a failed method and hostile names of classes and attacks."""
    return load(fabricate(tmp_path_factory.mktemp("page"), "class_removal", deep=True))


@pytest.fixture(scope="module")
def written(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(results, tmp_path_factory.mktemp("page"))


def write(results: Results, folder: Path) -> Path:
    """The page of a run, without figures."""
    path = folder / "report.html"
    path.write_text(page.render(results, tables.build(results), []), encoding="utf-8")
    return path


@pytest.fixture
def tab(browser: Any, written: Path) -> Iterator[Tab]:
    opened = Tab(browser, written)
    yield opened
    opened.context.close()
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [written.as_uri()]


def test_the_page_of_a_real_run_opens_offline_without_a_word(browser: Any, tiny: FinishedRun) -> None:
    path = tiny.out / "report.html"
    tab = Tab(browser, path)
    assert tab.page.title() == load(tiny.out).run["title"]
    assert tab.page.locator("h2").first.inner_text() == "Verdict"
    assert tab.page.locator("figure img").count() > 0
    assert tab.page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    card = tab.page.locator("article.card", has=tab.page.get_by_role("heading", name="pgu", exact=True))
    card.get_by_text("Deviations", exact=True).click()
    assert card.get_by_text("equation 1 has the sign of the entropy term reversed").is_visible()
    assert card.get_by_text("Tuan Hoang", exact=False).is_visible()
    assert not [line for line in tab.said if line]
    assert {url for url in tab.asked if not url.startswith("data:")} == {path.as_uri()}
    tab.context.close()


def test_a_column_sorts_by_the_values_of_the_records(tab: Tab, results: Results) -> None:
    numbers, button = Numbers(results.records), tab.button("forgotten", "forget error")
    head = button.locator("xpath=ancestor::th")
    first = tab.order("forgotten")
    pool, shown = first[0], {name: name.removesuffix(" †") for name in first[1:]}
    values = {name: numbers.value(method, "error_unmasked", "forget") for name, method in shown.items()}
    measured = sorted((name for name in values if not math.isnan(values[name])), key=values.__getitem__)
    assert pool.startswith("retrained pool")
    assert measured != first[1 : len(measured) + 1], "the run's order must not be the sorted one"
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.order("forgotten") == [pool, *measured, "ntk"]
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert tab.order("forgotten") == [pool, *reversed(measured), "ntk"]
    button.click()
    assert head.get_attribute("aria-sort") is None
    assert tab.order("forgotten") == first


def test_words_sort_by_the_alphabet_and_one_column_at_a_time(tab: Tab) -> None:
    tab.button("cost", "examples read").click()
    tab.button("cost", "method").click()
    assert tab.page.locator("table[aria-labelledby=cost] [aria-sort]").count() == 1
    assert tab.order("cost") == sorted(tab.order("cost"))
    verdicts = tab.page.locator("table[aria-labelledby=forgotten] tbody tr td:nth-child(2)")
    tab.button("forgotten", "verdict").click()
    said = [text.split(maxsplit=1)[-1] for text in verdicts.all_inner_texts()[1:-1]]
    assert said == sorted(said)
    assert len(set(said)) > 2


def test_every_sorted_column_is_in_order_with_the_unknown_last(tab: Tab) -> None:
    """Every button of every table, each in both directions; the order that the page itself gives its numbers."""
    values = """button => {
        const head = button.closest('th'), rows = [...head.closest('table').tBodies[0].rows];
        button.click();
        return rows.filter(row => !row.classList.contains('reference')).length
            && [...head.closest('table').tBodies[0].rows].filter(row => !row.classList.contains('reference'))
                .map(row => row.cells[head.cellIndex]?.dataset.value ?? null);
    }"""
    buttons = tab.page.locator("th:not(.label):not(:first-child) button.sort")
    assert buttons.count() > 30
    for button in buttons.element_handles():
        for sign in (1, -1):
            found = button.evaluate(values)
            known = [sign * float(value) for value in found if value is not None]
            assert known == sorted(known)
            assert all(value is None for value in found[len(known) :])


def test_pointing_at_a_number_tells_its_interval_and_the_floor(tab: Tab, results: Results) -> None:
    numbers = Numbers(results.records)
    gap, control = (numbers.summary(method, "error_unmasked_gap", "forget") for method in ("pgu", "retrain"))
    assert gap and control
    spread = numbers.deviation(REFERENCE, "error_unmasked", "forget")
    tab.cell("forgotten", "pgu †", "forget error: gap").hover()
    told = tab.tip()
    for name, record in (("pgu †", gap), ("retrain", control)):
        low, high = significant(record.low, 4), significant(record.high, 4)
        assert told[name] == f"{significant(record.value, 4)}, 95 % interval [{low}, {high}], n = {record.n}"
    assert told["retrained pool (n=50)"] == f"standard deviation of its models {significant(spread, 4)}"
    assert told["good"].startswith("0")
    floor = numbers.summary(REFERENCE, "log_entropy_w1", "forget")
    assert floor
    tab.cell("forgotten", "eu_k", "entropy W1").hover()
    assert tab.tip()["retrained pool (n=50)"].startswith(f"{significant(floor.value, 4)}, 95 % interval")
    tab.cell("attacks", "eu_k", "per_example").hover()
    p = numbers.value("eu_k", "attack_p:per_example", "forget")
    assert f"p if chance {p:.3f}" in tab.tip()["eu_k"] or p < 0.0005
    tab.page.get_by_role("heading", level=1).hover()
    tab.page.wait_for_selector("#tip", state="hidden")


def test_everything_works_from_the_keyboard(tab: Tab) -> None:
    button = tab.button("forgotten", "entropy W1")
    button.focus()
    tab.page.keyboard.press("Enter")
    assert button.locator("xpath=ancestor::th").get_attribute("aria-sort") == "ascending"
    stops = tab.page.locator("table[aria-labelledby=forgotten] td[tabindex='0']")
    assert stops.count() == 1
    tab.page.keyboard.press("Tab")  # over the last head's link and button
    for _ in range(4):
        if tab.tip():
            break
        tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    before = tab.tip()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowDown")
    assert tab.tip() not in ({}, before)
    assert stops.count() == 1
    tab.page.keyboard.press("Escape")
    assert tab.tip() == {}


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", PHONE)], ids=["light", "dark, phone"])
def test_no_accessibility_rule_is_broken(browser: Any, written: Path, scheme: str, size: dict[str, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    tab = Tab(browser, written, scheme=scheme, size=size)
    tab.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    tab.button("forgotten", "forget error").click()
    tab.cell("forgotten", "pgu †", "forget error").focus()
    assert tab.tip()
    found = axe.run(tab.page).response
    assert len(found["passes"]) > 20, "the check has looked at the page"
    broken = [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in found["violations"]]
    assert broken == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") == size["width"], "only tables scroll sideways"
    tab.context.close()


def test_without_script_the_page_is_whole(browser: Any, written: Path, results: Results) -> None:
    tab = Tab(browser, written, script=False)
    assert tab.page.locator("button, [data-scripted]:visible, #tip:visible").count() == 0
    for table in tables.build(results):
        rows = tab.page.locator(f"table[aria-labelledby={table.name}] tbody tr")
        assert rows.count() == len(table.rows)
        for row, text in zip(table.rows, rows.all_inner_texts(), strict=True):
            assert row.kind == "failed" or all(cell in text for cell in row.cells)
    assert tab.said == []
    tab.context.close()


def hostile(results: Results) -> Results:
    """The same run with names and messages that try to become part of the page."""
    methods = [{**entry, "name": HOSTILE.get(entry["name"], entry["name"])} for entry in results.run["methods"]]
    methods[-1]["status"] = "failed: </script><script>window.hacked = 3</script> ]]> <!-- \" '"
    methods[0]["deviations"] = [{"lead": "Deviations:", "clauses": ["`<b>` <script>window.hacked = 4</script>"]}]
    records = [dataclasses.replace(one, method=HOSTILE.get(one.method, one.method)) for one in results.records]
    command = "python run_benchmark.py '</code><script>window.hacked = 5</script>'"
    return dataclasses.replace(results, run={**results.run, "methods": methods, "command": command}, records=records)


def test_hostile_names_stay_text(browser: Any, results: Results, tmp_path: Path) -> None:
    tab = Tab(browser, write(hostile(results), tmp_path))
    names = tab.order("forgotten")
    assert set(HOSTILE.values()) <= {name.removesuffix(" †") for name in names}
    tab.button("forgotten", "forget error").click()
    assert sorted(tab.order("forgotten")) == sorted(names)
    tab.page.locator("table[aria-labelledby=forgotten] tr.method td[data-tip]").first.hover()
    assert set(tab.tip()) & set(names)
    assert tab.page.locator("body script").count() == 1
    assert tab.page.locator("body b").count() == 0
    assert tab.page.evaluate("window.hacked") is None
    assert tab.said == []
    tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 6\">')")
    tab.page.wait_for_timeout(100)
    assert tab.page.evaluate("window.hacked") is None, "what was not on the page when it was made does not run"
    tab.context.close()
