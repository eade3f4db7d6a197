"""JSON documents that prove themselves, and the files beside them that they prove."""

from collections.abc import Mapping
from typing import Any

import orjson

from mmdata.errors import Damage
from mmdata.storage.store import Data, is_below, sha256
from mmdata.types import Output

SEAL = "seal"


def seal(facts: Mapping[str, Any]) -> bytes:
    """The document: the facts and, last, the sha256 of the document without this field."""
    digest = sha256(_dump(facts))
    return _dump({**facts, SEAL: digest})


def unseal(data: bytes, where: str, remedy: str = "see: mmdata verify DATASET") -> dict[str, Any]:
    """The facts of a sealed document. Damage when any byte, even of a blank, is not the one that was written."""
    try:
        facts = orjson.loads(data)
        if SEAL not in facts:
            raise Damage(f"{where} is damaged: it has no seal; {remedy}")
        found: dict[str, Any] = {name: value for name, value in facts.items() if name != SEAL}
    except (ValueError, TypeError, AttributeError) as error:
        raise Damage(f"{where} is damaged: {error}; {remedy}") from error
    if seal(found) != data:
        raise Damage(f"{where} is damaged or was edited: its fields do not give its seal; {remedy}")
    return found


def proven(facts: Mapping[str, Any]) -> dict[str, Output]:
    """The files that a document proves, below its own folder: `outputs`, or `files` where there are no outputs.

    Damage when one is elsewhere: who made a dataset does not say which other files of ours are read or deleted.
    """
    named = _entries(facts, "outputs") or _entries(facts, "files")
    for name, _ in named:
        if not is_below(name):
            raise Damage(f"names a file that is not below its folder: {name!r}")
    return {name: Output(entry["bytes"], entry["sha256"]) for name, entry in named}


def proof(files: Mapping[str, Data]) -> dict[str, dict[str, Any]]:
    """Size and hash of each file, as the `files` of a document."""
    return {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}


def _entries(facts: Mapping[str, Any], field: str) -> list[tuple[str, Any]]:
    entries = facts.get(field)
    return [(n, e) for n, e in entries.items() if isinstance(e, dict)] if isinstance(entries, dict) else []


def _dump(facts: Mapping[str, Any]) -> bytes:
    return orjson.dumps(facts, option=orjson.OPT_INDENT_2)
