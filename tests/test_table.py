"""A table: csv, tsv, jsonl or Parquet whose columns hold paths, bytes, the HF struct, or text."""

import os

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_files import picture, sound

from mmdata.corpora import kind_of, open_corpus
from mmdata.errors import ConfigError, Damage, NotFound
from mmdata.types import Modality, Reason, Reject, Sample

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
PNG, WAV, JPG = picture(), sound(), picture("JPEG")


def scanned(source, **columns: str):
    table, ignored = open_corpus(str(source), "table", columns).scan()
    return table.to_pylist(), ignored


def planned(source, **columns: str) -> pa.Table:
    table, _ = open_corpus(str(source), "table", columns).scan()
    return table.add_column(0, "id", pa.array(range(table.num_rows)))


def read(source, plan: pa.Table | None = None, **columns: str) -> list[Sample | Reject]:
    corpus = open_corpus(str(source), "table", columns)
    return list(corpus.read(planned(source, **columns) if plan is None else plan))


def texts(source, **columns: str) -> list[tuple[str, str]]:
    return [(sample.key, sample.parts[TEXT].data.decode()) for sample in read(source, **columns)]


def parquet(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return path


def text_file(path, content: str | bytes):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


TABLES = {
    "csv": ("a.csv", "key,caption,year\n007,one,1999\nb,two,\n"),
    "csv with a byte order mark": ("a.csv", b"\xef\xbb\xbfkey,caption,year\n007,one,1999\nb,two,\n"),
    "csv with a suffix in capitals": ("A.CSV", "key,caption,year\n007,one,1999\nb,two,\n"),
    "csv with quotes": ("a.csv", '"key","caption","year"\r\n"007","one",1999\r\n"b","two",\r\n'),
    "tsv": ("a.tsv", "key\tcaption\tyear\n007\tone\t1999\nb\ttwo\t\n"),
    "jsonl": ("a.jsonl", '{"key":"007","caption":"one","year":1999}\n{"key":"b","caption":"two"}\n'),
    "jsonl with a byte order mark and blank lines": (
        "a.jsonl",
        b'\xef\xbb\xbf{"key":"007","caption":"one","year":1999}\r\n\n{"key":"b","caption":"two","year":null}',
    ),
}


@pytest.mark.parametrize(("name", "content"), TABLES.values(), ids=TABLES.keys())
def test_every_text_table_gives_the_same_samples(tmp_path, name, content):
    first, second = read(text_file(tmp_path / name, content))
    assert (first.key, first.parts[TEXT].data, first.metadata) == ("007", b"one", {"year": 1999})
    assert (second.key, second.parts[TEXT].data, second.metadata) == ("b", b"two", {})
    assert (first.source, second.source) == (f"{name}:0:0", f"{name}:0:1")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_strings_of_any_kind_are_texts(tmp_path, kind):
    columns = {"key": ["007", "b"], "caption": pa.array(["one", "two"]).cast(kind), "year": [1999, None]}
    first, second = read(parquet(tmp_path / "a.parquet", columns))
    assert (first.key, first.parts[TEXT].data, first.metadata) == ("007", b"one", {"year": 1999})
    assert (second.key, second.parts[TEXT].data, second.metadata) == ("b", b"two", {})


@pytest.mark.parametrize("text", ["007", "1.50", "1e5", "NULL", "NA", "nan", "true", "2020-01-01", "12:30"])
def test_texts_and_keys_that_look_like_something_else_stay_as_they_are(tmp_path, text):
    assert texts(text_file(tmp_path / "a.csv", f"key,text\n{text},{text}\n")) == [(text, text)]
    record = orjson.dumps({"key": text, "text": text})
    assert texts(text_file(tmp_path / "a.jsonl", record)) == [(text, text)]


def test_a_csv_text_may_hold_commas_quotes_and_line_ends(tmp_path):
    source = text_file(tmp_path / "a.csv", 'key,text\na,"one, ""two""\nthree"\nb,four\n')
    assert texts(source) == [("a", 'one, "two"\nthree'), ("b", "four")]
    odd = text_file(tmp_path / "b.csv", 'key,text\r\na,a 5" disk\r\nb,"all ""of\r\nit"""\r\nc,"so" he said')
    assert texts(odd) == [("a", 'a 5" disk'), ("b", 'all "of\r\nit"'), ("c", "so he said")]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_huge_text_is_one_cell(tmp_path, name):
    huge = "word " * 600_000
    content = {
        "a.csv": f"key,text\na,{huge}\nb,two\n",
        "a.jsonl": '{"key":"a","text":"' + huge + '"}\n{"key":"b","text":"two"}',
        "a.parquet": b"",
    }[name]
    source = text_file(tmp_path / name, content)
    if name == "a.parquet":
        parquet(source, {"key": ["a", "b"], "text": [huge, "two"]})
    assert texts(source) == [("a", huge), ("b", "two")]


def test_jsonl_fields_may_change_their_type(tmp_path):
    lines = '{"key":1,"text":"one","x":1}\n{"key":"b","text":"two","x":"two"}\n{"key":"c","text":3,"x":{"y":[]}}'
    first, second, third = read(text_file(tmp_path / "a.jsonl", lines))
    assert (first.key, second.key, third.key) == ("1", "b", "c")
    assert [s.parts[TEXT].data for s in (first, second, third)] == [b"one", b"two", b"3"]
    assert [s.metadata for s in (first, second, third)] == [{"x": 1}, {"x": "two"}, {"x": {"y": []}}]


def test_a_row_with_a_list_of_texts_is_a_reject(tmp_path):
    lines = '{"key":"a","text":["one","two"]}\n{"key":"b","text":"three"}'
    bad, good = open_corpus(str(text_file(tmp_path / "a.jsonl", lines)), "table", {}).scan()[0].to_pylist()
    assert (bad["key"], bad["reason"]) == ("a", Reason.BAD_TEXT)
    assert bad["message"] == 'the text is ["one","two"]; a sample has one text: one row for each'
    assert (good["reason"], good["text"]) == (None, "three")


def test_a_device_in_a_table_is_a_reject(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (bad,) = read(text_file(tmp_path / "a.jsonl", '{"image":"pipe.png"}'))
    assert (bad.reason, bad.message) == (Reason.UNSUPPORTED, "pipe.png is not a file")


def test_a_table_looks_at_its_own_folder_alone(tmp_path):
    below = tmp_path / "below"
    below.mkdir()
    text_file(below / "a.csv", "key,text\nb,no\n")
    (sample,) = read(text_file(tmp_path / "a.csv", "key,text\na,yes\n"))
    assert sample.key == "a"


def test_paths_are_relative_to_the_table_or_full(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.PNG").write_bytes(PNG)
    (tmp_path / "a.wav").write_bytes(WAV)
    source = text_file(tmp_path / "a.csv", f"key,image,audio\na,pictures/../pictures/a.PNG,{tmp_path}/a.wav\n")
    (sample,) = read(source)
    assert {m: (p.suffix, p.data) for m, p in sample.parts.items()} == {IMAGE: ("png", PNG), AUDIO: ("wav", WAV)}


def test_a_path_that_leads_outside_of_the_tables_folder_is_followed_only_when_that_is_asked(tmp_path):
    (tmp_path / "private.png").write_bytes(PNG)
    (tmp_path / "in").mkdir()
    paths = ["../private.png", f"{tmp_path}/private.png", f"{tmp_path}/in/../private.png"]
    source = text_file(tmp_path / "in" / "a.csv", "key,image\n" + "".join(f"{n},{p}\n" for n, p in enumerate(paths)))
    rows, _ = scanned(source)
    assert [row["reason"] for row in rows] == ["outside"] * 3
    assert rows[0]["message"] == "../private.png is not below the table's folder; --outside if you trust the table"
    corpus = open_corpus(str(source), "table", {}, outside=True)
    table, _ = corpus.scan()
    found = corpus.read(table.add_column(0, "id", pa.array(range(3), pa.int64())))
    assert [sample.parts[IMAGE].data for sample in found] == [PNG] * 3


def test_a_missing_file_rejects_its_row_alone(tmp_path):
    (tmp_path / "b.png").write_bytes(PNG)
    gone, kept = read(text_file(tmp_path / "a.csv", "key,image,text\na,a.png,one\nb,b.png,two\n"))
    assert (gone.key, gone.reason, gone.message) == ("a", Reason.SOURCE_MISSING, "a.png does not exist")
    assert sorted(kept.parts) == [IMAGE, TEXT]


@pytest.mark.parametrize("path", ["https://example.org/a.png", "s3://bucket/a.png", "ftp://x/a.png"])
def test_a_path_into_another_store_is_never_fetched(tmp_path, path):
    (reject,) = read(text_file(tmp_path / "a.csv", f"key,image\na,{path}\n"))
    assert (reject.reason, reject.message) == (
        Reason.UNSUPPORTED,
        f"{path} is not in the store of its table; references are not fetched",
    )


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_empty_cell_is_no_part(tmp_path, name):
    (tmp_path / "b.png").write_bytes(PNG)
    content = {
        "a.csv": "key,image,text\na,,one\nb,b.png,\n",
        "a.jsonl": '{"key":"a","image":null,"text":"one"}\n{"key":"b","image":"b.png"}',
    }[name]
    first, second = read(text_file(tmp_path / name, content))
    assert {m: p.data for m, p in first.parts.items()} == {TEXT: b"one"}
    assert {m: p.data for m, p in second.parts.items()} == {IMAGE: PNG}


def test_an_image_cell_that_is_no_path_rejects_its_row_alone(tmp_path):
    rows, _ = scanned(text_file(tmp_path / "a.jsonl", '{"key":"a","image":5}\n{"key":"b","image":"b.png"}'))
    assert [(row["key"], row["reason"]) for row in rows] == [("a", "unsupported"), ("b", None)]
    assert rows[0]["message"] == "the image is 5, which is no path"


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_bytes_are_parts_of_the_kind_their_first_bytes_say(tmp_path, kind):
    columns = {"image": pa.array([PNG, JPG, None], kind), "audio": pa.array([WAV, None, WAV], kind)}
    samples = read(parquet(tmp_path / "a.parquet", columns))
    assert [{m: (p.suffix, p.data) for m, p in s.parts.items()} for s in samples] == [
        {IMAGE: ("png", PNG), AUDIO: ("wav", WAV)},
        {IMAGE: ("jpg", JPG)},
        {AUDIO: ("wav", WAV)},
    ]


def test_the_struct_of_hugging_face_holds_bytes_or_a_path(tmp_path):
    (tmp_path / "b.png").write_bytes(PNG)
    cells = [{"bytes": JPG, "path": "x.jpeg"}, {"bytes": None, "path": "b.png"}, {"bytes": PNG, "path": None}, None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    source = parquet(tmp_path / "a.parquet", {"image": pa.array(cells, kind), "text": ["1", "2", "3", "4"]})
    samples = read(source)
    assert [(p.suffix, p.data) for s in samples[:3] for m, p in s.parts.items() if m is IMAGE] == [
        ("jpeg", JPG),
        ("png", PNG),
        ("png", PNG),
    ]
    assert list(samples[3].parts) == [TEXT]


def test_bytes_of_no_known_kind_reject_their_row_alone(tmp_path):
    unknown, kept = read(parquet(tmp_path / "a.parquet", {"image": [b"what is this", PNG]}))
    assert unknown.reason is Reason.UNSUPPORTED
    assert kept.parts[IMAGE].data == PNG


def test_row_groups_are_read_one_by_one(tmp_path):
    columns = {"image": [PNG, JPG, PNG, JPG, PNG], "text": list("abcde")}
    source = parquet(tmp_path / "a.parquet", columns, row_group_size=2)
    plan = planned(source)
    backwards = plan.take(list(reversed(range(5))))
    assert plan["row_group"].to_pylist() == [0, 0, 1, 1, 2]
    assert [s.parts[IMAGE].data for s in read(source, backwards)] == [PNG, JPG, PNG, JPG, PNG]
    assert [s.parts[TEXT].data for s in read(source, backwards)] == [b"e", b"d", b"c", b"b", b"a"]


def test_rows_without_a_key_are_numbered_by_file_row_group_and_row(tmp_path):
    for name in ("part-0.parquet", "part-1.parquet"):
        parquet(tmp_path / name, {"text": ["a", "b", "c"]}, row_group_size=2)
    assert [key for key, _ in texts(tmp_path / "part-*.parquet")] == [
        "part-0/000000000",
        "part-0/000000001",
        "part-0/001000000",
        "part-1/000000000",
        "part-1/000000001",
        "part-1/001000000",
    ]
    assert [key for key, _ in texts(tmp_path / "part-1.parquet")] == ["000000000", "000000001", "001000000"]


def test_a_null_key_is_numbered_and_the_others_are_kept(tmp_path):
    assert texts(text_file(tmp_path / "a.csv", "key,text\nx,one\n,two\n")) == [("x", "one"), ("000000001", "two")]


def test_a_pattern_takes_no_tables_of_subfolders(tmp_path):
    (tmp_path / "sub").mkdir()
    parquet(tmp_path / "a.parquet", {"text": ["one"]})
    parquet(tmp_path / "sub" / "b.parquet", {"text": ["two"]})
    assert texts(tmp_path / "*.parquet") == [("000000000", "one")]


def test_a_key_that_comes_twice_is_a_counted_reject(tmp_path):
    rows, _ = scanned(text_file(tmp_path / "a.csv", "key,text\nx,one\nx,two\nX,three\n"))
    assert [(row["key"], row["reason"]) for row in rows] == [("x", None), ("x", "duplicate_key"), ("X", None)]
    assert rows[1]["message"] == "the key is taken by a.csv:0:0"


def test_columns_are_those_asked_for(tmp_path):
    source = text_file(tmp_path / "a.csv", "name,german,text\nx,eins,one\n")
    (sample,) = read(source, key="name", text="german")
    assert (sample.key, sample.parts[TEXT].data, sample.metadata) == ("x", b"eins", {"text": "one"})


def test_a_column_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    source = text_file(tmp_path / "a.csv", "name,caption\nx,one\n")
    with pytest.raises(ConfigError, match=r"no column 'captoin' for the text; did you mean 'caption'\?"):
        scanned(source, text="captoin")


def test_a_table_without_media_names_its_columns_and_the_flags(tmp_path):
    source = text_file(tmp_path / "a.csv", "x,y\n1,2\n")
    with pytest.raises(ConfigError, match=r"no column of x, y looks like .* --image-column"):
        scanned(source)


def test_a_text_column_of_bytes_is_refused(tmp_path):
    source = parquet(tmp_path / "a.parquet", {"text": [b"one"], "image": [PNG]})
    with pytest.raises(ConfigError, match="column 'text' holds bytes; the text must be a column of strings"):
        scanned(source, text="text")


def test_bytes_that_are_part_of_nothing_are_counted(tmp_path):
    source = parquet(tmp_path / "a.parquet", {"text": ["one", "two"], "thumbnail": [PNG, PNG]})
    assert scanned(source)[1] == {"column thumbnail (bytes)": 2}


def test_a_column_of_paths_that_nothing_takes_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("path,caption,voice,url\nx.jpg,one,a.wav,http://h/x.jpg\ny.PNG,two,,\n")
    assert scanned(tmp_path / "a.csv")[1] == {
        "column path (paths? --image-column path)": 2,
        "column voice (paths? --audio-column voice)": 1,
    }
    assert scanned(tmp_path / "a.csv", image="path", audio="voice")[1] == {}


def test_a_table_that_changes_after_the_plan_rejects_its_rows(tmp_path):
    source = text_file(tmp_path / "a.csv", "key,text\na,one\nb,two\n")
    plan = planned(source)
    source.write_text("key,text\na,1\nb,2\nc,3\n")
    assert [(r.key, r.reason) for r in read(source, plan)] == [
        ("a", Reason.SOURCE_CHANGED),
        ("b", Reason.SOURCE_CHANGED),
    ]


BROKEN = {
    "csv with a row too long": ("a.csv", "key,text\na,one\nb,two,three\n", "Expected 2 columns, got 3"),
    "csv in latin-1": ("a.csv", "key,text\na,gro\xdfer\n".encode("latin-1"), "line 2 is not UTF-8"),
    "csv with an open quote": ("a.csv", 'key,text\na,"one"\nb,"two\nc,three\n', "line 3 opens a quote that its cell"),
    "csv with two open quotes": ("a.csv", 'key,text\na,"one\nb,"two\nc,three\n', "line 2 opens a quote that its cell"),
    "tsv with an open quote": ("a.tsv", 'key\ttext\r\na\t"one\r\nb\ttwo\r\n', "line 2 opens a quote that its cell"),
    "jsonl with a broken line": ("a.jsonl", '{"text":"one"}\n\n{"text":\n', "line 3 is not JSON"),
    "jsonl with a list": ("a.jsonl", '{"text":"one"}\n[1]\n', "line 2 is not a JSON object"),
    "not Parquet": ("a.parquet", "key,text\n", "is not a Parquet file"),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_table_that_cannot_be_read_says_where(tmp_path, name, content, message):
    with pytest.raises(ConfigError, match=rf"(?s){tmp_path}/{name}.*{message}"):
        scanned(text_file(tmp_path / name, content))


@pytest.mark.parametrize(("name", "content"), [("a.csv", "key,text\n"), ("a.jsonl", ""), ("a.jsonl", "\n\n")])
def test_a_table_without_rows_is_not_found(tmp_path, name, content):
    with pytest.raises(NotFound, match="has no rows"):
        scanned(text_file(tmp_path / name, content))


def test_a_damaged_row_group_is_named(tmp_path):
    source = parquet(tmp_path / "a.parquet", {"text": ["one"] * 100, "image": [PNG] * 100}, compression="none")
    data = source.read_bytes()
    source.write_bytes(data[:4] + bytes(40) + data[44:])
    with pytest.raises(Damage, match=rf"{source}: row group 0 is damaged"):
        scanned(source)


def test_no_table_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=rf"no table matches {tmp_path}/\*\.csv"):
        scanned(tmp_path / "*.csv")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("photos/", "folder"),
        ("s3://bucket/photos", "folder"),
        ("a.v2/photos", "folder"),
        ("a.csv", "table"),
        ("A.JSONL", "table"),
        ("x/part-*.parquet", "table"),
        ("a.tsv", "table"),
        ("s3://bucket/train-*.tar", "webdataset"),
    ],
)
def test_the_kind_of_a_source_is_told_by_its_name(source, kind):
    assert kind_of(source) == kind


@pytest.mark.parametrize("name", ["x.tar.gz", "p.pkl"])
def test_a_file_of_no_kind_names_the_kinds_of_sources(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"{name} is a file; a SOURCE is a folder, a table .* or uncompressed tars"):
        kind_of(str(text_file(tmp_path / name, "x")))


def test_an_unknown_kind_names_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no corpus kind 'zip'; there are: folder, table, webdataset"):
        open_corpus(str(tmp_path), "zip", {})


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_table_that_is_not_utf8_says_which_line_and_what_to_do(tmp_path, name):
    rows = {
        "t.csv": "text,note\none,a\ntwo,caf\xe9\n",
        "t.tsv": "text\tnote\none\ta\ntwo\tcaf\xe9\n",
        "t.jsonl": '{"text": "one"}\n{"text": "a"}\n{"text": "caf\xe9"}\n',
    }
    (tmp_path / name).write_bytes(rows[name].encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"{name}: line 3 is not (UTF-8|JSON)"):
        open_corpus(str(tmp_path / name), "table", {}).scan()


def test_strings_of_parquet_that_are_not_utf8_are_damage_that_names_the_row_group(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")])
    pq.write_table(pa.table({"text": ["one"], "note": bad}), tmp_path / "t.parquet")
    with pytest.raises(Damage, match=r"t\.parquet: row group 0 is damaged"):
        open_corpus(str(tmp_path / "t.parquet"), "table", {}).scan()


def test_a_reference_that_is_a_command_is_unsupported_and_not_a_file_that_is_missing(tmp_path):
    (row,) = read(text_file(tmp_path / "a.jsonl", '{"key": "a", "image": "pipe:cat a.png"}\n'))
    assert (row.reason, "is a command" in row.message) == (Reason.UNSUPPORTED, True)
