"""The pack: features of several encoders, joined by key, as memory-mapped arrays that are made once.

A pack is a folder of a local cache, named by the hash of what went into it: `pack.json`, which proves the other files,
`rows.parquet` (key, source,
caption, metadata; one row a sample) and, for each input, `NAME.values` (the vectors, one behind the other),
`NAME.starts.npy` and `NAME.lengths.npy`, which say where the vectors of a row are and how many it has: none where it
lacks the input, one of a pooled embedding, several of token features.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.errors import Conflict, Damage
from mmdata.fusion.join import TOKENS, Places, about_rows, join, missing, places_of, vectors_of
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, card_from_json, card_to_json
from mmdata.storage.sealed import seal, unseal
from mmdata.storage.store import sha256
from mmdata.storage.tables import concat, from_parquet, to_parquet
from mmdata.types import EncoderCard

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Source:
    """Feature sets of one dataset, by the input that they feed: NAME for embeddings, NAME#tokens for tokens."""

    dataset: Dataset
    features: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Input:
    """The vectors of one input. Row r has `values[starts[r] : starts[r] + lengths[r]]`."""

    card: EncoderCard
    tokens: bool
    values: NDArray[np.floating]  # (items, dim), the dtype of the features, memory-mapped
    starts: NDArray[np.int64]  # (rows,)
    lengths: NDArray[np.int64]  # (rows,), 0 where the row lacks this input


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows and inputs joined by key; `rows` has key, source (number of the source), caption and metadata."""

    name: str
    rows: pa.Table
    inputs: dict[str, Input]

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors."""
        return sum(one.values.nbytes for one in self.inputs.values())

    @property
    def coverage(self) -> dict[str, float]:
        """Share of the rows that have each input."""
        return {name: float((one.lengths > 0).mean()) for name, one in self.inputs.items()}


def make_pack(sources: Sequence[Source], cache: Path) -> Pack:
    """The pack of some feature sets, taken from `cache` where it is there, as it was written.

    Raises ConfigError when a key comes twice in a feature set or tokens are asked for that it has not, Conflict
    when one input would mix the features of two encoders.
    """
    features = [
        {name: open_features(source.dataset, text) for name, text in source.features.items()} for source in sources
    ]
    cards = _cards(features)
    made_of = [{name: [set_.fingerprint, tokens] for name, (set_, tokens) in one.items()} for one in features]
    name = sha256(orjson.dumps([FORMAT, made_of], option=orjson.OPT_SORT_KEYS))[:24]
    folder = cache / name
    if not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        _build(features, cards, folder)
    return _load(folder)


def cache_folder() -> Path:
    """Where packs are kept: $MMDATA_CACHE, else mmdata below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MMDATA_CACHE") or Path(base) / "mmdata") / "packs"


def open_features(dataset: Dataset, text: str) -> tuple[Features, bool]:
    """The feature set that NAME or NAME#tokens means, and whether its tokens are meant."""
    return Features(dataset, text.removesuffix(TOKENS)), text.endswith(TOKENS)


def _cards(features: Sequence[dict[str, tuple[Features, bool]]]) -> dict[str, tuple[EncoderCard, bool]]:
    cards: dict[str, tuple[EncoderCard, bool]] = {}
    for one in features:
        for name, (set_, tokens) in one.items():
            card, other = cards.setdefault(name, (set_.card, tokens))
            if (card.fingerprint, other) != (set_.card.fingerprint, tokens):
                raise Conflict(
                    f"the input {name!r} would mix features of two encoders: {card.spec!r} ({card.fingerprint[:12]}) "
                    f"and {set_.card.spec!r} ({set_.card.fingerprint[:12]}); give them two names"
                )
    return dict(sorted(cards.items()))


@dataclass(slots=True)
class _Stream:
    """What has been written of one input so far."""

    file: BinaryIO
    dim: int = 0
    items: int = 0
    starts: list[NDArray[np.int64]] = field(default_factory=list)  # one array a source
    lengths: list[NDArray[np.int64]] = field(default_factory=list)


