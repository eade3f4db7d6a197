"""Decodes every file of a folder in a given address space: `python media_bombs.py FOLDER MEGABYTES`.

A name begins with its modality. Prints the reason for which each was rejected.
"""

import json
import resource
import sys
from pathlib import Path

from media_files import heic, track
from tiny_files import picture, sound

from mmdata.media import decode
from mmdata.types import Modality, Rejected

WARM = [(Modality.IMAGE, picture(kind)) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]
WARM += [(Modality.IMAGE, heic()), (Modality.AUDIO, sound()), (Modality.AUDIO, track("ipod", "aac"))]


def main(folder: Path, megabytes: int) -> None:
    for modality, data in WARM:
        decode(modality, data)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({name: outcome(Modality(name.split()[0]), data) for name, data in files.items()}))


def outcome(modality: Modality, data: bytes) -> str:
    try:
        decode(modality, data)
    except Rejected as problem:
        return problem.reason
    return "decoded"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
