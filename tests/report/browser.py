"""Chromium without a window, driven through the pipe of its DevTools protocol.

It needs no package: messages are JSON that a zero byte ends.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
HEIGHT = 900
SECONDS = 60


def executable():
    """The path of a Chromium; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab; `problems` has what went wrong in it, `requests` the addresses that it asked for."""

    def __init__(self, write, read):
        self._write = write
        self._read = read
        self._n_calls = 0
        self._session = None
        self.problems = []
        self.requests = []
        [target] = [
            target
            for target in self._call("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        ]
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, path, width, *, dark=False):
        """Loads a local page at a width in CSS pixels, and waits until it is drawn."""
        self.problems.clear()
        self.requests.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._set_size(width, HEIGHT)
        self._call("Page.navigate", url=f"file://{path}")
        self._wait_for("Page.loadEventFired")

    def evaluate(self, script):
        """Returns the value of JavaScript in the page."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screenshot(self, path, width):
        """Writes the whole page as a PNG."""
        height = self.evaluate("document.documentElement.scrollHeight")
        self._set_size(width, min(height, 16_000))
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))
        self._set_size(width, HEIGHT)

    def _set_size(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def _call(self, method, **params):
        self._n_calls += 1
        message = {"id": self._n_calls, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._n_calls:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _wait_for(self, event):
        while self._next().get("method") != event:
            pass

    def _next(self):
        """The next message; events that matter are kept."""
        message = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        message = json.loads(message)
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(params["exceptionDetails"]["text"])
            case "Runtime.consoleAPICalled":
                self.problems.append(f"console.{params['type']}")
            case "Log.entryAdded":
                self.problems.append(params["entry"]["text"])
        return message


@contextlib.contextmanager
def browser():
    """Yields a `Browser`, whose process ends with the block."""
    read, its_write = os.pipe()
    its_read, write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The protocol is on the descriptors 3 and 4, which only a shell can give it safely.
        shell = f'exec "$0" "$@" 3<&{its_read} 4>&{its_write}'
        process = subprocess.Popen(
            ["timeout", str(SECONDS), "bash", "-c", shell, executable(), *FLAGS]
            + [f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(its_read, its_write),
            stderr=subprocess.DEVNULL,
        )
        os.close(its_read)
        os.close(its_write)
        with open(write, "wb") as to_browser, open(read, "rb") as from_browser:
            try:
                yield Browser(to_browser, from_browser)
            finally:
                process.terminate()
                process.wait()
