"""The vectors that ivf-pq ranks its answers by: a FAISS file, written piece by piece and mapped, never in memory."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmdata.errors import Damage

Codes = NDArray[np.uint8]
ROWS_AT = 8  # of such a file: the number of rows, behind four letters and the dimensions


def codes(store: Any) -> Codes:
    """What a store keeps of each row, `(n, bytes)`: a view, good for as long as the store is."""
    size = store.ntotal * store.code_size
    found = faiss.rev_swig_ptr(store.codes.data(), size) if size else np.zeros(0, np.uint8)
    return found.reshape(store.ntotal, store.code_size)


def write_vectors(path: Path, empty: Any, pieces: Iterable[Codes]) -> None:
    """The file of a store that is as `empty` and holds the codes of all pieces, one behind the other."""
    head = faiss.serialize_index(empty).tobytes()  # ends with the length of the codes that follow
    rows = 0
    with path.open("wb") as file:
        file.write(head)
        for piece in pieces:
            rows += len(piece)
            file.write(np.ascontiguousarray(piece).data)
        file.seek(ROWS_AT)
        file.write(struct.pack("<q", rows))
        file.seek(len(head) - 8)
        unit = 4 if isinstance(empty, faiss.IndexFlat) else 1  # numbers there, bytes else
        file.write(struct.pack("<Q", rows * empty.code_size // unit))


def map_vectors(path: Path) -> Any:
    """The store in a file, on the disk until it is needed. Damage when it is none."""
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise Damage(f"{path} holds no vectors that FAISS can read: {error}") from error
