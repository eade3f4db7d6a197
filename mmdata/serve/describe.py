"""An index as the contract lists it: its label, and the fields that its hits can be filtered by."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.retrieval.results import OWN
from mmdata.retrieval.search import Index

COMMONEST = 50  # values of a field
LONGEST = 200  # characters of a value that is listed


def describe(index: Index) -> dict[str, Any]:
    """What `GET /indexes` tells of it."""
    facts, card = index.facts, index.card
    return {
        "name": facts.name,
        "modality": card.modality.value,
        "dim": card.dim,
        "kind": facts.kind,
        "metric": facts.metric,
        "rows": len(index),
        "generation": facts.generation,
        "recall": facts.recall,
        "queries": sorted(card.towers),
        "encoder": {"name": card.name, "spec": card.spec, "space": card.space, "revision": card.revision},
        "fields": [facet(name, index.rows[name]) for name in index.rows.column_names if name not in OWN],
    }


def facet(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    """A field: its commonest values, the most frequent first, and the ends of a number."""
    kind = _kind(column.type)
    ends = pc.min_max(column).as_py() if kind == "number" else {"min": None, "max": None}
    if pa.types.is_nested(column.type):
        return {"name": name, "type": kind, "values": [], **ends}
    plain = column if kind != "text" else column.cast(pa.string())
    counts = pc.value_counts(plain.drop_null())
    table = pa.table({"value": counts.field("values"), "count": counts.field("counts")})
    values = table.sort_by([("count", "descending"), ("value", "ascending")])["value"][:COMMONEST].to_pylist()
    short = [value for value in values if value == value and (not isinstance(value, str) or len(value) <= LONGEST)]
    return {"name": name, "type": kind, "values": short, **ends}


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "text"
