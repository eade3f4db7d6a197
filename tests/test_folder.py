"""A folder: same stem, same sample; everything else is counted."""

import os

import pyarrow as pa
import pytest
from tiny_files import picture, sound

from mmdata.corpora import open_corpus
from mmdata.errors import NotFound, StorageError
from mmdata.types import Modality, Outcome, Reason, Reject, Sample

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
PNG, WAV = picture(), sound()


def write(folder, files: dict[str, bytes]):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def scanned(folder):
    table, ignored = open_corpus(str(folder), "folder", {}).scan()
    return table.to_pylist(), ignored


def planned(folder) -> pa.Table:
    table, _ = open_corpus(str(folder), "folder", {}).scan()
    return table.add_column(0, "id", pa.array(range(table.num_rows)))


def read(folder, table: pa.Table | None = None) -> list[Sample | Reject]:
    return list(open_corpus(str(folder), "folder", {}).read(planned(folder) if table is None else table))


def test_files_of_one_stem_are_one_sample(tmp_path):
    write(tmp_path, {"a/cat.png": PNG, "a/cat.txt": b"a cat", "a/cat.wav": WAV, "b/cat.txt": b"another"})
    first, second = read(tmp_path)
    assert (first.key, first.source) == ("a/cat", "a/cat.png")
    assert {m: (p.suffix, p.data) for m, p in first.parts.items()} == {
        IMAGE: ("png", PNG),
        AUDIO: ("wav", WAV),
        TEXT: ("txt", b"a cat"),
    }
    assert (second.key, second.source, list(second.parts)) == ("b/cat", "b/cat.txt", [TEXT])


def test_suffixes_are_taken_in_any_case(tmp_path):
    write(tmp_path, {"a.PNG": PNG, "a.Txt": b"text"})
    (sample,) = read(tmp_path)
    assert {m: p.suffix for m, p in sample.parts.items()} == {IMAGE: "png", TEXT: "txt"}


def test_a_video_beside_a_picture_is_its_sound(tmp_path):
    write(
        tmp_path, {"a.HEIC": PNG, "a.MP4": WAV, "b.avif": PNG, "b.m4a": WAV, "c.mov": WAV, "d.webm": WAV, "e.mkv": WAV}
    )
    found = [{m: p.suffix for m, p in sample.parts.items()} for sample in read(tmp_path)]
    assert found[:2] == [{IMAGE: "heic", AUDIO: "mp4"}, {IMAGE: "avif", AUDIO: "m4a"}]
    assert found[2:] == [{AUDIO: "mov"}, {AUDIO: "webm"}, {AUDIO: "mkv"}]


def test_only_the_last_suffix_is_cut_from_a_key(tmp_path):
    write(tmp_path, {"v1.2/photo.final.png": PNG, "v1.2/photo.final.txt": b"text"})
    (sample,) = read(tmp_path)
    assert sample.key == "v1.2/photo.final"
    assert sorted(sample.parts) == [AUDIO, IMAGE, TEXT][1:]


def test_keys_that_differ_in_case_or_form_are_different_samples(tmp_path):
    names = ["A.txt", "a.txt", "\u00e9.txt", "e\u0301.txt"]
    write(tmp_path, {name: b"text" for name in names})
    assert [sample.key for sample in read(tmp_path)] == sorted(["A", "a", "\u00e9", "e\u0301"])


def test_a_long_path_is_a_key(tmp_path):
    write(tmp_path, {f"{'x' * 200}/{'ü' * 100}.txt": b"text"})
    (sample,) = read(tmp_path)
    assert sample.key == f"{'x' * 200}/{'ü' * 100}"


def test_files_that_are_part_of_nothing_are_counted_by_suffix(tmp_path):
    write(tmp_path, {"a.txt": b"text", "b.pdf": b"", "c.PDF": b"", "README": b"", "d.tar.gz": b""})
    assert scanned(tmp_path)[1] == {".gz": 1, ".pdf": 2, "no suffix": 1}


def test_hidden_files_and_folders_are_counted_and_not_taken(tmp_path):
    write(tmp_path, {"a.txt": b"text", ".DS_Store": b"", "._a.txt": b"", ".thumbs/a.png": PNG, "b/.c/d.txt": b""})
    rows, ignored = scanned(tmp_path)
    assert [row["key"] for row in rows] == ["a"]
    assert ignored == {"hidden": 4}


def test_a_second_image_of_one_stem_is_a_counted_reject(tmp_path):
    write(tmp_path, {"a.jpg": picture("JPEG"), "a.png": PNG, "a.txt": b"text"})
    sample, second = scanned(tmp_path)[0]
    assert (sample["key"], sample["image_path"], sample["reason"]) == ("a", "a.jpg", None)
    assert (second["key"], second["source"], second["reason"]) == ("a.png", "a.png", "duplicate_key")
    assert second["message"] == "a.jpg is already the image of 'a'; rename one of the two"


def test_json_beside_a_sample_is_its_metadata(tmp_path):
    write(tmp_path, {"a.txt": b"text", "a.json": b'{"year": 1999, "tags": ["x"]}', "b.txt": b"text"})
    first, second = read(tmp_path)
    assert first.metadata == {"year": 1999, "tags": ["x"]}
    assert second.metadata == {}


