"""A headless Chromium that a test drives by the devtools protocol."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_S = 120.0


class ProtocolError(Exception):
    """What a command of the protocol came to, for one on a page that is being left."""


class Browser:
    """One page. `errors`: what its scripts threw, or the console calls one; `asked`: the addresses it asked for."""

    def __init__(self, folder: Path):
        program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            pytest.skip(f"no browser here: none of {', '.join(PROGRAMS)} is on the PATH (apt-get install chromium)")
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._number = 0
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0",
                 "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"]  # fmt: skip
        with open(folder.parent / "browser.log", "wb") as log:
            self._process = subprocess.Popen([program, *flags, "about:blank"], stdout=log, stderr=log)
        self._session, self._socket = self._loop.run_until_complete(self._connect(folder / "DevToolsActivePort"))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        self._loop.run_until_complete(self._socket.close())
        self._loop.run_until_complete(self._session.close())
        self._process.terminate()
        self._process.wait(WAIT_S)
        self._loop.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        return self._loop.run_until_complete(self._call(method, parameters))

    def open(self, address: str, width: int = 1440, height: int = 1000, theme: str = "light") -> None:
        """Goes to an address, with a window of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What an expression of the page's own language gives, as json."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """Until the expression gives something true; that."""
        deadline = time.monotonic() + WAIT_S
        while not (found := self._value_if_there(script)):
            assert time.monotonic() < deadline, f"never true: {script}\n{self.errors}\n{self.text()[:2000]}"
            time.sleep(0.05)
        return found

    def _value_if_there(self, script: str) -> Any:
        with contextlib.suppress(ProtocolError):  # an element is no json
            return self.value(f"(() => {{ const found = {script}; return found instanceof Node ? true : found; }})()")

    def click(self, selector: str) -> None:
        """Clicks into the middle of the first element that there is, with the mouse."""
        place = self.wait(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); if (!it) return null;"
            "it.scrollIntoView({block: 'center'}); const box = it.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )  # fmt: skip

    def choose(self, label: str, value: str) -> None:
        """Sets the field of that label, as a user would."""
        self.wait(f"document.querySelector('[aria-label={json.dumps(label)}]')")
        self.value(
            f"(() => {{ const it = document.querySelector('[aria-label={json.dumps(label)}]');"
            f"it.value = {json.dumps(value)}; it.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
        )

    def text(self) -> str:
        """What can be read on the page."""
        return self.value("document.body ? document.body.innerText : ''")

    def photograph(self) -> bytes:
        """The window as png."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    async def _connect(self, note: Path):
        deadline = time.monotonic() + WAIT_S
        while not (note.is_file() and note.read_text().count("\n")):
            assert self._process.poll() is None, (note.parents[1] / "browser.log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, "the browser did not start"
            await asyncio.sleep(0.05)
        port = note.read_text().split("\n")[0]
        session = aiohttp.ClientSession()
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        return session, await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), WAIT_S)
            if message.get("id") == self._number:
                if "error" in message:
                    raise ProtocolError(f"{method}: {message['error']}")
                return message["result"]
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        said = message.get("params", {})
        match message["method"]:
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(said["exceptionDetails"])[:1000])
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
                self.errors.append(json.dumps(said["args"])[:1000])
            case "Page.javascriptDialogOpening":
                self.errors.append(f"dialog: {said['message']}")
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])
