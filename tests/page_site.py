"""A small collection with hostile words in it, and a Chromium to look at it with."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import HERE, STARTERS
from playwright.sync_api import Browser, Page, sync_playwright

from mmdata.config import AlignConfig, ExtractConfig, IndexConfig, ShardConfig
from mmdata.demo import write_corpus
from mmdata.stages.align import align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "no Chromium here: apt-get install chromium"

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script> a red star'
HOSTILE_COLOUR = '"><svg onload=window.pwned=3>'
HOSTILE_STEM = "<b>&quot;'x"
SAMPLES = 60


def write_hostile_corpus(folder: Path) -> None:
    """The demo's samples; the first of them says, is called and is described as what a page must not believe."""
    write_corpus(folder, SAMPLES)
    first = min(folder.glob("*/*.png"), key=lambda path: path.stem)
    for path in list(first.parent.glob(f"{first.stem}.*")):
        path.rename(path.with_name(f"{HOSTILE_STEM}{path.suffix}"))
    first.with_name(f"{HOSTILE_STEM}.txt").write_text(HOSTILE)
    described = {"colour": HOSTILE_COLOUR, "count": 1, "<i>field</i>": "</legend><b>value"}
    first.with_name(f"{HOSTILE_STEM}.json").write_text(json.dumps(described))


def make_collection(folder: Path) -> Dataset:
    """Sixty samples; indexes over their pictures, their sounds and their texts, all of which take words."""
    write_hostile_corpus(folder / "corpus")
    url = str(folder / "dataset")
    shard(ShardConfig(dataset=url, source=str(folder / "corpus"), samples_per_shard=30), HERE)
    extract(ExtractConfig(dataset=url, encoders=STARTERS), HERE)
    for name, features in {"pictures": "efficientnet-lite0", "sounds": "mel-stats"}.items():
        align(AlignConfig(dataset=url, name=name, features=("minilm", features), holdout=0.4), HERE)
    for features in ("minilm", "pictures.image", "sounds.audio"):
        index(IndexConfig(dataset=url, features=features), HERE)
    return Dataset.open(url)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def settled(page: Page) -> Page:
    """Wait until nothing is asked any more."""
    page.locator("#progress").wait_for(state="hidden")
    page.locator("[aria-busy=true]").first.wait_for(state="detached")
    return page
