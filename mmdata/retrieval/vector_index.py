"""The vectors of an index and the FAISS structure over them: searched, added to, thinned out, saved."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmdata.errors import Damage
from mmdata.retrieval.metric import METRICS
from mmdata.retrieval.vectors_file import map_vectors

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
INDEX, VECTORS = "index.faiss", "vectors.faiss"


@dataclass(slots=True)
class VectorIndex:
    """A FAISS index whose ids are row numbers; a higher score is nearer.

    `store` holds the vectors themselves where `base` only has codes of them (ivf-pq), and answers are ranked by
    it. Its file is mapped and never changed: which rows it has is what `build.merge_parts` wrote. A graph cannot
    lose a node: rows that were removed from one are False in `alive`, and never found.
    """

    metric: str
    base: Any
    store: Any = None
    alive: Mask | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def rows(self) -> int:
        """Rows that can be found."""
        return int(self.base.ntotal if self.alive is None else self.alive.sum())

    @property
    def lists(self) -> int:
        """Inverted lists; 0 where there are none."""
        return int(self._ivf.nlist) if self._is_ivf else 0

    @property
    def _is_ivf(self) -> bool:
        return isinstance(self.base, faiss.IndexPreTransform | faiss.IndexIVF)

    @property
    def _ivf(self) -> Any:
        return faiss.extract_index_ivf(self.base)

    @property
    def _is_graph(self) -> bool:
        return isinstance(self.base, faiss.IndexHNSW)

    @property
    def _exact_index(self) -> Any:
        """Where every vector lies as it is."""
        if self.store is not None:
            return self.store
        return faiss.downcast_index(self.base.storage) if self._is_graph else self.base

    def search(
        self, queries: Floats, k: int, effort: Mapping[str, int], allowed: Mask | None = None
    ) -> tuple[Floats, Ids]:
        """Scores and ids `(n, k)`, best first, of `(n, dim)` queries that are `ready`; k is `rows` at most.

        With `allowed` only those rows are searched, and all of them; k is at most their number. Where the lists
        or the neighbourhood that were searched hold fewer than k rows, all are searched: no id is ever missing.
        """
        if allowed is not None or not effort:
            return self.exact(queries, k, allowed)
        found = self._approximate(queries, k, effort)
        last = found[1][:, -1]  # where what FAISS did not find stands
        if last.min() < 0:
            short = np.flatnonzero(last < 0)
            found[0][short], found[1][short] = self.exact(queries[short], k)
        return found

    def exact(self, queries: Floats, k: int, allowed: Mask | None = None) -> tuple[Floats, Ids]:
        """As `search`, by the vectors themselves: what recall is measured against."""
        if self.alive is not None:
            allowed = self.alive if allowed is None else allowed & self.alive
        chosen = _selector(allowed)
        flat = self._exact_index
        parameters = faiss.SearchParameters(**chosen)
        if isinstance(flat, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(nprobe=flat.nlist, **chosen)
        return self._signed(*flat.search(queries, k, params=parameters))

    def _approximate(self, queries: Floats, k: int, effort: Mapping[str, int]) -> tuple[Floats, Ids]:
        if self._is_graph:
            chosen = _selector(self.alive)
            graph = faiss.SearchParametersHNSW(efSearch=max(effort["efSearch"], k), **chosen)
            return self._signed(*self.base.search(queries, k, params=graph))
        lists = faiss.SearchParametersIVF(nprobe=effort["nprobe"])
        if self.store is None:
            return self._signed(*self.base.search(queries, k, params=lists))
        rotated = faiss.SearchParametersPreTransform(index_params=lists)
        factor = min(effort["rerank"], max(1, self.rows // k))
        ranked = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=rotated)
        return self._signed(*faiss.IndexRefine(self.base, self.store).search(queries, k, params=ranked))

    def _signed(self, scores: Floats, ids: Ids) -> tuple[Floats, Ids]:
        sign = METRICS[self.metric].sign
        return (scores if sign == 1 else scores * np.float32(sign)), ids

    def stored(self, ids: Ids) -> Floats:
        """The stored vectors `(n, dim)` of rows."""
        flat = self._exact_index
        with self.lock:
            if isinstance(flat, faiss.IndexIVF):
                flat.make_direct_map()
        found: Floats = flat.reconstruct_batch(np.asarray(ids, np.int64))
        return found

    def empty_part(self) -> "VectorIndex":
        """An empty index for the rows of a shard, from an index that is trained and empty."""
        base = faiss.clone_index(faiss.downcast_index(self.base.storage) if self._is_graph else self.base)
        return VectorIndex(self.metric, base, None if self.store is None else faiss.clone_index(self.store))

    def add(self, rows: Floats) -> None:
        """Add `(n, dim)` rows that are `ready`, behind those that are there."""
        self.base.add(rows)
        if self.store is not None:
            self.store.add(rows)
        if self.alive is not None:
            self.alive = np.concatenate([self.alive, np.ones(len(rows), bool)])

    def make_room(self, rows: int) -> None:
        """Room for the vectors of `rows` more rows at once: where it grows by doubling, all are held twice."""
        flat = self._exact_index
        if isinstance(flat, faiss.IndexFlatCodes) and self.store is None:
            size = flat.codes.size()
            flat.codes.resize(size + rows * flat.code_size)
            flat.codes.resize(size)  # what was taken stays

    def merge(self, part: "VectorIndex") -> None:
        """Take over the rows of a part, behind those that are there; not its `store`."""
        if self._is_graph:
            self.add(part.base.reconstruct_n(0, part.base.ntotal))
            return
        self.base.merge_from(part.base, self.base.ntotal if self._is_ivf else 0)

    def remove(self, dead: Mask) -> Mask:
        """Take rows out, not of `store`. The mask of the rows that are left; they are numbered anew, in order."""
        if self._is_graph:
            self.alive = ~dead if self.alive is None else self.alive & ~dead
            return np.ones(len(dead), bool)
        self.base.remove_ids(_selector(dead)["sel"])
        if self._is_ivf:
            _renumber(self._ivf, np.cumsum(~dead) - 1)
        return ~dead

    def save(self, folder: Path) -> list[str]:
        """Write the file of `base` beside that of `store`; the names of both. OSError when that fails."""
        if self._is_ivf:
            self._ivf.set_direct_map_type(faiss.DirectMap.NoMap)  # a reader that needs one makes it
        try:
            faiss.write_index(self.base, str(folder / INDEX))
        except RuntimeError as error:  # FAISS says what the system said
            raise OSError(str(error)) from error
        return [INDEX] if self.store is None else [INDEX, VECTORS]

    @classmethod
    def load(cls, folder: Path, metric: str, *, mapped: bool) -> "VectorIndex":
        """Open the files of an index; `mapped`: from the disk as they are needed, and not to be changed."""
        flags = faiss.IO_FLAG_MMAP_IFC if mapped else 0
        try:
            base = faiss.read_index(str(folder / INDEX), flags)
        except RuntimeError as error:
            raise Damage(f"{folder} holds no index that FAISS can read: {error}") from error
        return cls(metric, base, map_vectors(folder / VECTORS) if (folder / VECTORS).exists() else None)


def _selector(allowed: Mask | None) -> dict[str, Any]:
    if allowed is None:
        return {}
    return {"sel": faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))}


def _renumber(ivf: Any, numbers: Ids) -> None:
    """Give every row in the inverted lists its new number."""
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            ids[:] = numbers[ids]