def _build(
    features: Sequence[dict[str, tuple[Features, bool]]], cards: dict[str, tuple[EncoderCard, bool]], folder: Path
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    streams = {name: _Stream((making / f"{name}.values").open("wb")) for name in cards}
    rows = [_add(number, one, streams) for number, one in enumerate(features)]
    facts = {}
    for name, stream in streams.items():
        stream.file.close()
        np.save(making / f"{name}.starts.npy", np.concatenate(stream.starts))
        np.save(making / f"{name}.lengths.npy", np.concatenate(stream.lengths))
        card, tokens = cards[name]
        facts[name] = {
            "card": orjson.loads(card_to_json(card)),
            "tokens": tokens,
            "shape": [stream.items, stream.dim],
        }
    (making / "rows.parquet").write_bytes(to_parquet(concat(rows)))
    files = {path.name: _digest(path) for path in making.iterdir()}
    (making / "pack.json").write_bytes(seal({"inputs": facts, "files": files}))
    try:
        making.rename(folder)
    except OSError:  # another run has finished the same pack meanwhile
        shutil.rmtree(making)


def _add(number: int, features: dict[str, tuple[Features, bool]], streams: dict[str, _Stream]) -> pa.Table:
    """Append one source to the streams of its inputs; the rows that it adds, sorted by key."""
    abouts, places = {}, {}
    for name, (set_, tokens) in features.items():
        abouts[name], places[name] = _append(set_, tokens, streams[name])
    rows, joined = join(abouts, places)
    for name, stream in streams.items():
        starts, lengths = joined.get(name, missing(len(rows)))
        stream.starts.append(starts)
        stream.lengths.append(lengths)
    return rows.append_column("source", pa.array(np.full(len(rows), number, np.int32)))


def _append(set_: Features, tokens: bool, stream: _Stream) -> tuple[pa.Table, Places]:
    """Write the vectors of a feature set; its rows, and where the vectors of each are."""
    first, abouts, counts = stream.items, [], []
    for _, table in set_.scan():
        flat, lengths = vectors_of(table, set_.name, tokens)
        stream.dim = flat.shape[1]
        stream.file.write(np.ascontiguousarray(flat, set_.card.dtype).data)
        stream.items += len(flat)
        counts.append(lengths)
        abouts.append(about_rows(table).drop_columns(["id", "member"]))
    return concat(abouts), places_of(np.concatenate(counts), first)


def _is_whole(folder: Path) -> bool:
    """Whether a pack is there and every byte of it the one that was written: a disk may lose some meanwhile."""
    try:
        files = unseal((folder / "pack.json").read_bytes(), str(folder))["files"]
        return all(_digest(folder / name) == digest for name, digest in files.items())
    except (OSError, Damage):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(folder: Path) -> Pack:
    facts = orjson.loads((folder / "pack.json").read_bytes())
    inputs = {name: _input(folder, name, about) for name, about in facts["inputs"].items()}
    rows = from_parquet((folder / "rows.parquet").read_bytes(), str(folder))
    return Pack(folder.name, rows, inputs)


def _input(folder: Path, name: str, about: dict[str, Any]) -> Input:
    card = card_from_json(orjson.dumps(about["card"]), str(folder))
    shape = tuple(about["shape"])
    # mode "c": torch takes writable memory only, and what would be written never reaches the file
    values = np.memmap(folder / f"{name}.values", card.dtype, "c", shape=shape) if shape[0] else np.zeros(shape)
    starts, lengths = (np.load(folder / f"{name}.{what}.npy") for what in ("starts", "lengths"))
    return Input(card, about["tokens"], values, starts, lengths)


def pack_tables(tables: Mapping[str, tuple[Features, bool, pa.Table]]) -> Pack:
    """A pack in memory, of one shard of some feature sets: the features, whether their tokens, and the rows."""
    vectors = {name: vectors_of(table, set_.name, tokens) for name, (set_, tokens, table) in tables.items()}
    abouts = {name: about_rows(table) for name, (_, _, table) in tables.items()}
    rows, joined = join(abouts, {name: places_of(lengths) for name, (_, lengths) in vectors.items()})
    inputs = {
        name: Input(set_.card, tokens, vectors[name][0], *joined[name]) for name, (set_, tokens, _) in tables.items()
    }
    return Pack("", rows, inputs)
