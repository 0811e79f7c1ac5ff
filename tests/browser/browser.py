"""What a user sees and does in tabs of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

T = TypeVar("T")

TIMEOUT = 20  # seconds; what a page does not show until then, it does not show

ROWS = """
return [...document.querySelectorAll("#orders > li")].map((row) => [
    ".order-number", ".order-customer", ".what", ".order-quantity", ".status",
].map((part) => row.querySelector(part).textContent))
"""
EVENTS = """
return [...document.querySelectorAll("#events > li")].reverse().map((entry) =>
    entry.classList.contains("notice") ? entry.textContent : [
        Number(entry.dataset.id.split("-")[1]),
        ...[".badge", "strong", ".changes"].map((part) => entry.querySelector(part)?.textContent ?? ""),
    ])
"""


class Browser:
    """The browser: makes tabs."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._first = driver.current_window_handle
        emulate(driver, "Emulation.setEmulatedMedia", features=[])

    def open(self, address: str) -> Tab:
        """Open the page in a new tab, and wait until it is live."""
        self.driver.switch_to.new_window("tab")
        self.driver.get(address)
        tab = Tab(self.driver, self.driver.current_window_handle)
        tab.wait_until_state("Live")
        return tab

    def complaints(self) -> list[str]:
        """What pages have logged, but for connections that a test has had broken."""
        ask = cast("Callable[[str], list[dict[str, str]]]", self.driver.get_log)
        entries = ask("browser")
        lost = ("net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "409 (Conflict)")
        return [entry["message"] for entry in entries if not any(each in entry["message"] for each in lost)]

    def reset(self) -> None:
        """Close the tabs of the test."""
        for handle in self.driver.window_handles:
            if handle != self._first:
                self.driver.switch_to.window(handle)
                self.driver.close()
        self.driver.switch_to.window(self._first)


def emulate(driver: Chrome, command: str, **parameters: object) -> None:
    """Have Chromium pretend something about the screen."""
    driver.execute_cdp_cmd(command, parameters)  # pyright: ignore[reportUnknownMemberType] - dict without parameters


class Tab:
    """One tab with the page."""

    def __init__(self, driver: Chrome, handle: str) -> None:
        self._driver = driver
        self._handle = handle

    @property
    def driver(self) -> Chrome:
        """The driver, with this tab in front."""
        if self._driver.current_window_handle != self._handle:
            self._driver.switch_to.window(self._handle)
        return self._driver

    def rows(self) -> list[list[str]]:
        """The orders as shown: number, customer, item, quantity, status."""
        rows: list[list[str]] = self.run(ROWS)
        return rows

    def events(self) -> list[Any]:
        """The events as shown, the first first: position, type, number, changes; a notice as its text."""
        events: list[Any] = self.run(EVENTS)
        return events

    def wait_until(self, look: Callable[[], T], expected: T) -> None:
        """Wait until the page shows what is expected; fail with what it shows instead."""
        shown: list[T] = []

        def equal(_driver: Chrome) -> bool:
            shown[:] = [look()]
            return shown[0] == expected

        try:
            # An element may go between being found and being asked.
            gone = [StaleElementReferenceException]
            WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.05, ignored_exceptions=gone).until(equal)
        except TimeoutException:
            assert shown == [expected]
            raise

    def wait_until_state(self, state: str) -> None:
        """Wait until the page says so of its connection."""
        self.wait_until(lambda: self.text("#state"), state)

    def text(self, selector: str) -> str:
        return self.element(selector).text

    def element(self, selector: str, order: str | None = None) -> WebElement:
        """The first element that matches, within an order's row if one is named."""
        within = "" if order is None else f'#orders > li[data-number="{order}"] '
        return self.driver.find_element(By.CSS_SELECTOR, within + selector)

    def click(self, selector: str, order: str | None = None) -> None:
        button = self.element(selector, order)
        self.run("arguments[0].scrollIntoView({block: 'nearest'})", button)
        button.click()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> str:
        """The accessible name of what has the focus."""
        return self.driver.switch_to.active_element.accessible_name

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        return self.driver.execute_script(script, *arguments)  # pyright: ignore[reportUnknownMemberType] - untyped *args

    def value(self, selector: str) -> str:
        """What is in a field of the form."""
        value: str = self.run("return arguments[0].value", self.element(selector))
        return value

    def take_picture(self, path: Path) -> None:
        """Keep a picture of what the screen shows."""
        path.write_bytes(self.driver.get_screenshot_as_png())

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show the page as a screen of this size does, in a light or a dark colour scheme, and nothing in motion."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        emulate(self.driver, "Emulation.setDeviceMetricsOverride", **metrics)
        chosen = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in chosen.items()]
        emulate(self.driver, "Emulation.setEmulatedMedia", features=features)
