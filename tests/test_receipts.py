"""A receipt is written last; what lies there without one is checked, kept or replaced."""

import os
from importlib.metadata import version

import orjson
import pyarrow
import pytest

from mmdata.errors import Damage
from mmdata.storage.receipts import (
    commit,
    read_receipts,
    read_rejects,
    rejects_file,
    tally,
    versions,
    write_summary,
)
from mmdata.storage.sealed import seal
from mmdata.storage.store import Store, sha256
from mmdata.storage.tables import from_parquet
from mmdata.types import Outcome, Output, Reason, Receipt, Reject

REJECTED, REPAIRED = Outcome.REJECTED, Outcome.REPAIRED


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def receipt(shard: str = "000000", rows: int = 1, **facts) -> Receipt:
    return Receipt("shard", shard, "print", {"plan": "x"}, {}, rows, rows, 0, {}, {}, {"read": 0.5}, **facts)


def reject(number: int, outcome: Outcome, reason: Reason, part: str = "") -> Reject:
    return Reject(number, f"key {number}", "source", part, outcome, reason, "why")


def test_a_commit_writes_the_files_and_then_the_receipt(store):
    done = commit(store, "shards", receipt(), {"tar": b"tar", "samples.parquet": b"table"})
    assert done.outputs == {
        "000000.tar": Output(3, sha256(b"tar")),
        "000000.samples.parquet": Output(5, sha256(b"table")),
    }
    assert store.read("shards/000000.tar") == b"tar"
    assert read_receipts(store, "shards") == {"000000": done}


def test_the_first_receipt_counts(store):
    first = commit(store, "shards", receipt(rows=1), {"tar": b"tar"})
    second = commit(store, "shards", receipt(rows=2), {"tar": b"tar"})
    assert second == first


def test_an_equal_file_without_a_receipt_is_made_young(store, tmp_path):
    store.create("shards/000000.tar", b"tar")
    os.utime(tmp_path / "shards/000000.tar", (0, 0))
    done = commit(store, "shards", receipt(), {"tar": b"tar"})
    assert done.outputs["000000.tar"] == Output(3, sha256(b"tar"))
    assert store.info("shards/000000.tar").modified > 0  # else a gc that runs beside takes it for left over


def test_what_another_run_puts_over_a_file_before_the_receipt_is_written_again(store):
    def other_run(suffix, found):  # it comes with the last file, when the first is already there
        store.replace("shards/000000.tar", b"another tar")
        return False

    store.create("shards/000000.samples.parquet", b"half")
    done = commit(store, "shards", receipt(), {"tar": b"tar", "samples.parquet": b"table"}, other_run)
    assert done.outputs["000000.tar"] == Output(3, sha256(b"tar"))
    assert store.read("shards/000000.tar") == b"tar"


def test_another_file_without_a_receipt_is_replaced(store):
    store.create("shards/000000.tar", b"half")
    done = commit(store, "shards", receipt(), {"tar": b"whole"})
    assert store.read("shards/000000.tar") == b"whole"
    assert done.outputs["000000.tar"] == Output(5, sha256(b"whole"))


def test_another_file_that_is_as_good_is_adopted_as_it_is(store):
    store.create("features/000000.parquet", b"theirs")
    done = commit(store, "features", receipt(), {"parquet": b"ours"}, adopt=lambda suffix, found: found == b"theirs")
    assert store.read("features/000000.parquet") == b"theirs"
    assert done.outputs["000000.parquet"] == Output(6, sha256(b"theirs"))


def test_receipts_come_in_shard_order_and_nothing_else_is_one(store):
    for shard in ("000010", "000002", "1000000"):
        commit(store, "shards", receipt(shard), {"tar": b"tar"})
    store.create("shards/plan.json", b"{}")
    store.create("shards/000003.samples.json", b"{}")
    assert list(read_receipts(store, "shards")) == ["000002", "000010", "1000000"]


def test_no_folder_has_no_receipts(store):
    assert read_receipts(store, "shards") == {}


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[]", b'{"outputs": {}}', seal({}), seal({"outputs": {}})])
def test_what_is_not_a_receipt_is_damage(store, data):
    store.create("shards/000000.json", data)
    with pytest.raises(Damage, match=r"shards/000000\.json is (damaged|not a receipt)"):
        read_receipts(store, "shards")


def test_the_content_of_a_receipt_is_what_the_next_stage_reads(store):
    files = {"tar": b"tar", "rejects.parquet": b"report"}
    assert commit(store, "shards", receipt(), files).content == {"000000.tar": sha256(b"tar")}


def test_the_summary_holds_every_receipt(store):
    receipts = [
        commit(store, "shards", receipt("000000", 3), {"tar": b"tar"}),
        commit(store, "shards", receipt("000001", 2), {"tar": b"tar"}),
    ]
    write_summary(store, "shards", receipts)
    table = from_parquet(store.read("shards/receipts.parquet"), "receipts")
    assert table["shard"].to_pylist() == ["000000", "000001"]
    assert table["rows_out"].to_pylist() == [3, 2]
    assert orjson.loads(table["outputs"].to_pylist()[0]) == {"000000.tar": {"bytes": 3, "sha256": sha256(b"tar")}}


def test_rejects_are_read_back_as_they_were_written(store):
    rows = [reject(1, REJECTED, Reason.EMPTY), reject(2, REPAIRED, Reason.TOO_LONG, "text")]
    commit(store, "shards", receipt(), {"tar": b"tar"} | rejects_file(rows))
    assert read_rejects(store, "shards") == rows


def test_rejects_that_no_receipt_names_do_not_count(store):
    rows = [reject(1, REJECTED, Reason.EMPTY)]
    store.create("shards/000000.rejects.parquet", rejects_file(rows)["rejects.parquet"])
    assert read_rejects(store, "shards") == []


def test_nothing_rejected_means_no_report():
    assert rejects_file([]) == {}


def test_rejects_are_counted_by_row_and_repairs_by_sample_under_the_first_reason():
    rows = [
        reject(1, REJECTED, Reason.EMPTY, "image"),
        reject(2, REJECTED, Reason.BAD_TEXT, "text"),
        reject(3, REPAIRED, Reason.TOO_LONG, "text"),
        reject(3, REPAIRED, Reason.SILENT, "audio"),
    ]
    assert tally(rows, REJECTED) == {"bad_text": 1, "empty": 1}
    assert tally(rows, REPAIRED) == {"too_long": 1}
    assert tally([], REJECTED) == {}


def test_versions_are_those_installed():
    assert versions("pyarrow") == {"mmdata": version("mmdata"), "pyarrow": pyarrow.__version__}