def test_the_folders_become_a_field_unless_the_metadata_says_otherwise(tmp_path):
    write(tmp_path, {"a/b/x.txt": b"text", "a/y.txt": b"text", "a/y.json": b'{"folder": "mine"}'})
    assert [sample.metadata for sample in read(tmp_path)] == [{"folder": "a/b"}, {"folder": "mine"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "the .json is not JSON"),
        (b"", "the .json is not JSON"),
        (b"[1]", "the .json is not an object"),
        (b'{"a": NaN}', "the .json is not JSON"),
        (b'{"a": "\xff"}', "the .json is not JSON"),
    ],
)
def test_metadata_that_is_none_is_left_out_and_noted(tmp_path, data, message):
    write(tmp_path, {"a.txt": b"text", "a.json": data, "b.txt": b"text"})
    first, second = read(tmp_path)
    assert (first.key, first.parts[TEXT].data, first.metadata) == ("a", b"text", {})
    (note,) = first.notes
    assert (note.part, note.outcome, note.reason) == ("json", Outcome.REPAIRED, Reason.BAD_METADATA)
    assert note.message.startswith(message)
    assert (second.key, second.notes) == ("b", ())


def test_a_pipe_is_a_counted_reject_and_stops_nothing(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    write(tmp_path, {"a.txt": b"text"})
    rows, _ = scanned(tmp_path)
    assert [(row["key"], row["reason"]) for row in rows] == [("a", None), ("x.jpg", "unsupported")]
    assert rows[1]["message"] == "this is a pipe, a socket or a device, not a file"


def test_metadata_without_media_is_a_reject(tmp_path):
    write(tmp_path, {"a.json": b"{}", "b.txt": b"text"})
    assert [(row["key"], row["reason"]) for row in scanned(tmp_path)[0]] == [("a", "missing_part"), ("b", None)]


def test_a_name_that_is_not_utf8_is_a_reject(tmp_path):
    write(tmp_path, {"a.txt": b"text"})
    for name in (b"caf\xe9.txt", b"x.\xff"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b"text")
    rows, ignored = scanned(tmp_path)
    assert [(row["key"], row["reason"]) for row in rows] == [("a", None), ("caf\\xe9.txt", "unsupported")]
    assert ignored == {".\\xff": 1}


@pytest.mark.parametrize("name", ["tab\t.txt", "line\nend.txt", "a#1.txt", "a%20b.txt", "[x]*?.txt", 'q".txt', " .txt"])
def test_names_with_odd_characters_are_read(tmp_path, name):
    write(tmp_path, {name: b"text"})
    (sample,) = read(tmp_path)
    assert (sample.key, sample.parts[TEXT].data) == (name.removesuffix(".txt"), b"text")


def test_links_are_followed(tmp_path):
    write(tmp_path, {"real/a.txt": b"text", "corpus/b.txt": b"text"})
    (tmp_path / "corpus" / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "corpus" / "c.txt").symlink_to(tmp_path / "real" / "a.txt")
    (tmp_path / "corpus" / "again").symlink_to(tmp_path / "corpus")
    assert [sample.key for sample in read(tmp_path / "corpus")] == ["b", "c", "folder/a"]


def test_a_link_that_leads_nowhere_is_a_reject(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    (reject,) = read(tmp_path)
    assert (reject.key, reject.reason) == ("a", Reason.SOURCE_MISSING)


def test_a_file_that_goes_after_the_plan_is_a_reject(tmp_path):
    write(tmp_path, {"a.txt": b"text", "b.txt": b"text"})
    plan = planned(tmp_path)
    (tmp_path / "a.txt").unlink()
    gone, kept = read(tmp_path, plan)
    assert (gone.id, gone.reason, gone.message) == (0, Reason.SOURCE_MISSING, "a.txt is gone since the plan was made")
    assert kept.key == "b"


def test_a_file_that_changes_after_the_plan_is_a_reject(tmp_path):
    write(tmp_path, {"a.txt": b"text", "b.txt": b"text"})
    plan = planned(tmp_path)
    (tmp_path / "b.txt").write_bytes(b"longer text")
    _, changed = read(tmp_path, plan)
    assert changed.reason is Reason.SOURCE_CHANGED
    assert changed.message == "b.txt has changed since the plan was made"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_reject(tmp_path):
    write(tmp_path, {"a.txt": b"text"})
    (tmp_path / "a.txt").chmod(0)
    (reject,) = read(tmp_path)
    assert reject.reason is Reason.SOURCE_MISSING


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_stops_the_scan(tmp_path):
    write(tmp_path, {"a.txt": b"text", "closed/b.txt": b"text"})
    (tmp_path / "closed").chmod(0)
    with pytest.raises(StorageError, match="cannot access"):
        scanned(tmp_path)
    (tmp_path / "closed").chmod(0o700)


def test_a_folder_without_media_says_what_it_has(tmp_path):
    with pytest.raises(NotFound, match="holds no image, audio or text files; it has: none"):
        scanned(tmp_path)
    write(tmp_path, {"a.pdf": b""})
    with pytest.raises(NotFound, match=r"it has: \{'.pdf': 1\}"):
        scanned(tmp_path)


def test_a_folder_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        scanned(tmp_path / "typo")


def test_the_scan_is_sorted_and_knows_the_sizes(tmp_path):
    write(tmp_path, {"b.txt": b"22", "a/z.txt": b"1", "b.json": b"{}"})
    assert [(row["key"], row["bytes"]) for row in scanned(tmp_path)[0]] == [("a/z", 1), ("b", 4)]
