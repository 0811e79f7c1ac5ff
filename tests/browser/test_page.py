"""The demo's page as somebody uses it: two tabs, connections that end, a keyboard alone, small and large screens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from fastapi_toolsets.demo.orders import read_orders

from ..live_desk import Desk, open_desk
from .browser import Browser, Tab

RECORDS = {record.number: record for record in read_orders()}
COUNT = len(RECORDS)


def row(number: str, quantity: int | None = None, status: str = "new") -> list[str]:
    record = RECORDS[number]
    return [number, record.customer, record.item, str(record.quantity if quantity is None else quantity), status]


AT_FIRST = [row(number) for number in sorted(RECORDS)]


def test_orders_are_shown(browser: Browser, desk: Desk) -> None:
    """E1: as they stand; what led there is no event of this page."""
    tab = browser.open(desk.address)
    tab.wait_until(tab.rows, AT_FIRST)
    assert tab.events() == []
    assert (tab.text("h1"), tab.text("#count")) == ("Order desk", f"{COUNT} orders")
    hosts = tab.run("return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)")
    assert set(hosts) == {desk.address}


def test_change_in_one_tab_is_an_event_in_the_other(browser: Browser, desk: Desk) -> None:
    """N1, T1: with its old and new values, in both tabs alike."""
    first, second = browser.open(desk.address), browser.open(desk.address)
    for tab in (first, second):
        tab.wait_until(tab.rows, AT_FIRST)
    first.click(".next", "A-1001")
    second.wait_until(second.events, [[COUNT + 1, "update", "A-1001", "status: new → paid"]])
    second.click(".more", "A-1001")
    second.click(".cancel", "A-1002")
    expected = [
        [COUNT + 1, "update", "A-1001", "status: new → paid"],
        [COUNT + 2, "update", "A-1001", "quantity: 3 → 4"],
        [COUNT + 3, "delete", "A-1002", ""],
    ]
    for tab in (first, second):
        tab.wait_until(tab.events, expected)
        assert tab.rows() == [row("A-1001", 4, "paid"), *AT_FIRST[2:]]


def test_what_the_database_refuses_is_no_event(browser: Browser, desk: Desk) -> None:
    """T2: a quantity of zero, and a number that is taken: the page says so, and no tab is told of anything."""
    first, second = browser.open(desk.address), browser.open(desk.address)
    first.wait_until(first.rows, AT_FIRST)
    first.click(".less", "A-1002")
    refused = "Refused: order A-1002 cannot be changed like that. Nothing was committed, so there is no event."
    first.wait_until(lambda: first.text("#refused"), refused)
    number = first.element("[name=number]")
    number.clear()
    number.send_keys("A-1001", Keys.TAB, "Lena Ohm", Keys.TAB, "lamp", Keys.ENTER)
    taken = (
        "Refused: the database does not take A-1001: its number is taken, or its quantity not positive. "
        "Nothing was committed, so there is no event."
    )
    first.wait_until(lambda: first.text("#refused"), taken)
    first.click(".next", "A-1003")
    for tab in (first, second):
        tab.wait_until(tab.events, [[COUNT + 1, "update", "A-1003", "status: new → paid"]])
    assert not first.element("#refused").is_displayed()


def test_no_event_is_lost_when_the_server_ends_connections(browser: Browser, desk: Desk) -> None:
    """What happens until a tab is back is shown in it, once and in order; the other has dropped the connections."""
    first, second = browser.open(desk.address), browser.open(desk.address)
    first.click("#drop")
    second.wait_until_state("Reconnecting …")
    for quantity in range(10, 15):
        desk.change("A-1001", quantity=quantity)
    first.click(".next", "A-1002")
    expected = [
        [COUNT + 1, "update", "A-1001", "quantity: 3 → 10"],
        *([COUNT + 2 + step, "update", "A-1001", f"quantity: {10 + step} → {11 + step}"] for step in range(4)),
        [COUNT + 6, "update", "A-1002", "status: new → paid"],
    ]
    for tab in (first, second):
        tab.wait_until(tab.events, expected)
        tab.wait_until_state("Live")
        assert tab.rows()[:2] == [row("A-1001", 14), row("A-1002", status="paid")]


def test_gap_that_is_too_large(browser: Browser, tmp_path: Path) -> None:
    """The page says that it has missed some, and shows the orders as they stand now."""
    with open_desk(tmp_path, capacity=2) as desk:
        tab = browser.open(desk.address)
        tab.wait_until(tab.rows, AT_FIRST)
        desk.drop_connections()
        tab.wait_until_state("Reconnecting …")
        desk.create("B-1", "B-2", "B-3")
        desk.cancel("A-1001")
        notice = "More happened while this page was away than the server keeps. The orders were loaded again."
        tab.wait_until(tab.events, [notice])
        new = [[number, "Lena Ohm", "lamp", "1", "new"] for number in ("B-1", "B-2", "B-3")]
        assert tab.rows() == [*AT_FIRST[1:], *new]
        desk.cancel("B-2")
        tab.wait_until(tab.events, [notice, [COUNT + 5, "delete", "B-2", ""]])


def test_server_that_is_started_anew(browser: Browser, tmp_path: Path) -> None:
    """The page waits for it, says so, shows the orders as they stand now, and goes on."""
    with open_desk(tmp_path) as desk:
        tab = browser.open(desk.address)
        tab.wait_until(tab.rows, AT_FIRST)
        desk.change("A-1001", status="paid")
        told = [COUNT + 1, "update", "A-1001", "status: new → paid"]
        tab.wait_until(tab.events, [told])
    tab.wait_until_state("Reconnecting …")
    with open_desk(tmp_path, port=int(desk.address.rpartition(":")[2])) as desk:
        notice = "The server was started anew. The orders were loaded again."
        tab.wait_until(tab.events, [told, notice])
        tab.wait_until_state("Live")
        desk.change("A-1001", status="shipped")
        tab.wait_until(tab.events, [told, notice, [1, "update", "A-1001", "status: paid → shipped"]])
        assert tab.rows() == [row("A-1001", status="shipped"), *AT_FIRST[1:]]


def test_keyboard_alone(browser: Browser, desk: Desk) -> None:
    """Everything is reached by Tab and pressed by Enter or Space, and the focus is never lost."""
    tab = browser.open(desk.address)
    tab.wait_until(tab.rows, AT_FIRST)
    tab.press(Keys.TAB)
    assert tab.focused() == "Number"
    assert tab.value("[name=number]") == "A-1012"
    tab.press(Keys.TAB, "Lena Ohm", Keys.TAB, "lamp", Keys.TAB, Keys.ARROW_UP, Keys.TAB)
    assert tab.focused() == "Add order"
    tab.press(Keys.ENTER)
    tab.wait_until(lambda: len(tab.events()), 1)
    assert tab.rows()[-1] == ["A-1012", "Lena Ohm", "lamp", "2", "new"]
    tab.wait_until(tab.focused, "Customer")
    assert tab.value("[name=number]") == "A-1013"

    tab.press(Keys.TAB * 4)
    assert tab.focused() == "One less of A-1001"
    tab.press(Keys.TAB, Keys.SPACE)
    tab.wait_until(lambda: tab.rows()[0], row("A-1001", 4))
    assert tab.focused() == "One more of A-1001"
    tab.press(Keys.TAB)
    for status, following in (("paid", "Mark shipped"), ("shipped", "Done")):
        tab.press(Keys.ENTER)
        tab.wait_until(lambda: tab.rows()[0], row("A-1001", 4, status))
        assert tab.focused() == following
    tab.press(Keys.ENTER, Keys.TAB)  # there is nothing left to mark
    assert tab.focused() == "Cancel A-1001"
    tab.press(Keys.ENTER)
    tab.wait_until(tab.focused, "Cancel A-1002")
    assert [event[1:] for event in tab.events()] == [
        ["create", "A-1012", ""],
        ["update", "A-1001", "quantity: 3 → 4"],
        ["update", "A-1001", "status: new → paid"],
        ["update", "A-1001", "status: paid → shipped"],
        ["delete", "A-1001", ""],
    ]


def test_focus_outlives_what_others_do(browser: Browser, desk: Desk) -> None:
    """An order that somebody else changes keeps the focus; one that is cancelled hands it to its neighbour."""
    tab = browser.open(desk.address)
    tab.wait_until(tab.rows, AT_FIRST)
    tab.run("arguments[0].focus()", tab.element(".next", "A-1002"))
    desk.change("A-1002", status="paid")
    tab.wait_until(tab.focused, "Mark shipped")
    desk.cancel("A-1002")
    tab.wait_until(tab.focused, "Cancel A-1003")
    for number in sorted(RECORDS):
        desk.cancel(number)
    tab.wait_until(lambda: len(tab.rows()), 0)
    assert tab.focused() == "Orders"


def test_values_are_text(browser: Browser, desk: Desk) -> None:
    """What users write is shown as they wrote it, and never run."""
    tab = browser.open(desk.address)
    desk.create("<img src=x onerror=alert(1)>")
    tab.wait_until(lambda: len(tab.events()), 1)
    assert tab.rows()[0][0] == "<img src=x onerror=alert(1)>"
    assert tab.events()[0][2] == "<img src=x onerror=alert(1)>"
    tab.click(".next", "<img src=x onerror=alert(1)>")
    tab.wait_until(lambda: tab.rows()[0][4], "paid")


CONTRAST = """
const channel = (value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4 };
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement)
        layers.push(parse(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, alpha = 1]) =>
        [r, g, b].map((value, index) => value * alpha + under[index] * (1 - alpha)), [255, 255, 255]);
};
return [...document.querySelectorAll("body *")].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && element.offsetParent)
    .map((element) => {
        const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
        return [`${element.tagName} ${element.className} ${element.textContent.trim().slice(0, 20)}`,
            (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
    }).filter(([, ratio]) => ratio < 4.5)
"""
"""Texts whose contrast is below what WCAG 2 asks for on level AA."""

WIDER_THAN_THE_SCREEN = """
return [...document.querySelectorAll("body *")].filter((element) =>
    element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5
    || element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline")
    .map((element) => `${element.tagName}.${element.className}`)
"""

SMALL_BUTTONS = """
return [...document.querySelectorAll("button")].filter((button) => button.getBoundingClientRect().height < 36
    || button.getBoundingClientRect().width < 36).map((button) => button.textContent)
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(400, 860), (800, 900), (1400, 900)])
def test_fits_the_screen(browser: Browser, desk: Desk, tmp_path: Path, width: int, height: int, *, dark: bool) -> None:
    """Nothing is cut off or sticks out, text can be read, and buttons can be hit; pictures for people to look at."""
    tab = browser.open(desk.address)
    tab.resize(width, height, dark=dark)
    desk.create("B-1")
    desk.change("A-1001", status="paid", quantity=12)
    desk.change("A-1002", status="paid")
    desk.change("A-1002", status="shipped")
    desk.cancel("A-1004")
    tab.wait_until(lambda: len(tab.events()), 5)
    tab.click(".less", "A-1002")
    tab.wait_until(lambda: tab.element("#refused").is_displayed(), expected=True)
    take_picture(tab, tmp_path / f"page-{width}-{'dark' if dark else 'light'}.png")
    assert tab.run(WIDER_THAN_THE_SCREEN) == []
    assert tab.run(SMALL_BUTTONS) == []
    assert tab.run(CONTRAST) == []


def take_picture(tab: Tab, path: Path) -> None:
    """Keep a picture of the whole page where ``PICTURES`` says, or in the test's own folder."""
    folder = Path(os.environ.get("PICTURES", path.parent))
    folder.mkdir(parents=True, exist_ok=True)
    tab.take_picture(folder / path.name)
