"""The main job from and to an object store, over a network that loses, delays, refuses and cuts."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from object_store import BUCKET, Fault, ask, network
from typer.testing import CliRunner

from mmdata import open_index
from mmdata.cli import app
from mmdata.cluster import Resources
from mmdata.config import AlignConfig, ExtractConfig, IndexConfig, ShardConfig
from mmdata.errors import ConfigError, NotFound, StorageError
from mmdata.stages.align import align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from mmdata.stages.status import status
from mmdata.storage import remote
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.storage.receipts import read_receipts
from mmdata.storage.store import LARGE, Store
from mmdata.types import Modality

HERE = Resources(workers=0)
SOURCE, DATASET = f"s3://{BUCKET}/corpus", f"s3://{BUCKET}/data"
ENCODERS = ("minilm", "efficientnet-lite0")
TROUBLE = ("500", "503", "reset", "lost", "stall")


@pytest.fixture(scope="module")
def net():
    with network() as between:
        os.environ["AWS_READ_TIMEOUT"] = "1s"
        yield between


@pytest.fixture
def store(net, request):
    net.faults, net.seen = [], []
    yield Store(f"s3://{BUCKET}/{request.node.name.replace('[', '/').rstrip(']')}")
    net.faults = []


def uploaded(corpus: Path, url: str) -> str:
    target = Store(url)
    for info in Store(str(corpus)).list():
        target.create(info.path, (corpus / info.path).read_bytes())
    return url


def missed(faults):
    return [fault for fault in faults if fault.fired == 0]


@pytest.mark.parametrize("kind", TROUBLE)
def test_every_operation_gets_over_trouble(net, store, kind):
    store.create("there", b"content")

    def in_trouble(method, call):
        net.faults = [Fault(kind, method, times=1)]
        result = call()
        assert net.faults[0].fired == 1
        return result

    assert in_trouble("PUT", lambda: store.create(kind, b"new")) is (kind != "lost")
    assert in_trouble("GET", lambda: store.read(kind)) == b"new"
    assert bytes(in_trouble("GET", lambda: store.read_range("there", 3, 4))) == b"tent"
    assert in_trouble("GET", lambda: "there" in [info.path for info in store.list()])
    assert in_trouble("HEAD", lambda: store.info("there")).size == 7
    in_trouble("PUT", lambda: store.replace("there", b"other"))
    in_trouble("(DELETE|POST)", lambda: store.delete(kind))
    assert store.read("there") == b"other"
    assert store.info(kind) is None


@pytest.mark.parametrize("kind", ["cut", "slow"])
def test_an_answer_that_is_cut_or_slow_is_read_whole(net, store, kind):
    content = os.urandom(3 << 20)
    store.create(kind, content)
    net.faults = [Fault(kind, "GET", times=2)]
    assert store.read(kind) == content
    with store.open(kind) as file:
        file.seek(1 << 20)
        assert file.read() == content[1 << 20 :]
    assert missed(net.faults) == []
    assert len([path for method, path, _ in net.seen if method == "GET"]) <= 6  # not one for every few kB


def test_files_that_take_long_to_send_are_given_the_time(net, store):
    content = os.urandom(LARGE + 1)
    net.faults = [Fault("stall", "PUT", times=1)]  # longer than AWS_READ_TIMEOUT, and then no answer
    assert store.create("large", content)
    assert store.read("large") == content


def test_a_shard_is_sent_in_one_piece_and_leaves_no_parts(net, store):
    net.faults = [Fault("lost", "PUT", times=2), Fault("reset", "PUT", times=2)]
    store.create("a.tar", os.urandom(LARGE + 1))
    assert {path.partition("?")[2] for method, path, _ in net.seen if method in ("PUT", "POST")} == {""}


def test_a_store_that_stays_busy_is_given_up_in_time(net, store, monkeypatch):
    monkeypatch.setitem(remote.RETRIES, "max_retries", 1)
    busy = Store(store.url)
    net.faults = [Fault("503", times=1000)]
    with pytest.raises(StorageError, match=f"cannot access {store.url}/a: SlowDown: Please reduce your rate; run the"):
        busy.read("a")
    with pytest.raises(StorageError, match=f"cannot access {store.url}/a: SlowDown"):
        busy.create("a", b"")
    assert len(net.seen) == 4


def test_a_bucket_that_is_not_there_is_named(net):
    for call in (lambda s: s.create("a", b""), lambda s: s.read("a"), lambda s: s.list()):
        with pytest.raises(NotFound, match="there is no bucket 'elsewhere' at this endpoint; make it, or check AWS_EN"):
            call(Store("s3://elsewhere/data"))


def test_an_endpoint_without_tls_says_what_it_needs(net, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StorageError, match="an endpoint without TLS needs AWS_ALLOW_HTTP=true"):
        Store(DATASET).read("a")


def test_wrong_credentials_end_a_run_at_once_with_bucket_and_key_named(net, corpus):
    net.faults, net.seen = [], []
    ask(net, "POST", "/moto-api/reset-auth", b"0")  # from now on moto checks who asks
    try:
        since = time.monotonic()
        ran = subprocess.run(
            [
                sys.executable,
                "-c",
                "from mmdata.cli import main; main()",
                "shard",
                str(corpus),
                f"s3://{BUCKET}/forbidden",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        ask(net, "POST", "/moto-api/reset-auth", b"inf")
    assert ran.returncode == 4, ran.stderr
    assert f"error: no access to s3://{BUCKET}/forbidden/dataset.json: InvalidAccessKeyId" in ran.stderr
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in ran.stderr
    assert len(net.seen) == 1  # it is not tried again
    assert time.monotonic() - since < 60


def test_no_credentials_are_said_at_once(net, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(remote, "METADATA", ("127.0.0.1", 1))
    with pytest.raises(ConfigError, match="no credentials for s3://bucket/data: set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        Store(DATASET)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert Store(DATASET).info("nothing") is None


def test_the_main_job_over_a_bad_network_gives_the_rows_of_a_good_one(net, corpus, built, tmp_path, monkeypatch):
    """Shard, extract, align, index, search and status; faults at files of every kind, each of which must fire."""
    net.faults = []
    uploaded(corpus, SOURCE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    net.faults = [
        Fault("503", "GET", r"corpus/.*\.png", 2),
        Fault("cut", "GET", r"corpus/.*\.wav", 2),
        Fault("500", "GET", "list-type=2", 1),
        Fault("lost", "PUT", r"data/dataset\.json"),
        Fault("lost", "PUT", r"shards/plan\.parquet"),
        Fault("lost", "PUT", r"shards/plan\.json"),
        Fault("lost", "PUT", r"shards/000000\.tar"),
        Fault("stall", "PUT", r"shards/000001\.tar"),
        Fault("lost", "PUT", r"shards/000001\.samples"),
        Fault("lost", "PUT", r"shards/000002\.json"),
        Fault("reset", "GET", r"shards/000003\.tar", 2),
        Fault("lost", "PUT", r"features/minilm/encoder\.json"),
        Fault("lost", "PUT", r"features/minilm/000001\.parquet"),
        Fault("lost", "PUT", r"features/minilm/000002\.json"),
        Fault("500", "PUT", r"features/efficientnet-lite0/000003\.parquet", 2),
        Fault("lost", "PUT", r"heads/pictures/head\.json"),
        Fault("lost", "PUT", r"indexes/.*/building"),
        Fault("lost", "PUT", r"indexes/.*/index\.json"),
        Fault("cut", "GET", r"indexes/.*\.faiss"),
    ]
    shard(ShardConfig(dataset=DATASET, source=SOURCE, samples_per_shard=16), HERE)
    extract(ExtractConfig(dataset=DATASET, encoders=ENCODERS), HERE)
    assert list(tmp_path.iterdir()) == []  # nothing passes through local files
    align(AlignConfig(dataset=DATASET, name="pictures", features=ENCODERS, holdout=0.4), HERE)
    for features in (*ENCODERS, "pictures.image"):
        index(IndexConfig(dataset=DATASET, features=features), HERE)
    found, there = Dataset.open(DATASET), open_index(DATASET, "pictures.image")
    hits = there.search(there.encode(Modality.TEXT, "three red circles"), k=3)[0]
    assert missed(net.faults) == []

    ours, theirs = read_receipts(found.store, "shards"), read_receipts(built.store, "shards")
    assert {name: receipt.outputs for name, receipt in ours.items()} == {n: r.outputs for n, r in theirs.items()}
    for name in ENCODERS:
        assert Features(found, name).to_arrow(["id", "key"]).equals(Features(built, name).to_arrow(["id", "key"]))
    assert [row for row in status(found) if row["left"]] == []
    local = open_index(built.url, "pictures.image")
    wanted = local.search(local.encode(Modality.TEXT, "three red circles"), k=3)[0]
    assert [hit.key for hit in hits] == [hit.key for hit in wanted]

    net.faults, net.seen = [], []
    again = CliRunner().invoke(app, ["status", DATASET, "--json"])
    assert (again.exit_code, json.loads(again.stdout)[0]["rows out"]) == (0, 60)
    shard(ShardConfig(dataset=DATASET, source=SOURCE, samples_per_shard=16), HERE)
    extract(ExtractConfig(dataset=DATASET, encoders=ENCODERS), HERE)
    assert [path for method, path, _ in net.seen if method == "PUT" and path.endswith((".tar", ".parquet"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("500", "cut", "slow"), ("503", "lost"), ("reset",), ("stall",)])
def test_workers_on_ray_get_over_trouble_of_every_kind_in_every_stage(net, corpus, built, kinds):
    net.faults = []
    source, data = uploaded(corpus, SOURCE), f"s3://{BUCKET}/{kinds[0]}"
    methods = {"cut": "(GET|HEAD)", "slow": "(GET|HEAD)"}
    paths = (r"\.tar", r"\.parquet", r"\.json", "list-type")
    commands = [
        ["shard", source, data, "--samples-per-shard", "16", "--workers", "2"],
        ["extract", data, "--encoder", "minilm", "--workers", "2"],
        ["index", data, "--features", "minilm"],
    ]
    for verb, *arguments in commands:
        net.faults = [Fault(kind, methods.get(kind, ".*"), path, times=2) for kind in kinds for path in paths]
        command = [sys.executable, "-c", "from mmdata.cli import main; main()", verb, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, ran.stderr
        assert {fault.kind for fault in net.faults if fault.fired} == {*kinds}
    found = Dataset.open(data)
    assert {name: receipt.outputs for name, receipt in read_receipts(found.store, "shards").items()} == {
        name: receipt.outputs for name, receipt in read_receipts(built.store, "shards").items()
    }
    assert Features(found, "minilm").to_arrow(["key"])["key"].equals(Features(built, "minilm").to_arrow(["key"])["key"])
    index_there = open_index(data, "minilm")
    hits = index_there.search(index_there.encode(Modality.TEXT, "three red circles"), k=1)[0]
    assert len(hits) == 1
