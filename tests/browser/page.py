"""The page that tries an image, as tests talk about it. Waits for what it needs; never sleeps."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

Found = TypeVar("Found")

WAIT_SECONDS = 60
PERIOD_SECONDS = 0.05
PHONE_WIDTH = 600
# Enough for every control of the page; a person who needs more has lost their way.
MOST_TABS = 60

TRANSFER = """
(async (address, name, kind, done) => {
const blob = await (await fetch(address)).blob();
const transfer = new DataTransfer();
transfer.items.add(new File([blob], name, { type: blob.type }));
const event = kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
  : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
document.body.dispatchEvent(event);
done(event.defaultPrevented);
})(...arguments);
"""


class Page:
    """One window on the service."""

    def __init__(self, driver: Chrome, base_url: str) -> None:
        self.driver = driver
        self.base_url = base_url

    # ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Open the page, wait until it knows the models, and forget what the browser logged before."""
        self.open_plain()
        self.see("#answer .labels")

    def open_plain(self) -> None:
        """Open the page and forget what the browser logged before."""
        self.driver.get(f"{self.base_url}/")
        self.forget()

    def resize(self, width: int, height: int) -> None:
        """Give the window this size, as a phone has it below 600 pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE_WIDTH}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def forget_cookies(self) -> None:
        """Without a session and without preferences, whatever page is shown."""
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})

    def prefer(self, scheme: str) -> None:
        """Ask for light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def go_offline(self) -> None:
        """Take the network away."""
        self._network(is_offline=True)

    def go_online(self) -> None:
        """Give the network back."""
        self._network(is_offline=False)

    # ── Bringing pictures ────────────────────────────────────────────────────────────────────────────────────────────

    def sample_names(self) -> list[str]:
        """The samples that the page offers."""
        return [str(button.get_attribute("value")) for button in self.all(".sample")]

    def take_sample(self) -> None:
        """Press the first sample that is offered for the chosen task."""
        self.see(".sample").click()

    def save_samples(self, folder: Path) -> list[Path]:
        """Fetch all samples into a folder, as files that can be chosen."""
        paths = []
        for name in self.sample_names():
            with urllib.request.urlopen(f"{self.base_url}/samples/{name}", timeout=WAIT_SECONDS) as answer:
                paths.append(folder / name)
                paths[-1].write_bytes(answer.read())
        return paths

    def choose(self, *paths: Path) -> None:
        """Choose files."""
        self.driver.find_element(By.ID, "image_upload").send_keys("\n".join(map(str, paths)))

    def transfer(self, kind: str, name: str) -> bool:
        """Paste or drop a sample as a file; whether the page took it."""
        return bool(self.driver.execute_async_script(TRANSFER, f"/samples/{name}", name, kind))

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def click(self, selector: str, words: str = "") -> None:
        """Click such an element as soon as it can be seen; again if it was being replaced just then."""

        def is_clicked() -> bool:
            self.see(selector, words).click()
            return True

        self.until(is_clicked, f"a click on {selector}")

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def see(self, selector: str, words: str = "") -> WebElement:
        """Wait until such an element is visible and holds these words."""
        return self.until(lambda: self._visible(selector, words), f"{selector} with {words!r}")

    def until(self, condition: Callable[[], Found | None], what: str) -> Found:
        """Wait until the condition holds; it may look at elements that are being replaced."""
        wait = WebDriverWait(self.driver, WAIT_SECONDS, PERIOD_SECONDS, [StaleElementReferenceException])
        return cast(Found, wait.until(lambda _: condition(), f"waited for {what}"))

    def see_boxes(self) -> list[str]:
        """Wait for boxes; the label of each."""
        return self.until(
            lambda: [str(box.get_attribute("data-label")) for box in self.all("#stage .box")], "boxes on the picture"
        )

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def script(self, text: str, *values: Any) -> Any:
        return self.driver.execute_script(text, *values)

    # ── Acting ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def set(self, name: str, value: str) -> None:
        """Type a limit."""
        field = self.driver.find_element(By.ID, f"option-{name}")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value)

    def task(self, name: str) -> None:
        """Choose a task."""
        self.driver.find_element(By.CSS_SELECTOR, f'label:has([name="task"][value="{name}"])').click()

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str) -> None:
        """Press the tabulator until the focus is there."""
        for _ in range(MOST_TABS):
            if self.script("return document.activeElement.matches(arguments[0])", selector):
                return
            self.press(Keys.TAB)
        raise AssertionError(f"{MOST_TABS} tabs did not reach {selector}")

    # ── Logs of the browser; each call returns what is new ───────────────────────────────────────────────────────────

    def forget(self) -> None:
        """What the browser logged before is of no interest."""
        self.console()
        self.requests()

    def console(self) -> list[str]:
        """What the page complained about."""
        return [row["message"] for row in self.driver.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """The addresses that were asked."""
        rows = [json.loads(row["message"])["message"] for row in self.driver.get_log("performance")]
        return [row["params"]["request"]["url"] for row in rows if row["method"] == "Network.requestWillBeSent"]

    def _visible(self, selector: str, words: str) -> WebElement | None:
        fitting = (each for each in self.all(selector) if each.is_displayed() and words in each.text)
        return next(fitting, None)

    def _network(self, *, is_offline: bool) -> None:
        conditions = {"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
