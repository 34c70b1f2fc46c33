"""The sortable table in a browser: by mouse, by keyboard, and where scripts do not run."""

import math

import pytest

from sumormean.catalogue.table import Cell, Table

ROWS = [
    ["Chainer & co", Cell("D/2 = 392", 392), "collapses"],
    [Cell("keras", link="https://example.org/?a=1&b=2"), Cell("1", 1), "lives"],
    ["sigma", Cell("none", math.nan), "lives"],
    ["antixk", Cell("1.54", 1.54), "lives"],
]
TABLE = Table("losses", 'Losses <"all">', ["loss", "β", "verdict"], ROWS, choice="verdict")


def page_of(table: Table) -> str:
    head = '<!doctype html><html lang="en"><title>t</title><meta charset="utf-8">'
    return f"{head}<main><h1>t</h1>{table._repr_html_()}</main></html>"


@pytest.fixture
def page(chromium):
    with chromium.new_context() as context:
        page = context.new_page()
        wrong = []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_content(page_of(TABLE))
        yield page
        assert wrong == []


def shown(page) -> list[str]:
    return page.locator("tbody tr:visible td:first-child").all_inner_texts()


def test_sorts_numbers_as_numbers_and_what_has_none_last(page):
    heading = page.get_by_role("columnheader", name="β")
    heading.get_by_role("button").click()
    assert shown(page) == ["keras", "antixk", "Chainer & co", "sigma"]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    assert shown(page) == ["Chainer & co", "antixk", "keras", "sigma"]
    assert heading.get_attribute("aria-sort") == "descending"


def test_sorts_text_by_keyboard(page):
    page.get_by_role("button", name="loss").focus()
    page.keyboard.press("Enter")
    assert shown(page) == ["antixk", "Chainer & co", "keras", "sigma"]
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert shown(page)[0] == "keras"
    assert page.locator("[aria-sort]").count() == 1


def test_filters_and_says_how_many(page):
    page.get_by_label("Search").fill("LIVES an")
    assert shown(page) == ["antixk"]
    assert page.get_by_role("status").inner_text() == "1 of 4 shown"
    page.get_by_label("Search").fill("")
    page.get_by_label("verdict").select_option("lives")
    assert shown(page) == ["keras", "sigma", "antixk"]
    page.get_by_label("verdict").select_option("all")
    assert page.get_by_role("status").inner_text() == "4 of 4 shown"


def test_is_a_plain_table_without_scripts(chromium):
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.set_content(page_of(TABLE))
        assert shown(page) == ["Chainer & co", "keras", "sigma", "antixk"]
        assert page.locator("button, input, select").count() == 0
        assert page.locator("caption").inner_text() == 'Losses <"all">'


def test_has_no_accessibility_violation(page):
    from axe_playwright_python.sync_playwright import Axe

    assert Axe().run(page).response["violations"] == []


def test_is_the_same_every_time():
    assert TABLE._repr_html_() == TABLE._repr_html_()
    assert '<td data-value="392">D/2 = 392</td>' in TABLE._repr_html_()
    assert '<a href="https://example.org/?a=1&amp;b=2">keras</a>' in TABLE._repr_html_()
