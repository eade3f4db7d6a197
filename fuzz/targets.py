"""What is fuzzed: each takes any bytes, and must end, in little memory, with a result or with an error of ours.

`python fuzz/run.py SECONDS` runs them under atheris; the tests run them on files that are whole and on what was found.
"""

import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson
import pyarrow as pa

from mmdata.corpora import open_corpus
from mmdata.errors import Damage, MMDataError
from mmdata.media import decode
from mmdata.storage.features import card_from_json
from mmdata.storage.receipts import _parse
from mmdata.storage.sealed import seal, unseal
from mmdata.storage.tables import from_parquet
from mmdata.storage.tar import BLOCK, Hole, Member, salvage, scan
from mmdata.types import Modality, Rejected

SCRATCH = Path(tempfile.mkdtemp())


def tar(data: bytes) -> None:
    """Members lie in the file and in order; salvage takes what the strict scan takes."""
    found = list(salvage(io.BytesIO(data), len(data)))
    members = [one for one in found if isinstance(one, Member)]
    ends = [0, *(one.offset + one.size if isinstance(one, Member) else one.end for one in found)]
    assert ends == sorted(ends), found
    assert max(ends) <= len(data) + BLOCK, found  # the last member's padding may be cut
    try:
        strict = list(scan(io.BytesIO(data), len(data), "a.tar"))
    except Damage:
        assert any(isinstance(one, Hole) for one in found)
    else:
        assert strict == members


def receipt(data: bytes) -> None:
    """As it is, and, where it is a JSON object, with the seal that a forger would put on it."""
    documents = [data]
    try:
        facts = orjson.loads(data)
    except orjson.JSONDecodeError:
        facts = None
    if isinstance(facts, dict):
        documents.append(seal(facts))
    for document in documents:
        for read in (_parse, card_from_json, unseal):
            with suppress(Damage):
                read(document, "a.json")


def table(data: bytes) -> None:
    """As a csv, a jsonl and a Parquet that somebody wants to shard."""
    for kind in ("csv", "jsonl", "parquet"):
        path = SCRATCH / f"a.{kind}"
        path.write_bytes(data)
        with suppress(MMDataError):
            corpus = open_corpus(str(path), "table", {})
            rows, _ = corpus.scan()
            list(corpus.read(rows.add_column(0, "id", pa.array(range(len(rows)), pa.int64()))))


def parquet(data: bytes) -> None:
    """As a table of our own."""
    with suppress(Damage):
        from_parquet(data, "a.parquet")


def _media(modality: Modality) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        with suppress(Rejected):
            decode(modality, data)

    return target


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tar": tar,
    "receipt": receipt,
    "table": table,
    "parquet": parquet,
    **{str(modality): _media(modality) for modality in Modality},
}
