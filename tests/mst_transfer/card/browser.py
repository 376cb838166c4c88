"""A headless Chromium, spoken to by its DevTools protocol over a pipe: opens a page, says what is wrong with it.

``python tests/mst_transfer/card/browser.py PAGE.html FOLDER`` writes screenshots: desktop and phone, light and dark.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
# What leaves the page at its right or left, or a plot's text its plot; what scrolls in a box of its own may be wide.
CUT_OFF = """[...document.querySelectorAll("body *")].filter(one => {
  const box = one.getBoundingClientRect(), plot = one.closest(".plots svg")?.getBoundingClientRect();
  if (one.closest(".scroll") && !one.matches(".scroll") || !box.width) return false;
  if (plot && one.matches("text") && (box.left < plot.left - 1 || box.right > plot.right + 1)) return true;
  return box.right > WIDTH + 1 || box.left < -1;
}).map(one => `${one.tagName} ${one.className.baseVal ?? one.className}: ${one.textContent.slice(0, 40)}`)"""


def program() -> str | None:
    """The browser, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One tab."""

    def __init__(self, program: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._session, self._number, self._rest = None, 0, b""
        (reads, self._out), (self._in, writes) = os.pipe(), os.pipe()
        command = ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", program, *OPTIONS]
        command += [f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(command, pass_fds=(reads, writes), stderr=subprocess.DEVNULL)
        os.close(reads)
        os.close(writes)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=20)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command; what the browser reports before the answer goes to ``events``."""
        self._number += 1
        message = dict(id=self._number, method=method, params=params)
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, page: Path, size: str, scheme: str) -> None:
        """Loads a page; ``events`` holds what happens until it is there."""
        width, height = SIZES[size]
        view = dict(width=width, height=height, deviceScaleFactor=1, mobile=size == "phone")
        self.call("Emulation.setDeviceMetricsOverride", **view)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def cut_off(self, size: str) -> list[str]:
        """Elements that leave the page."""
        return self.evaluate(CUT_OFF.replace("WIDTH", str(SIZES[size][0])))

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser said of the page, and what it asked the network for."""
        words = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        asked = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        outside = [one for one in asked if one["params"]["request"]["url"].split(":")[0] not in ("file", "data")]
        return [event for event in self.events if event["method"] in words] + outside

    def screenshot(self, path: Path, top: int = 0, height: int = 0) -> None:
        """A PNG of what is seen first, or of ``height`` pixels from ``top`` on."""
        width = self.evaluate("innerWidth")
        clip = {"clip": dict(x=0, y=top, width=width, height=height, scale=1)} if height else {}
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=bool(height), **clip)
        path.write_bytes(base64.b64decode(picture["data"]))


def main(page: str, folder: str, step: int = 1800) -> None:
    """Writes screenshots from top to bottom, with what is folded shown."""
    found = program()
    assert found, f"none of {PROGRAMS} is installed"
    Path(folder).mkdir(parents=True, exist_ok=True)
    browser = Browser(found, Path(folder) / "profile")
    for size in SIZES:
        for scheme in SCHEMES:
            browser.open(Path(page), size, scheme)
            browser.screenshot(Path(folder) / f"{size}_{scheme}.png")
            browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
            print(size, scheme, browser.cut_off(size), browser.complaints())
            length = browser.evaluate("document.documentElement.scrollHeight")
            for number, top in enumerate(range(0, length, step)):
                path = Path(folder) / f"{size}_{scheme}_{number:02d}.png"
                browser.screenshot(path, top, min(step, length - top))
    browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
