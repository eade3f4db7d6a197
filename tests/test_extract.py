"""The extract stage: what it writes, what it counts, what it does again and what it refuses."""

import json
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import odd_encoder
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HERE, STARTERS
from media_files import frames, tone
from tiny_files import written

from mmdata.config import ExtractConfig, IndexConfig, ShardConfig
from mmdata.errors import ConfigError, Conflict, Damage, ModelError, NotFound, TooManyRejects
from mmdata.retrieval.search import open_index
from mmdata.stages import Summary
from mmdata.stages.extract import describe_extraction, extract
from mmdata.stages.index import index
from mmdata.stages.rows import DECODED
from mmdata.stages.shard import shard
from mmdata.stages.status import status
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, card_from_json, token_vectors, vectors
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.storage.sealed import seal, unseal
from mmdata.storage.store import sha256
from mmdata.types import Outcome, Reason

ROUNDING = 1e-5  # of float32 sums in another order, over the length of a vector
SHARDS = ["000000", "000001", "000002", "000003"]


@pytest.fixture(autouse=True)
def no_batches() -> None:
    odd_encoder.batches.clear()


def run(dataset: Dataset, *specs: str, **options: object) -> Summary:
    return extract(ExtractConfig(dataset=dataset.url, encoders=specs, **options), HERE)


def receipts(dataset: Dataset, name: str) -> dict:
    return read_receipts(dataset.store, f"features/{name}")


def stars(dataset: Dataset) -> list[str]:
    """Keys of the samples whose caption has a star, in order of their ids."""
    tables = [
        pq.read_table(path, columns=["key", "caption"])
        for path in sorted(Path(dataset.url, "shards").glob("*.samples.parquet"))
    ]
    return [row["key"] for table in tables for row in table.to_pylist() if "star" in row["caption"]]


def files(dataset: Dataset, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(dataset.url, "features", name).iterdir())}


# what it writes


def test_every_sample_is_read_and_decoded_once_for_all_encoders(built: Dataset) -> None:
    for name in STARTERS:
        for receipt, rows in zip(receipts(built, name).values(), (16, 16, 16, 12), strict=True):
            assert receipt.counters == {"parts_read": 3 * rows, "parts_decoded": 3 * rows}


def test_encoders_of_one_modality_share_a_decoding(sharded: Dataset) -> None:
    run(sharded, "a=odd:plain", "b=odd:plain", "c=odd:plain")
    assert [r.counters for r in receipts(sharded, "b").values()] == [
        {"parts_read": rows, "parts_decoded": rows} for rows in (16, 16, 16, 12)
    ]


def test_rows_are_ordered_by_id_and_carry_what_the_sample_table_says(built: Dataset) -> None:
    for name in STARTERS:
        found = Features(built, name).to_arrow()
        samples = pa.concat_tables(
            [pq.read_table(f"{built.url}/shards/{shard}.samples.parquet") for shard in SHARDS],
            promote_options="default",
        )
        assert found["id"].to_pylist() == list(range(60))
        for column in ("key", "caption", "colour", "count", "folder"):
            assert found[column].to_pylist() == samples[column].to_pylist()
    suffixes = {name: Features(built, name).to_arrow()["member"][59].as_py() for name in STARTERS}
    assert suffixes == {
        "minilm": "000000059.txt",
        "efficientnet-lite0": "000000059.png",
        "mel-stats": "000000059.wav",
    }


@pytest.mark.parametrize("name", STARTERS)
def test_a_features_file_is_made_for_vectors(built: Dataset, name: str) -> None:
    path = f"{built.url}/features/{name}/000000.parquet"
    dim = {"minilm": 384, "efficientnet-lite0": 1280, "mel-stats": 168}[name]
    schema = pq.read_schema(path)
    assert schema.names[:4] == ["id", "key", "member", "embedding"]
    assert schema.field("embedding").type == pa.list_(pa.float16(), dim)
    group = pq.read_metadata(path).row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    embedding = columns["embedding.list.element"]
    assert embedding.compression == "UNCOMPRESSED"
    assert not embedding.is_stats_set
    assert not embedding.has_dictionary_page
    assert set(embedding.encodings) == {"PLAIN", "RLE"}
    assert columns["key"].compression == "ZSTD"


