#!/usr/bin/env python3
"""Drives the page in Chromium without a window: Python's standard library, and a folder that `run.sh build` made.

    python3 examples/wasm/test_page.py --site "$(examples/wasm/run.sh build)" --tool target/release/examples/locutor

A story must come in pieces, with the ids that the tool gives on this machine; so must one of a GGUF that is dropped on
the page, and one that is chosen. Meanwhile the page's own thread must not wait. Files that are no models are told so.
"""

import argparse
import base64
import contextlib
import functools
import http.server
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--window-size=900,760",
]


class Browser:
    """Chromium behind a pipe: the DevTools protocol, messages of JSON that end with a 0."""

    def __init__(self, program, profile):
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        # The protocol wants descriptors 3 and 4; a shell puts them there, whatever numbers they have here.
        shell = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        command = ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=[to_child, from_child], stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self._number, self._buffer, self._session = 0, b"", None
        pages = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def send(self, method, timeout=60, **params):
        """Calls a method and waits for its answer; events are of no interest."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            while b"\0" in self._buffer:
                raw, self._buffer = self._buffer.split(b"\0", 1)
                answer = json.loads(raw)
                if answer.get("id") == self._number:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']}")
                    return answer["result"]
            if not select.select([self._in], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{method}: no answer")
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError(f"{method}: the browser ended")
            self._buffer += chunk

    def value(self, expression):
        """The value of an expression of JavaScript."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, timeout=120):
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            value = self.value(expression)
            if value:
                return value
            time.sleep(0.02)
        raise TimeoutError(f"{expression}; the page: {self.value('document.body.innerText')}")

    def close(self):
        with contextlib.suppress(Exception):
            self.send("Browser.close", timeout=10)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)


class Server(http.server.SimpleHTTPRequestHandler):
    """Python's plain file server, silent."""

    def log_message(self, *_):
        pass


def told(tool, *options):
    """Ids of the tool's text."""
    output = subprocess.run([tool, "generate", "--ids", *options], check=True, capture_output=True, text=True).stdout
    return output.strip()


# Set up in the same turn that starts a text, so that nothing of it is missed: the longest time between two ticks of a
# clock on the page's own thread, and how often a longer text stood there while the rest was still to come.
WATCH = """
window.longest = 0;
window.pieces = 0;
(() => {
    const telling = () => document.body.dataset.state === "telling";
    let last = performance.now();
    const tick = () => {
        const now = performance.now();
        window.longest = Math.max(window.longest, now - last);
        last = now;
        if (telling()) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    const observer = new MutationObserver(() => {
        if (telling()) window.pieces += 1;
        else observer.disconnect();
    });
    observer.observe(document.getElementById("text"), { childList: true, subtree: true, characterData: true });
})();
"""

# Stops a text as soon as a piece of it is there.
STOP = """
new MutationObserver((_, observer) => {
    observer.disconnect();
    document.getElementById("stop").click();
}).observe(document.getElementById("text"), { childList: true, subtree: true, characterData: true });
"""


def tell(browser, prompt, tokens, temperature, seed, then):
    """Fills the form, sends it, and runs `then` before the page does anything else."""
    fields = {"prompt": prompt, "tokens": tokens, "temperature": temperature, "seed": seed}
    for name, value in fields.items():
        browser.value(f"document.getElementById('{name}').value = {json.dumps(str(value))}")
    browser.value("document.getElementById('start').click();" + then)


def expect(what, got, expected):
    if got != expected:
        sys.exit(f"{what}:\n got      {got}\n expected {expected}")
    print(f"{what}: as expected")


def story(browser, tool, model, screenshot=None, seed=1, tokens=120):
    """A text and its ids, and that it comes piece by piece."""
    prompt = "Once upon a time"
    tell(browser, prompt, tokens, 0.7, seed, WATCH)
    ids = browser.wait("document.body.dataset.state === 'ready' && document.body.dataset.ids")
    whole, status = browser.value("['text', 'status'].map((id) => document.getElementById(id).textContent)")
    options = [*(["-m", model] if model else []), "--seed", str(seed), "-n", str(tokens), prompt]
    expect(f"ids of {model.name if model else 'the embedded model'}, seed {seed}", ids, told(tool, *options))
    rate = re.match(r"\d+ tokens, (\d+\.\d) tokens/s", status)
    assert rate and float(rate[1]) > 0, status
    longest, pieces = browser.value("[window.longest, window.pieces]")
    print(f"  {status}; {pieces} pieces; longest pause of the page {longest:.0f} ms")
    # Several tokens are one piece if a character is split among them.
    assert whole.startswith(prompt) and pieces > tokens // 4, (pieces, whole)
    # A machine with other work may hold up a frame; a page that does the work itself stands still for seconds.
    assert longest < 500, longest
    if screenshot:
        picture = browser.send("Page.captureScreenshot", format="png")["data"]
        Path(screenshot).parent.mkdir(parents=True, exist_ok=True)
        Path(screenshot).write_bytes(base64.b64decode(picture))


def drop(browser, path):
    """Drops a file on the frame, as a hand would."""
    frame = "document.getElementById('drop').getBoundingClientRect()"
    place = browser.value(f"(({{x, y}}) => ({{x: x + 20, y: y + 20}}))({frame})")
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", type=kind, data=data, **place)


def opened(browser, name):
    return browser.wait(f"document.body.dataset.state === 'ready' && document.getElementById('model').textContent"
                        f".startsWith({json.dumps(name)}) && document.getElementById('model').textContent")


def run(browser, address, options):
    browser.send("Page.enable")
    browser.send("Page.navigate", url=address)
    browser.wait("document.readyState === 'complete'")
    print(" ", opened(browser, "The story model"))
    story(browser, options.tool, None, options.screenshot)
    story(browser, options.tool, None, seed=7, tokens=40)

    # Stopped in the middle, and the page is ready for the next one.
    tell(browser, "Once upon a time", 400, 0.7, 1, STOP)
    status = browser.wait("document.body.dataset.state === 'ready' && document.getElementById('status').textContent")
    assert status.endswith("; stopped"), status

    golden = ROOT / "tests" / "golden" / "llama-gqa-tied-q8_0.gguf"
    for model in [golden, *options.model]:
        drop(browser, model.resolve())
        print(" ", opened(browser, model.name))
        story(browser, options.tool, model, tokens=24)

    # A file that is no model is named, and the page goes on with the next one.
    drop(browser, ROOT / "Cargo.toml")
    browser.wait("document.getElementById('error').textContent")
    reason, model = browser.value("['error', 'model'].map((id) => document.getElementById(id).textContent)")
    assert "GGUF" in reason and model == "No model.", (reason, model)
    assert browser.value("document.getElementById('start').disabled")
    browser.send("DOM.enable")
    node = browser.send("DOM.querySelector", nodeId=browser.send("DOM.getDocument")["root"]["nodeId"], selector="#file")
    browser.send("DOM.setFileInputFiles", files=[str(golden)], nodeId=node["nodeId"])
    opened(browser, golden.name)
    story(browser, options.tool, golden, seed=3, tokens=24)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", required=True, help="folder of the page")
    parser.add_argument("--tool", required=True, help="the command-line tool")
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--model", type=Path, action="append", default=[], help="one more file to drop")
    parser.add_argument("--screenshot", help="PNG of the page with its story")
    options = parser.parse_args()
    handler = functools.partial(Server, directory=options.site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = Browser(options.browser, profile)
        try:
            run(browser, f"http://127.0.0.1:{server.server_port}/index.html", options)
        finally:
            browser.close()
            server.shutdown()
    print("the page: well")


if __name__ == "__main__":
    main()
