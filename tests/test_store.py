"""A file appears whole or not at all, whoever writes it, and whatever its name."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import BUCKET, network
from tiny_files import tar

from mmdata.errors import ConfigError, Conflict, NotFound, StorageError, StorageFull
from mmdata.storage.dataset import Dataset
from mmdata.storage.sealed import seal
from mmdata.storage.store import Store, sha256, translated
from mmdata.storage.tables import to_parquet
from mmdata.storage.tar import scan

NAMES = [
    "a b.txt",
    "a%20b.txt",
    "a#1.txt",
    "a.txt#1",
    "tab\t.txt",
    "line\nend.txt",
    "back\\slash.txt",
    'quo"te.txt',
    "[z]*?.txt",
    "ünï☃.txt",
    "e\u0301.txt",
    "\u00e9.txt",
    "A.txt",
    "a.txt",
    ".hidden",
    "x" * 251 + ".txt",
]


@pytest.fixture(scope="module")
def s3():
    with network():
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3')}/{request.node.originalname}")
    return Store({"local": str(tmp_path / "new"), "memory": "memory:///"}[request.param])


def test_a_file_is_created_once(store):
    assert store.create("a/b.bin", b"first") is True
    assert store.create("a/b.bin", b"second") is False
    assert store.read("a/b.bin") == b"first"


def test_of_many_writers_of_one_file_one_wins_and_the_file_is_whole(store):
    contents = [bytes([n]) * 100_000 for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(lambda data: store.create("one", data), contents))
    assert created.count(True) == 1
    assert store.read("one") == contents[created.index(True)]
    assert [info.path for info in store.list()] == ["one"]


def test_replace_writes_over(store):
    store.replace("a", b"first")
    store.replace("a", b"second, and longer")
    assert store.read("a") == b"second, and longer"


def test_views_and_bytearrays_are_written_like_bytes(store):
    store.create("view", memoryview(b"__data")[2:])
    store.create("array", bytearray(b"data"))
    assert (store.read("view"), store.read("array")) == (b"data", b"data")


def test_an_empty_file_is_a_file(store):
    store.create("empty", b"")
    assert store.read("empty") == b""
    assert store.info("empty").size == 0
    assert bytes(store.read_range("empty", 0, 0)) == b""


def test_ranges_are_read_by_offset_and_a_short_file_is_an_error(store):
    store.create("a", b"0123456789")
    assert bytes(store.read_range("a", 3, 4)) == b"3456"
    with pytest.raises(StorageError, match="ends at byte 10, not 12"):
        store.read_range("a", 8, 4)


def test_an_open_file_seeks_and_reads_as_pythons_own_do(store):
    store.create("a", bytes(range(256)) * 10_000)
    with store.open("a") as file:
        assert file.read(3) == b"\0\1\2"
        assert file.seek(-2, os.SEEK_END) == 2_559_998
        assert file.read() == b"\xfe\xff"
        assert file.seek(2_000_000) == file.tell() == 2_000_000
        assert file.seek(5, os.SEEK_CUR) == 2_000_005
        assert file.read(2) == bytes([2_000_005 % 256, 2_000_006 % 256])
        file.seek(9_999_999)
        assert file.read(1) == b""


def test_tars_and_parquet_are_read_through_an_open_file(store):
    table = pa.table({"a": range(1000)})
    store.create("a.tar", tar(("a.txt", b"1"), ("b.txt", b"2" * 2_000_000)))
    store.create("a.parquet", to_parquet(table, row_group_size=100))
    with store.open("a.tar") as file:
        members = list(scan(file, store.info("a.tar").size, "a.tar"))
    with store.open("a.parquet") as file:
        group = pq.ParquetFile(file).read_row_group(9)
    assert [member.name for member in members] == ["a.txt", "b.txt"]
    assert bytes(store.read_range("a.tar", members[1].offset, 3)) == b"222"
    assert group["a"].to_pylist() == list(range(900, 1000))


def test_what_is_not_there_is_not_found_by_its_full_name(store):
    store.create("b", b"")
    with pytest.raises(NotFound, match=f"{store.url}/a does not exist"):
        store.read("a")
    with pytest.raises(NotFound):
        store.open("a")
    with pytest.raises(NotFound):
        store.read_range("a", 0, 1)
    assert store.info("a") is None
    assert store.list("a") == []


def test_looking_makes_nothing(tmp_path):
    assert Store(str(tmp_path / "typo")).list() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_local_file_of_any_name_is_listed_and_read(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"content")
    store = Store(str(tmp_path))
    (info,) = store.list()
    assert (info.path, info.size) == (f"in/{name}", 7)
    assert store.info(info.path) == info
    assert store.read(info.path) == b"content"
    assert bytes(store.read_range(info.path, 3, 2)) == b"te"


def test_lists_are_sorted_by_path_and_kept_to_their_prefix(store):
    for path in ("b/2", "b/10", "b2", "a", "B/1"):
        store.create(path, b"")
    assert [info.path for info in store.list()] == ["B/1", "a", "b/10", "b/2", "b2"]
    assert [info.path for info in store.list("b")] == ["b/10", "b/2"]


def test_links_are_followed_and_a_circle_ends(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_bytes(b"a")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    paths = [info.path for info in Store(str(tmp_path)).list()]
    assert paths == ["gone.txt", "link/a.txt", "real/a.txt"]


def test_the_version_changes_with_the_content(store):
    store.create("a", b"first")
    before = store.info("a")
    store.replace("a", b"changed")
    assert store.info("a").version != before.version


def test_the_version_of_a_local_file_changes_with_its_time(tmp_path):
    (tmp_path / "a").write_bytes(b"first")
    store = Store(str(tmp_path))
    before = store.info("a")
    os.utime(tmp_path / "a", ns=(0, 1))
    assert store.info("a").version != before.version


def test_delete_removes_one_file_and_may_be_said_twice(store):
    store.create("a", b"")
    store.create("b", b"")
    store.delete("a")
    store.delete("a")
    assert [info.path for info in store.list()] == ["b"]


def test_a_store_travels_as_its_url(tmp_path):
    store = Store(str(tmp_path))
    store.create("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_a_file_url_is_a_local_path(tmp_path):
    assert Store(f"file://{tmp_path}").url == str(tmp_path)


def test_a_store_is_no_file_and_of_a_known_kind(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        Store(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot open gopher://x/y"):
        Store("gopher://x/y")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_from_other_failures():
    with pytest.raises(StorageFull, match="no space left to write x"), translated("x"):
        Path("/dev/full").write_bytes(b"1")


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = Store(str(tmp_path / "file" / "below"))
    with pytest.raises(StorageError):
        store.create("a", b"")


def test_sha256_is_the_digest_everyone_knows():
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(memoryview(b"abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_dataset_is_made_once_and_opened_after(tmp_path):
    url = str(tmp_path / "dataset")
    with pytest.raises(NotFound, match="make one with: mmdata shard SOURCE"):
        Dataset.open(url)
    made = Dataset.create(url)
    facts = made.store.read("dataset.json")
    assert Dataset.create(url).store.read("dataset.json") == facts
    assert Dataset.open(url).url == url
    assert pickle.loads(pickle.dumps(made)).url == url


def test_a_dataset_of_another_format_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text(seal({"format": 99}).decode())
    with pytest.raises(Conflict, match="has format 99, this mmdata reads format 1"):
        Dataset.open(str(tmp_path))
    with pytest.raises(Conflict):
        Dataset.create(str(tmp_path))


def test_a_dataset_names_what_it_holds(tmp_path):
    dataset = Dataset.create(str(tmp_path))
    for path in ("features/b/1", "features/a/1", "features/a/2", "indexes/x/1"):
        dataset.store.create(path, b"")
    assert dataset.names("features") == ["a", "b"]
    assert dataset.names("heads") == []


@pytest.mark.parametrize("path", ["../victim.txt", "a/../../victim.txt", "/victim.txt", "a//b", ""])
def test_nothing_outside_a_store_is_written_or_deleted(tmp_path, path):
    victim = tmp_path / "victim.txt"
    victim.write_text("victim")
    store = Store(str(tmp_path / "store"))
    store.create("here.txt", b"here")
    asked = str(victim) if path == "/victim.txt" else path
    for act in (lambda: store.delete(asked), lambda: store.replace(asked, b"x"), lambda: store.create(asked, b"x")):
        with pytest.raises(ConfigError, match="leads out of"):
            act()
    assert victim.read_text() == "victim"