def test_the_card_is_in_the_folder_and_in_every_footer(built: Dataset) -> None:
    for name in STARTERS:
        facts = unseal(Path(built.url, "features", name, "encoder.json").read_bytes(), name)
        card = card_from_json(json.dumps(facts).encode(), name)
        assert card.fingerprint == facts["fingerprint"]
        for shard_name, receipt in receipts(built, name).items():
            footer = pq.read_metadata(f"{built.url}/features/{name}/{shard_name}.parquet").metadata
            assert json.loads(footer[b"mmdata.encoder"]) == facts
            assert footer[b"mmdata.fingerprint"].decode() == receipt.fingerprint == card.fingerprint


def test_a_flipped_bit_in_a_vector_is_damage(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    path = Path(sharded.url, "features/odd-plain/000001.parquet")
    data = bytearray(path.read_bytes())
    group = pq.read_metadata(path).row_group(0)
    place = next(n for n in range(group.num_columns) if group.column(n).path_in_schema.startswith("embedding"))
    column = group.column(place)
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damage, match=r"000001\.parquet is not the file that its receipt names"):
        Features(sharded, "odd-plain").to_arrow()


def test_a_receipt_accounts_for_its_shard(built: Dataset) -> None:
    shards = read_receipts(built.store, "shards")
    for name in STARTERS:
        folder = Path(built.url, "features", name)
        for shard_name, receipt in receipts(built, name).items():
            data = (folder / f"{shard_name}.parquet").read_bytes()
            assert receipt.stage == "extract"
            assert receipt.inputs == shards[shard_name].content
            assert receipt.outputs[f"{shard_name}.parquet"].bytes == len(data)
            assert set(receipt.seconds) >= {"read", "decode", "encode", "write"}
            assert (receipt.rows_in, receipt.rows_out, receipt.absent) == (shards[shard_name].rows_out,) * 2 + (0,)
        summary = pq.read_table(folder / "receipts.parquet")
        assert summary["shard"].to_pylist() == SHARDS


@pytest.mark.parametrize("spec", STARTERS)
def test_batch_size_changes_no_vector(spec: str, tmp_path: Path, corpus: Path) -> None:
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus / "star"), samples_per_shard=8), HERE)
    dataset = Dataset.open(url)
    for size in (1, 16):
        run(dataset, f"by{size}={spec}", batch_size=size, dtype="float32")
    one, sixteen = (Features(dataset, name).to_arrow() for name in ("by1", "by16"))
    a, b = vectors(one), vectors(sixteen)
    assert one.drop_columns("embedding").equals(sixteen.drop_columns("embedding"))
    assert a.dtype == np.float32
    assert (np.abs(a - b).max(axis=1) / np.linalg.norm(a, axis=1)).max() < ROUNDING


def test_vectors_belong_to_their_samples(sharded: Dataset) -> None:
    run(sharded, "odd:plain", batch_size=3)
    rows = Features(sharded, "odd-plain").to_arrow()
    captions = rows["caption"].to_pylist()
    assert vectors(rows).tolist() == [[len(c), len(c.split()), ord(c[0])] for c in captions]
    assert max(odd_encoder.batches) == 3


# what it does again


