"""Screenshots of the Prefect UI for docs/prefect.md, of a server that has done something.

    make up && . build/up/env
    python benchmarks/kills.py --folder build/up --keep    # or any runs of your own
    python docs/screenshots.py

Needs a Chromium (`apt-get install chromium`); one process visits all pages. Shown are the newest
batch inference and the newest training that completed, and what artifacts they left. Each
picture goes into docs/images and into the page, below its marker. Look at them before you publish
them: they show addresses of this machine, and no photograph.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from PIL import Image
from websockets.sync.client import ClientConnection, connect

WIDTH, HEIGHT = 1280, 800
PAGE: Final = Path(__file__).with_name("prefect.md")
IMAGES: Final = PAGE.with_name("images")
LARGEST: Final = 200_000  # bytes of a picture
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Page:
    """A page of the UI.

    Attributes:
        name: of its picture, prefect-<name>.png.
        title: what the picture shows.
        path: below the UI's address.
        text: that is on the page once it is complete.
        click: the text of a tab to choose first.
        height: px; what lies below is not loaded.
        top: px that are left out at the top.
    """

    name: str
    title: str
    path: str
    text: str
    click: str = ""
    height: int = HEIGHT
    top: int = 0


class Browser:
    """A tab of Chromium, told what to do over its DevTools protocol."""

    def __init__(self, socket: ClientConnection, patience: float) -> None:
        self.socket = socket
        self.patience = patience
        self.count = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its result."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(self.patience))
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found

    def value(self, script: str) -> Any:
        """What a line of JavaScript says."""
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    def wait(self, script: str, what: str) -> None:
        """Until a line of JavaScript is true."""
        end = time.monotonic() + self.patience
        while not self.value(script):
            if time.monotonic() > end:
                raise SystemExit(f"{what} did not appear in {self.patience:.0f} s.")
            time.sleep(0.5)

    def picture(self, address: str, page: Page) -> bytes:
        """A page as PNG."""
        size = {"width": WIDTH, "height": page.height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=address + page.path)
        if page.click:
            tab = (
                "[...document.querySelectorAll('body *')].filter(one => !one.children.length"
                f" && one.textContent.trim() === {page.click!r}).at(-1)"
            )
            self.wait(f"!!{tab}", f"{page.path}: the tab {page.click}")
            self.value(f"{tab}.click()")
        self.wait(f"document.body.innerText.includes({page.text!r})", f"{page.path}: {page.text!r}")
        time.sleep(5)  # what is drawn after its text: icons, charts, pictures
        clip = {"x": 0, "y": page.top, "width": WIDTH, "height": page.height - page.top, "scale": 1}
        return base64.b64decode(
            self.call("Page.captureScreenshot", format="png", clip=clip)["data"]
        )


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=IMAGES, help="for the pictures")
    parser.add_argument("--patience", type=float, default=120, help="seconds that a page may take")
    options = parser.parse_args()
    api = os.environ.get("PREFECT_API_URL") or sys.exit("Set PREFECT_API_URL: . build/up/env")
    with browser(options.patience) as found:
        for page in pages(api):
            data = small(found.picture(api.removesuffix("/api"), page))
            if len(data) > LARGEST:
                sys.exit(f"{page.name} takes {len(data):,} bytes, more than {LARGEST:,}.")
            path = options.folder / f"prefect-{page.name}.png"
            path.write_bytes(data)
            print(f"{path}: {len(data):,} bytes", flush=True)
    if options.folder == IMAGES:
        PAGE.write_text(illustrated(PAGE.read_text("utf-8"), pages(api)), "utf-8")


def pages(api: str) -> list[Page]:
    """What to show; of each kind of run the newest that completed."""
    batch, train = newest(api, "batch-inference", "analyse"), newest(api, "train", "package")
    return [
        Page("dashboard", "The dashboard", "/dashboard", "Active Work Pools"),
        Page("deployments", "Deployments with their schedules", "/deployments", "monitor"),
        Page("batch", "A run of batch-inference", f"/runs/flow-run/{batch}", "Completed"),
        Page(
            "batch-artifacts",
            "Artifacts of a batch inference",
            f"/runs/flow-run/{batch}",
            "batch-summary",
            "Artifacts",
            height=1040,
            top=540,
        ),
        Page("train", "A run of train", f"/runs/flow-run/{train}", "Completed"),
        Page(
            "train-artifacts",
            "Curves, confusion matrix and figures of a training",
            f"/runs/flow-run/{train}",
            "learning-curves",
            "Artifacts",
            height=1160,
            top=540,
        ),
        Page(
            "automations",
            "The automations",
            "/automations",
            "fer: new data start a training",
            height=1100,
        ),
    ]


def small(data: bytes) -> bytes:
    """A PNG with 128 colours, which is what pages of text and lines need."""
    target = BytesIO()
    Image.open(BytesIO(data)).convert("RGB").quantize(128).save(target, "PNG", optimize=True)
    return target.getvalue()


def illustrated(text: str, shown: list[Page]) -> str:
    """The page with each picture below its marker."""
    for page in shown:
        marker = f"<!-- picture: {page.name} -->"
        line = f"![{page.title}](images/prefect-{page.name}.png)"
        text = re.sub(re.escape(marker) + r"(\n!\[.*)?", f"{marker}\n{line}", text)
    return text


def newest(api: str, flow: str, task: str) -> str:
    """The newest completed run of a flow that did this task."""
    body = {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        "task_runs": {"name": {"any_": [task]}},
        "sort": "END_TIME_DESC",
        "limit": 1,
    }
    request = urllib.request.Request(  # noqa: S310
        f"{api}/flow_runs/filter", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        runs = json.loads(answer.read())
    if not runs:
        sys.exit(f"No run of {flow} has completed yet. Start one, and wait for its end.")
    return str(runs[0]["id"])


@contextmanager
def browser(patience: float) -> Iterator[Browser]:
    """A Chromium of its own, with nobody's profile."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        sys.exit("There is no Chromium. Install it: apt-get install chromium.")
    with tempfile.TemporaryDirectory(prefix="fer-screenshots-") as profile:
        options = [
            "--headless=new",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
        ]
        options += ["--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # it refuses to run as root otherwise
        process = subprocess.Popen(
            [program, *options, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with _connected(Path(profile), patience) as socket:
                yield Browser(socket, patience)
        finally:
            process.terminate()
            process.wait(30)


def _connected(profile: Path, patience: float) -> ClientConnection:
    """The first tab's socket; Chromium writes its port to a file of the profile."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as answer:
                tabs = [one for one in json.loads(answer.read()) if one["type"] == "page"]
            address = tabs[0]["webSocketDebuggerUrl"]
            return connect(address, max_size=None, open_timeout=patience, proxy=None)
        except (OSError, IndexError):
            time.sleep(0.5)
    raise SystemExit(f"Chromium did not start in {patience:.0f} s.")


if __name__ == "__main__":
    main()
