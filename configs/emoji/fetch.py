"""Fetch emoji, Google's pictures and their names, and list them: `python configs/emoji/fetch.py FOLDER`.

Downloads the package emoji-datasource-google (74 MB, MIT) through npm, keeps its pictures of 64 pixels and writes
FOLDER/emoji.jsonl with one line an emoji, skin tones aside: key, image, text (the name), category, subcategory, and
family: the name without who does it, so that a man and a woman who cook are on one side of a split.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "emoji-datasource-google@16.0.0"
PICTURES = "package/img/google/64/"
LIST = "package/emoji.json"
WHO = re.compile(r"\b(wo)?m[ae]n\b|\bperson\b|\b(boy|girl)\b|\bfacing right\b|[,:]")


def main(folder: Path) -> None:
    """Download and unpack the package, unless it is there, and write the list."""
    if not (folder / LIST).exists():
        _download(folder)
    lines = [json.dumps(_row(one), ensure_ascii=False) for one in json.loads((folder / LIST).read_text())]
    (folder / "emoji.jsonl").write_text("\n".join(lines) + "\n")
    sys.stdout.write(f"{folder / 'emoji.jsonl'}: {len(lines)} emoji\n")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    name = one["name"].lower()
    return {
        "key": Path(one["image"]).stem,
        "image": PICTURES + one["image"],
        "text": name,
        "category": one["category"],
        "subcategory": one["subcategory"],
        "family": " ".join(WHO.sub(" ", name).split()) or name,
    }


def _download(folder: Path) -> None:
    if shutil.which("npm") is None:
        sys.exit(f"npm is needed to fetch {PACKAGE}; install Node.js")
    with tempfile.TemporaryDirectory() as here:
        try:
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=here, check=True)
        except subprocess.CalledProcessError:
            sys.exit(f"npm could not download {PACKAGE}; see the message above")
        with tarfile.open(next(Path(here).glob("*.tgz"))) as archive:
            wanted = [one for one in archive if one.name == LIST or one.name.startswith(PICTURES)]
            archive.extractall(folder, wanted, filter="data")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "emoji/corpus"))
