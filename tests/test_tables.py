"""Parquet that is the same twice, tells damage, and takes the metadata of any corpus."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import Damage
from mmdata.storage.tables import RESERVED, as_json, concat, from_parquet, metadata_columns, to_parquet

VECTORS = pa.FixedSizeListArray.from_arrays(pa.array([0.5] * 4000, pa.float32()), 4)
TABLE = pa.table({"key": [f"key {n}" for n in range(1000)], "embedding": VECTORS})

COLUMNS = {
    "whole numbers": ([1, None, 3], pa.int64(), [1, None, 3]),
    "whole numbers and fractions": ([1, 0.5], pa.float64(), [1.0, 0.5]),
    "truths": ([True, None], pa.bool_(), [True, None]),
    "strings": (["a", None], pa.string(), ["a", None]),
    "numbers and strings": ([1, "a", None], pa.string(), ["1", "a", None]),
    "truths and numbers": ([True, 2], pa.string(), ["true", "2"]),
    "lists": ([[1, 2], None], pa.string(), ["[1,2]", None]),
    "objects": ([{"b": 1, "a": None}], pa.string(), ['{"a":null,"b":1}']),
    "lists and strings": ([["a"], "a"], pa.string(), ['["a"]', "a"]),
    "beyond 64 bits": ([2**63, 1], pa.string(), ["9223372036854775808", "1"]),
    "nothing": ([None, None], pa.null(), [None, None]),
}


@pytest.mark.parametrize(("values", "kind", "stored"), COLUMNS.values(), ids=COLUMNS.keys())
def test_metadata_of_any_kind_becomes_a_column(values, kind, stored):
    column = metadata_columns([{"field": value} for value in values])["field"]
    assert (column.type, column.to_pylist()) == (kind, stored)
    assert from_parquet(to_parquet(pa.table({"field": column})), "here")["field"].to_pylist() == stored


def test_a_field_that_some_samples_lack_is_null_there():
    columns = metadata_columns([{"a": 1}, {}, {"b": "x"}])
    assert columns["a"].to_pylist() == [1, None, None]
    assert columns["b"].to_pylist() == [None, None, "x"]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_field_takes_the_name_of_a_column_of_ours(name):
    assert list(metadata_columns([{name: 1}])) == [f"{name}_"]


def test_fields_that_differ_by_an_underscore_stay_apart():
    columns = metadata_columns([{"key": 1, "key_": 2, "key__": 3, "other_": 4}])
    assert {name: column.to_pylist() for name, column in columns.items()} == {
        "key_": [1],
        "key__": [2],
        "key___": [3],
        "other_": [4],
    }


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(-9, 9), max_size=5))
def test_fields_of_any_name_survive_parquet(record):
    columns = metadata_columns([record])
    table = from_parquet(to_parquet(pa.table({"id": [0], **columns})), "here")
    assert table.drop(["id"]).to_pylist() == [{name: column[0].as_py() for name, column in columns.items()}]
    assert [column[0].as_py() for column in columns.values()] == [record[name] for name in sorted(record)]


def test_vectors_are_stored_plain_and_the_rest_is_not():
    meta = pq.read_metadata(pa.BufferReader(to_parquet(TABLE, plain=["embedding"]))).row_group(0)
    key, embedding = meta.column(0), meta.column(1)
    assert (key.compression, key.is_stats_set) == ("ZSTD", True)
    assert (embedding.compression, embedding.is_stats_set) == ("UNCOMPRESSED", False)
    assert set(embedding.encodings) == {"PLAIN", "RLE"}


def test_the_same_table_gives_the_same_bytes():
    assert to_parquet(TABLE, plain=["embedding"]) == to_parquet(TABLE, plain=["embedding"])


def test_row_groups_have_the_size_asked():
    meta = pq.read_metadata(pa.BufferReader(to_parquet(TABLE, row_group_size=400)))
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [400, 400, 200]


def test_only_the_columns_asked_for_are_read():
    assert from_parquet(to_parquet(TABLE), "here", ["key"]).column_names == ["key"]


def test_a_flipped_byte_in_a_page_is_damage():
    data = bytearray(to_parquet(TABLE, plain=["embedding"]))
    place = data.find(b"\x00\x00\x00\x3f" * 8)
    data[place + 2] ^= 1
    with pytest.raises(Damage, match="my file is damaged"):
        from_parquet(bytes(data), "my file")


@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_a_cut_file_is_damage(length):
    with pytest.raises(Damage, match="my file is damaged"):
        from_parquet(to_parquet(TABLE)[:length], "my file")


def test_tables_whose_fields_differ_are_stacked():
    one = pa.table({"id": [1], "a": [1], "b": ["x"]})
    two = pa.table({"id": [2], "a": [0.5], "c": [True]})
    three = pa.table({"id": [3], "b": [7], "a": pa.nulls(1)})
    assert concat([one, two, three]).to_pylist() == [
        {"id": 1, "a": 1.0, "b": "x", "c": None},
        {"id": 2, "a": 0.5, "b": None, "c": True},
        {"id": 3, "a": None, "b": "7", "c": None},
    ]


def test_json_is_the_same_for_equal_values():
    assert as_json({"b": [1, None], "a": "ü"}) == as_json({"a": "ü", "b": [1, None]}) == '{"a":"ü","b":[1,null]}'
    assert as_json({1: "number as a name"}) == '{"1":"number as a name"}'
