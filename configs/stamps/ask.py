"""Ask the stamps five things, with a contact sheet each: `python configs/stamps/ask.py DATASET FOLDER`."""

import re
import sys

from mmdata.cli import invoke

QUESTIONS = [
    "a bird that can swim",
    "something to play music with",
    "a sweet dessert",
    "something to wear on your head",
    "it flies through the sky and carries people",
]


def main(dataset: str, folder: str) -> None:
    """One `mmdata search` a question."""
    for question in QUESTIONS:
        sheet = f"{folder}/{re.sub('[^a-z]+', '-', question)}.png"
        invoke(["search", dataset, "--index", "pictures.image", "--text", question, "--sheet", sheet])


if __name__ == "__main__":
    main(*sys.argv[1:3])
