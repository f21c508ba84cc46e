"""A page in headless Chromium, driven over the DevTools protocol: errors, clicks, screenshots."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")


class Page:
    """One open page. `errors` are console errors, exceptions and network requests other than the file itself."""

    def __init__(self, socket: Any):
        self._socket = socket
        self._last = 0
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            self._note(message)
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path) -> float:
        """Load a file; returns seconds until the page's scripts have run."""
        started = time.perf_counter()
        self.call("Page.navigate", url=path.as_uri())
        while not self.run("document.documentElement?.dataset.ready === 'yes'"):
            assert time.perf_counter() - started < 120, self.errors
            time.sleep(0.02)
        return time.perf_counter() - started

    def settle(self) -> None:
        """Wait until what became visible is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done), 100)))")

    def emulate(self, width: int, height: int, dark: bool = False, phone: bool = False, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.errors.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(str(parameters["entry"]))
            case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith(("file:", "data:")):
                self.errors.append(f"network: {parameters['request']['url']}")


@contextmanager
def chromium_page(folder: Path) -> Iterator[Page]:
    """A page of a Chromium of its own, whose profile is in `folder`."""
    from websockets.sync.client import connect

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars"]
    browser = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert browser.stderr is not None
        for line in browser.stderr:
            if line.startswith("DevTools listening on "):
                break
        else:
            raise RuntimeError("chromium ended before it listened")
        address = line.split()[-1]
        with connect(address, max_size=None) as control:
            root = Page(control)
            target = root.call("Target.createTarget", url="about:blank")["targetId"]
            with connect(f"{address.rsplit('/devtools/', 1)[0]}/devtools/page/{target}", max_size=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    page.call(f"{domain}.enable")
                yield page
    finally:
        browser.terminate()
        browser.wait(30)
