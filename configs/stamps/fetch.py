"""Fetch a real corpus, Debian's tuxpaint-stamps-default, and list it: `python configs/stamps/fetch.py FOLDER`.

Writes FOLDER/stamps.jsonl with one line a stamp: key, image, text (the first line of its .txt, in English),
audio (its sound) and category. Whatever has a picture, a text or a sound is listed, whole or not, so that the
rejects report of `mmdata shard` shows what the corpus lacks.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGE = "tuxpaint-stamps-default"
PICTURES = (".png", ".svg")  # in order of preference
LOCALE = re.compile(r"_[a-z]{2,3}(_[A-Z]{2})?$")


def main(folder: Path) -> None:
    """Download and unpack the package, unless it is there, and write the list."""
    stamps = folder / "usr" / "share" / "tuxpaint" / "stamps"
    if not stamps.exists():
        _download(folder)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(stamps, folder)]
    (folder / "stamps.jsonl").write_text("\n".join(lines) + "\n")
    sys.stdout.write(f"{folder / 'stamps.jsonl'}: {len(lines)} stamps\n")


def rows(stamps: Path, folder: Path) -> list[dict[str, Any]]:
    """One row a stem, sorted. Spoken descriptions (`_desc`), other languages' sounds (`_en_GB`) and drawing hints
    (`.dat`) are no part of a stamp.
    """
    files = [path for path in stamps.rglob("*") if path.is_file() and "_desc" not in path.name]
    stems = {path.with_suffix("") for path in files if path.suffix in (*PICTURES, ".txt", ".ogg")}
    drawn = {path.with_suffix("") for path in files if path.suffix in (*PICTURES, ".txt")}
    spoken = {stem for stem in stems - drawn if stem.with_name(LOCALE.sub("", stem.name)) in stems - {stem}}
    return [_row(stem, stamps, folder) for stem in sorted(stems - spoken)]


def _row(stem: Path, stamps: Path, folder: Path) -> dict[str, Any]:
    def find(*suffixes: str) -> str | None:
        there = [stem.with_name(stem.name + suffix) for suffix in suffixes]
        return next((str(path.relative_to(folder)) for path in there if path.exists()), None)

    text = find(".txt")
    key = stem.relative_to(stamps)
    return {
        "key": str(key),
        "image": find(*PICTURES),
        "text": (folder / text).read_text(encoding="utf-8").split("\n")[0].strip() if text else None,
        "audio": find(".ogg"),
        "category": key.parts[0],
        "group": "/".join(key.parts[:2]),
    }


def _download(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        sys.exit(f"apt-get and dpkg are needed to fetch {PACKAGE}; run this on Debian or Ubuntu")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
    except subprocess.CalledProcessError:
        sys.exit(f"apt-get could not download {PACKAGE}; run `apt-get update` first, or see the message above")
    archive = max(folder.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)
    archive.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "stamps/corpus"))
