"""The picture of the page in the README: `python docs/page.py demo/dataset` after `make demo`; Chromium takes it."""

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import sync_playwright

PORT = 8765
SITE = f"http://127.0.0.1:{PORT}"
ASKED = "/?text=two+blue+stars&text=striped::-0.5&where=count%3D2&k=12"


def main(dataset: str) -> None:
    """Serve the dataset, take the picture, and end the service."""
    serve = [sys.executable, "-c", "from mmdata.cli import main; main()", "serve", dataset, "--port", str(PORT)]
    service = subprocess.Popen(serve)
    try:
        _wait()
        Path(__file__).with_name("page.png").write_bytes(_small(_picture()))
    finally:
        service.terminate()
        service.wait()


def _wait() -> None:
    for _ in range(600):
        try:
            urlopen(f"{SITE}/health").close()  # noqa: S310  our own service
            return
        except URLError:
            time.sleep(0.1)
    raise SystemExit("mmdata serve did not start")


def _picture() -> bytes:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.goto(SITE + ASKED)
        page.wait_for_selector("#progress", state="hidden", timeout=60_000)
        page.reload()  # the first answer waited for the encoder
        page.wait_for_selector(".hit.audio")
        page.wait_for_load_state("networkidle")
        return page.screenshot()


def _small(picture: bytes) -> bytes:
    sink = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256).save(sink, "PNG", optimize=True)
    return sink.getvalue()


if __name__ == "__main__":
    main(sys.argv[1])