def test_a_finished_set_is_left_alone(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    before = {path: path.stat().st_mtime_ns for path in Path(sharded.url, "features/odd-plain").iterdir()}
    again = run(sharded, "odd:plain")
    assert (again.shards, again.shards_before, again.rows_now, again.rows_out) == (4, 4, 0, 60)
    assert {path: path.stat().st_mtime_ns for path in Path(sharded.url, "features/odd-plain").iterdir()} == before


def test_only_the_missing_shard_is_made_again(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    before = files(sharded, "odd-plain")
    folder = Path(sharded.url, "features/odd-plain")
    kept = {name: (folder / name).stat().st_mtime_ns for name in before if name.startswith("000001")}
    (folder / "000002.json").unlink()
    (folder / "000002.parquet").unlink()
    odd_encoder.batches.clear()
    again = run(sharded, "odd:plain")
    assert (again.shards_before, again.rows_now) == (3, 16)
    assert sum(odd_encoder.batches) == 16
    assert files(sharded, "odd-plain")["000002.parquet"] == before["000002.parquet"]
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept


def test_a_second_encoder_does_not_run_the_first_again(sharded: Dataset) -> None:
    run(sharded, "a=odd:plain")
    odd_encoder.batches.clear()
    run(sharded, "a=odd:plain", "b=odd:plain")
    assert sum(odd_encoder.batches) == 60
    assert Features(sharded, "a").to_arrow().equals(Features(sharded, "b").to_arrow())


def _written_otherwise(data: bytes) -> bytes:
    """The same rows under the same card in other bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(data)), sink, compression="NONE", write_page_checksum=True)
    return bytes(sink.getvalue())


def test_a_file_that_a_killed_run_left_is_adopted(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    before = files(sharded, "odd-plain")["000002.parquet"]
    path = Path(sharded.url, "features/odd-plain/000002.parquet")
    path.with_suffix(".json").unlink()
    left = _written_otherwise(before)
    assert left != before
    path.write_bytes(left)
    run(sharded, "odd:plain")
    assert path.read_bytes() == left
    assert Features(sharded, "odd-plain").receipts["000002"].outputs["000002.parquet"].sha256 == sha256(left)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _of_other_rows(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(data)).slice(1), sink)
    return bytes(sink.getvalue())


def _of_another_card(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(data))
    pq.write_table(table.replace_schema_metadata({b"mmdata.fingerprint": b"other"}), sink)
    return bytes(sink.getvalue())


def _with_a_flipped_bit(data: bytes) -> bytes:
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    column = group.column(3)
    place = column.data_page_offset + column.total_compressed_size - 5
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [_cut, _of_other_rows, _of_another_card, _with_a_flipped_bit])
def test_a_file_without_a_receipt_that_is_not_as_good_is_replaced(sharded: Dataset, damage) -> None:
    run(sharded, "odd:plain")
    before = files(sharded, "odd-plain")
    path = Path(sharded.url, "features/odd-plain/000002.parquet")
    path.with_suffix(".json").unlink()
    path.write_bytes(damage(before["000002.parquet"]))
    run(sharded, "odd:plain")
    assert path.read_bytes() == before["000002.parquet"]
    assert len(Features(sharded, "odd-plain").to_arrow()) == 60


# what it refuses


def test_another_encoder_under_a_name_that_is_taken_is_a_conflict(sharded: Dataset) -> None:
    run(sharded, "words=odd:plain")
    before = files(sharded, "words")
    with pytest.raises(Conflict) as caught:
        run(sharded, "words=odd:zero")
    assert "spec: there 'odd:plain', asked 'odd:zero'" in str(caught.value)
    assert "give this one another name (--encoder NAME=SPEC, or --name), or --overwrite" in str(caught.value)
    assert files(sharded, "words") == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"dtype": "float32"}, "dtype: there 'float16', asked 'float32'"),
        ({"precision": "bf16"}, "precision: there 'fp32', asked 'bf16'"),
    ],
)
def test_other_options_are_a_conflict_that_names_them(sharded: Dataset, options: dict[str, str], line: str) -> None:
    run(sharded, "odd:plain")
    with pytest.raises(Conflict) as caught:
        run(sharded, "odd:plain", **options)
    message = str(caught.value).split("\n")
    assert message[1:-1] == [f"  {line}"]


def test_overwrite_makes_the_features_again(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    again = run(sharded, "odd:plain", dtype="float32", overwrite=True)
    assert again.rows_now == 60
    assert vectors(Features(sharded, "odd-plain").to_arrow()).dtype == np.float32


def test_shards_made_anew_are_a_conflict_with_both_hashes(sharded: Dataset, corpus: Path) -> None:
    run(sharded, "odd:plain")
    config = ShardConfig(dataset=sharded.url, source=str(corpus), samples_per_shard=16, shuffle=1, overwrite=True)
    old = read_receipts(sharded.store, "shards")["000000"].content["000000.tar"]
    shard(config, HERE)
    new = read_receipts(sharded.store, "shards")["000000"].content["000000.tar"]
    with pytest.raises(Conflict) as caught:
        run(sharded, "odd:plain")
    assert f"000000.tar: there '{old}', asked '{new}'" in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_overwrite_makes_only_the_shards_again_that_were_made_from_others(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    path = Path(sharded.url, "features/odd-plain/000001.json")
    receipt = unseal(path.read_bytes(), path.name)
    path.write_bytes(seal(receipt | {"inputs": {"000001.tar": "another"}}))
    odd_encoder.batches.clear()
    again = run(sharded, "odd:plain", overwrite=True)
    assert (again.shards, again.shards_before, sum(odd_encoder.batches)) == (4, 3, 16)
    assert orjson.loads(path.read_bytes())["inputs"] == receipt["inputs"]


def plan(dataset: Dataset, *specs: str, **options: object) -> dict:
    return describe_extraction(ExtractConfig(dataset=dataset.url, encoders=specs, **options), HERE)


def test_a_dry_run_says_what_each_set_would_be_and_writes_nothing(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    Path(sharded.url, "features/odd-plain/000001.json").unlink()
    before = sorted(Path(sharded.url).rglob("*"))
    assert plan(sharded, "odd:plain", "new=odd:zero") == {
        "odd-plain": {
            "spec": "odd:plain", "dim": 3, "dtype": "float16", "space": "odd", "shards done": 3, "shards to do": 1,
        },
        "new": {
            "spec": "odd:zero", "dim": 3, "dtype": "float16", "space": "odd", "shards done": 0, "shards to do": 4,
        },
    }  # fmt: skip
    again = plan(sharded, "odd:plain", dtype="float32", overwrite=True)["odd-plain"]
    assert (again["shards done"], again["shards to do"]) == (0, 4)
    assert plan(sharded, "odd:plain", overwrite=True)["odd-plain"]["shards done"] == 3
    assert sorted(Path(sharded.url).rglob("*")) == before


def test_a_dry_run_is_refused_as_the_run_itself(sharded: Dataset) -> None:
    run(sharded, "odd:plain")
    path = Path(sharded.url, "features/odd-plain/000001.json")
    path.write_bytes(seal(unseal(path.read_bytes(), path.name) | {"inputs": {"000001.tar": "another"}}))
    for options in ({"dtype": "float32"}, {}):
        with pytest.raises(Conflict) as real:
            run(sharded, "odd:plain", **options)
        with pytest.raises(Conflict) as dry:
            plan(sharded, "odd:plain", **options)
        assert str(dry.value) == str(real.value)
    with pytest.raises(ConfigError, match="no encoder 'nosuch'"):
        plan(sharded, "nosuch")


def test_two_encoders_for_one_folder_are_refused(sharded: Dataset) -> None:
    with pytest.raises(ConfigError, match="two encoders would write to one folder: odd-plain, odd-plain"):
        run(sharded, "odd:plain", "odd:plain")


def test_shards_that_are_not_finished_are_refused(sharded: Dataset) -> None:
    Path(sharded.url, "shards/000003.json").unlink()
    with pytest.raises(NotFound, match="has 3 of 4 finished shards; run mmdata shard"):
        run(sharded, "odd:plain")


def test_a_damaged_shard_fails_alone(sharded: Dataset) -> None:
    path = Path(sharded.url, "shards/000001.tar")
    data = bytearray(path.read_bytes())
    row = pq.read_table(f"{sharded.url}/shards/000001.samples.parquet").to_pylist()[5]
    data[row["text_offset"]] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damage, match=f"1 of 4 shards failed .* the text at byte {row['text_offset']} is damaged"):
        run(sharded, "odd:plain")
    assert list(receipts(sharded, "odd-plain")) == ["000000", "000002", "000003"]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("wide", r"odd:wide gave \(8, 4\) float32 for 8 inputs of dim 3; floats \(n, dim\) are due"),
        ("list", r"odd:list over 8 inputs of dim 3: floats \(n, dim\) as a numpy array are due, not list"),
        ("tensor", r"odd:tensor over 8 inputs of dim 3: floats \(n, dim\) as a numpy array are due, not Tensor"),
        ("complex", r"odd:complex gave \(8, 3\) complex64 for .* floats"),
        ("nothing", r"odd:nothing: prepare gave \[\]; one Prepared or more, in a list, is due"),
        ("raw", "odd:raw: prepare gave .* is due"),
        (
            "length-text",
            "odd:length-text: prepare gave .*'long'.*; a finite length >= 0, start and end, and a tuple of",
        ),
        ("length-negative", "odd:length-negative: prepare gave .*; a finite length >= 0"),
        ("start-none", "odd:start-none: prepare gave .*; a finite length >= 0, start"),
        ("repairs-text", "odd:repairs-text: prepare gave .* a tuple of Reasons as repairs are due"),
        ("raises", "odd:raises failed over 8 inputs: KeyError: 'no such word', at .*odd_encoder.py:[0-9]+"),
        ("raises-ours", "odd:raises-ours failed over 8 inputs: ModelError: nowhere.json is missing.*, at .*.py:[0-9]+"),
    ],
)
def test_an_encoder_that_gives_what_its_card_does_not_say_is_a_model_error(
    sharded: Dataset, way: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        run(sharded, f"odd:{way}")
    assert receipts(sharded, f"odd-{way}") == {}


@pytest.mark.parametrize(
    ("way", "found"),
    [
        ("none", "encode_tokens gave NoneType; vectors and a list of arrays are due"),
        ("alone", "encode_tokens gave list; vectors and a list of arrays are due"),
        ("string", "encode_tokens gave str among its tokens; 8 numpy arrays of floats .length, 2. are due"),
        ("lists", "encode_tokens gave list among its tokens; 8 numpy arrays of floats .length, 2. are due"),
        ("tensors", "encode_tokens gave Tensor among its tokens; 8 numpy arrays of floats .length, 2. are due"),
        ("few", "encode_tokens gave list for tokens; 8 numpy arrays of floats .length, 2. are due"),
        ("wide", "encode_tokens gave .1, 3. float32 among its tokens; 8 numpy arrays of floats .length, 2. are due"),
    ],
)
def test_tokens_that_are_not_what_the_card_says_are_a_model_error(sharded: Dataset, way: str, found: str) -> None:
    with pytest.raises(ModelError, match=f"odd:tokens-{way}: {found}"):
        run(sharded, f"odd:tokens-{way}", tokens=4)


@pytest.mark.parametrize("way", ["wide", "tensor", "nothing", "length-text", "raises", "raises-ours", "all-nan"])
def test_an_encoder_that_fails_takes_nothing_from_those_beside_it(sharded: Dataset, way: str) -> None:
    with pytest.raises(ModelError, match=f"4 of 4 shards failed; the first, 00000.: ModelError: odd:{way}"):
        run(sharded, f"odd:{way}", "odd:plain")
    assert receipts(sharded, f"odd-{way}") == {}
    assert Features(sharded, "odd-plain").to_arrow()["id"].to_pylist() == list(range(60))


def test_an_encoder_that_fails_leaves_no_reader_behind_that_waits_for_room(
    sharded: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmdata.stages.encode.AHEAD_BYTES", 1)
    monkeypatch.setattr("mmdata.stages.encode.TOGETHER", 1)
    monkeypatch.setattr("mmdata.stages.lanes.SORTED", 1)
    with pytest.raises(ModelError) as kept:  # and with it the frames that hold what they were doing
        run(sharded, "odd:wide", batch_size=1)
    waiting = [thread for thread in threading.enumerate() if thread.name == "reader"]
    for thread in waiting:
        thread.join(10)
    assert [thread for thread in waiting if thread.is_alive()] == [], kept


def test_what_comes_next_after_encoders_of_one_modality_is_an_index(sharded: Dataset) -> None:
    assert run(sharded, "odd:plain", "minilm").next == f"mmdata index {sharded.url} --features odd-plain"


def test_all_encoders_that_fail_are_named(sharded: Dataset) -> None:
    with pytest.raises(ModelError, match=r"(?s)odd:wide gave .*\nodd:raises failed over"):
        run(sharded, "odd:wide", "odd:raises")


@pytest.mark.parametrize(("way", "remedy"), [("nan", "--precision fp32 or bf16"), ("huge", "--dtype float32")])
def test_an_encoder_that_gives_no_number_at_all_is_a_model_error(sharded: Dataset, way: str, remedy: str) -> None:
    with pytest.raises(ModelError, match=f"no finite vector in a whole shard; try {remedy}"):
        run(sharded, f"odd:all-{way}", max_reject_rate=1)


# what it leaves out, and counts

LEFT_OUT = {
    "nan": Reason.NONFINITE_OUTPUT,
    "zero": Reason.ZERO_NORM,
    "huge": Reason.NONFINITE_OUTPUT,
    "stars-do-not-fit": Reason.OOM,
    "no-memory-to-prepare": Reason.OOM,
    "no-memory-to-encode": Reason.OOM,
    "torch-has-no-memory": Reason.OOM,
    "refuses": Reason.TOO_LONG,
    "breaks": Reason.ENCODE_FAILED,
    "leaves": Reason.ENCODE_FAILED,
}


@pytest.mark.parametrize("way", LEFT_OUT)
def test_a_sample_without_a_usable_vector_is_a_reject_with_its_reason(sharded: Dataset, way: str) -> None:
    summary = run(sharded, f"odd:{way}", "odd:plain", max_reject_rate=0.5)
    name, out = f"odd-{way}", stars(sharded)
    assert summary.rejected == {LEFT_OUT[way].value: len(out)}
    assert (summary.rows_in, summary.rows_out) == (120, 120 - len(out))
    notes = read_rejects(sharded.store, f"features/{name}")
    assert [note.key for note in notes] == out
    assert {(note.outcome, note.reason, note.part) for note in notes} == {(Outcome.REJECTED, LEFT_OUT[way], "text")}
    rows = Features(sharded, name).to_arrow()
    captions = rows["caption"].to_pylist()
    assert vectors(rows).tolist() == [[len(c), len(c.split()), ord(c[0])] for c in captions]
    assert not set(out) & set(rows["key"].to_pylist())
    assert Features(sharded, "odd-plain").to_arrow()["id"].to_pylist() == list(range(60))
    for receipt in receipts(sharded, name).values():
        assert receipt.rows_in == receipt.rows_out + sum(receipt.rejected.values())


@pytest.mark.parametrize("way", ["tokens-nan", "tokens-huge"])
def test_a_sample_with_token_vectors_that_are_not_finite_is_a_reject(sharded: Dataset, way: str) -> None:
    summary = run(sharded, f"odd:{way}", tokens=4, max_reject_rate=0.5)
    assert summary.rejected == {"nonfinite_output": len(stars(sharded))}
    rows = Features(sharded, f"odd-{way}").to_arrow()
    assert not set(stars(sharded)) & set(rows["key"].to_pylist())
    assert set(token_vectors(rows)[0].reshape(-1).tolist()) == {40_000.0}


def test_what_overflows_float16_is_kept_in_float32(sharded: Dataset) -> None:
    assert run(sharded, "odd:huge", dtype="float32").rejected == {}
    assert run(sharded, "odd:tokens-huge", dtype="float32", tokens=4).rejected == {}


def test_too_many_rejects_end_the_run(sharded: Dataset) -> None:
    with pytest.raises(TooManyRejects, match=r"more than --max-reject-rate 0.05 allows: \d+ zero_norm"):
        run(sharded, "odd:zero")


def test_the_rate_of_rejects_is_that_of_each_set_by_itself(sharded: Dataset) -> None:
    rate = len(stars(sharded)) / 60
    with pytest.raises(TooManyRejects, match=rf"{len(stars(sharded))} of 60 samples are left out"):
        run(sharded, "odd:zero", "odd:plain", max_reject_rate=0.9 * rate)
    assert run(sharded, "odd:zero", "odd:plain", max_reject_rate=rate).shards_before == 4


def test_out_of_memory_halves_the_batch_and_loses_nothing(sharded: Dataset) -> None:
    summary = run(sharded, "odd:three-fit", "odd:plain", batch_size=8)
    assert (summary.rejected, summary.rows_out) == ({}, 120)
    a, b = (Features(sharded, name).to_arrow() for name in ("odd-three-fit", "odd-plain"))
    assert a.equals(b)


def test_the_batch_size_that_fits_is_remembered(sharded: Dataset) -> None:
    run(sharded, "odd:three-fit", batch_size=8)
    sizes = Counter(odd_encoder.batches)
    assert set(sizes) == {2}
    assert sizes[2] == 30


@pytest.fixture
def mixed(tmp_path: Path) -> Dataset:
    """Six samples in shards of two: one has a very long text, two have none, and the last shard has no picture."""
    import shutil

    from mmdata.demo import write_corpus

    corpus = tmp_path / "corpus"
    write_corpus(tmp_path / "drawn", 4)
    corpus.mkdir()
    for number, picture in enumerate(sorted((tmp_path / "drawn").rglob("*.png"))):
        shutil.copy(picture, corpus / f"{number}.png")
    (corpus / "0.txt").write_text("red star " * 300)
    (corpus / "1.txt").write_text("a red star")
    (corpus / "4.txt").write_text("words alone")
    (corpus / "5.txt").write_text("more words")
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=2), HERE)
    return Dataset.open(url)


def test_samples_without_the_modality_are_absent_and_not_rejected(mixed: Dataset) -> None:
    summary = run(mixed, "minilm", "efficientnet-lite0")
    assert (summary.rows_in, summary.rows_out, summary.absent, summary.rejected) == (8, 8, 4, {})
    assert [r.absent for r in receipts(mixed, "minilm").values()] == [0, 2, 0]
    assert [r.absent for r in receipts(mixed, "efficientnet-lite0").values()] == [0, 0, 2]
    assert Features(mixed, "minilm").to_arrow()["key"].to_pylist() == ["0", "1", "4", "5"]


def test_an_encoder_of_what_no_sample_has_says_so(mixed: Dataset) -> None:
    summary = run(mixed, "mel-stats")
    assert (summary.rows_in, summary.next) == (0, "")
    assert summary.facts == {"features": ["mel-stats"], "nothing to do": "no sample has a part of audio"}


def test_a_text_longer_than_the_model_is_cut_where_that_is_asked_and_counted(mixed: Dataset) -> None:
    summary = run(mixed, "minilm", windows="cut")
    assert (summary.repaired, summary.rejected) == ({"too_long": 1}, {})
    (note,) = read_rejects(mixed.store, "features/minilm")
    assert (note.key, note.outcome, note.reason, note.part) == ("0", Outcome.REPAIRED, Reason.TOO_LONG, "text")
    assert note.message == "cut to what the encoder takes; windows keep the rest: --windows mean or rows"


def test_every_repair_of_a_decoder_says_what_was_done(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    parts = {
        "long.txt": b"a word " * 10_000,
        "moving.gif": frames("GIF", (255, 0, 0), (0, 0, 0)),
        "loud.wav": written(tone(0.1, 1e5), subtype="FLOAT"),
        "still.wav": written(np.zeros(1600)),
    }
    for name, data in parts.items():
        (tmp_path / "corpus" / name).write_bytes(data)
    dataset = Dataset(str(tmp_path / "dataset"))
    shard(ShardConfig(dataset=dataset.url, source=str(tmp_path / "corpus")), HERE)
    run(dataset, "words=odd:plain", "colours=quick_encoder:Colours", "sounds=mel-stats", dtype="float32")
    notes = [
        note for name in ("words", "colours", "sounds") for note in read_rejects(dataset.store, f"features/{name}")
    ]
    assert {note.key: (note.outcome, note.reason, note.message) for note in notes} == {
        key: (Outcome.REPAIRED, reason, DECODED[reason])
        for key, reason in {
            "long": Reason.TOO_LONG,
            "moving": Reason.FIRST_FRAME,
            "loud": Reason.RESCALED,
            "still": Reason.SILENT,
        }.items()
    }
    assert DECODED[Reason.TOO_LONG] == "a text of more than 65,536 characters; those behind them were not read"


def test_a_shard_without_a_single_vector_is_no_obstacle(mixed: Dataset) -> None:
    run(mixed, "efficientnet-lite0")
    features = Features(mixed, "efficientnet-lite0")
    assert vectors(features.to_arrow()).shape == (4, 1280)
    assert vectors(features.read(features.receipts["000002"])).shape == (0, 1280)
    index(IndexConfig(dataset=mixed.url, features="efficientnet-lite0"), HERE)
    assert open_index(mixed, "efficientnet-lite0").rows["key"].to_pylist() == ["0", "1", "2", "3"]


def test_features_of_shards_that_were_made_anew_are_stale(corpus: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=16), HERE)
    extract(ExtractConfig(dataset=url, encoders=("mel-stats",)), HERE)
    before = {row["what"]: (row["left"], row["stale"]) for row in status(Dataset.open(url))}
    shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=60, overwrite=True), HERE)
    after = {row["what"]: (row["left"], row["stale"]) for row in status(Dataset.open(url))}
    assert (before["features mel-stats"], after["features mel-stats"]) == ((0, 0), (1, 4))
    with pytest.raises(Conflict, match="4 of 4 shards of the features 'mel-stats' were made from what"):
        index(IndexConfig(dataset=url, features="mel-stats"), HERE)
