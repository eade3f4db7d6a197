"""Data is data: nothing that comes in is run, and nothing that it names is read."""

import ast
import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_files import png_that_says
from tiny_files import RED, picture

from mmdata.cluster import Resources
from mmdata.config import ShardConfig, load
from mmdata.errors import ConfigError
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.types import Reason

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "makes code of text",
    "pickle.load": "a pickle runs code",
    "pickle.loads": "a pickle runs code",
    "marshal.loads": "code from data",
    "shelve.open": "a pickle runs code",
    "joblib.load": "a pickle runs code",
    "os.system": "a shell",
    "os.popen": "a shell",
    "subprocess.getoutput": "a shell",
    "yaml.load": "tags of YAML make objects",
    "yaml.unsafe_load": "tags of YAML make objects",
}
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now", "date.today"}
CANARY = "canary of a file that nobody gave us"


def calls(*folders: str):
    """Every call in the Python files of some folders: where, its dotted name, its keyword arguments as source."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), keywords


def dangers() -> list[str]:
    found = []
    for where, name, keywords in calls("mmdata", "pipelines", "configs", "benchmarks"):
        bad = FORBIDDEN.get(name)
        if name == "torch.load" and keywords.get("weights_only") != "True":
            bad = "torch.load without weights_only=True"
        if keywords.get("shell") == "True" or keywords.get("allow_pickle") == "True":
            bad = "a shell or a pickle"
        if "trust_remote_code" in keywords and keywords["trust_remote_code"] != "False":
            bad = "code from a model hub"
        found += [f"{where} {bad}"] if bad else []
    return found


def test_no_line_of_ours_can_run_code_from_data():
    assert dangers() == []


def test_the_search_for_such_lines_finds_them(tmp_path, monkeypatch):
    (tmp_path / "mmdata").mkdir()
    lines = ("pickle.load(x)", "torch.load(x)", "yaml.load(x)", "f(x, shell=True)", "eval(x)", "torch.nn.eval()")
    (tmp_path / "mmdata/a.py").write_text("\n".join(lines))
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert [found.split()[0] for found in dangers()] == [f"mmdata/a.py:{line}" for line in range(1, 6)]


def test_no_decision_looks_at_the_clock():
    """What counts comes from content and counters; elapsed time is measured by clocks that cannot jump."""
    rooms = ("mmdata/storage", "mmdata/stages", "mmdata/retrieval", "mmdata/corpora", "mmdata/fusion")
    assert [where for where, name, _ in calls(*rooms) if name in CLOCKS] == []


def _touch(path):
    Path(path).touch()


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return _touch, (self.path,)


def hostile_tar(secret: Path, ran: Path) -> bytes:
    """A sample beside pickles, members that lead outside and a link to a secret."""
    sink = io.BytesIO()
    attack = pickle.dumps(Exploit(ran))
    objects = io.BytesIO()
    np.save(objects, np.array([Exploit(ran)], dtype=object), allow_pickle=True)
    with tarfile.open(fileobj=sink, mode="w") as archive:
        members = {"good.png": picture(), "good.txt": b"a ball", "good.pyd": attack, "good.pkl": attack}
        members |= {
            "good.pth": attack,
            "good.npy": objects.getvalue(),
            "../outside.png": picture(),
            "/abs.png": picture(),
        }
        members |= {"/abs.png": picture(), "bomb.png": png_that_says(60_000, 60_000)}
        members |= {"named.png": f"file://{secret}".encode()}
        members |= {"piped.wav": f"pipe:touch {ran}".encode(), "drawn.svg": svg(secret), "list.wav": playlist(secret)}
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in (("link.txt", tarfile.SYMTYPE), ("hard.txt", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    return sink.getvalue()


def svg(secret: Path) -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}" width="4" height="3"/></svg>'.encode()


def playlist(secret: Path) -> bytes:
    return f"#EXTM3U\n#EXTINF:9,\nfile://{secret}\n".encode()


opened: list[str] = []
sys.addaudithook(lambda event, given: opened.append(os.fsdecode(given[0])) if _is_path(event, given) else None)


def _is_path(event, given) -> bool:
    return event == "open" and isinstance(given[0], str | bytes)


def opened_below(folder: Path) -> list[str]:
    return [path for path in opened if path.startswith(str(folder))]


def contents(dataset: Dataset) -> bytes:
    return b"".join(dataset.store.read(info.path) for info in dataset.store.list())


def sharded(source: Path, url: Path) -> Dataset:
    shard(ShardConfig(dataset=str(url), source=str(source), max_reject_rate=1.0), Resources(workers=0))
    return Dataset.open(str(url))


def test_a_hostile_corpus_runs_nothing_and_reads_nothing_outside(tmp_path):
    secret, ran = tmp_path / "private" / "secret.txt", tmp_path / "ran"
    secret.parent.mkdir()
    secret.write_text(CANARY)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(hostile_tar(secret, ran))
    opened.clear()
    made = sharded(tmp_path / "in" / "a.tar", tmp_path / "data")
    assert opened_below(tmp_path / "in") != []  # the hook sees what is read
    assert opened_below(secret.parent) == []
    assert not ran.exists()
    assert CANARY.encode() not in contents(made)
    receipt = next(iter(read_receipts(made.store, "shards").values()))
    reasons = {reject.key: reject.reason for reject in read_rejects(made.store, "shards")}
    assert reasons == {
        "bomb": Reason.DECODE_BOMB,
        "named": Reason.UNSUPPORTED,
        "piped": Reason.UNSUPPORTED,
        "drawn": Reason.UNSUPPORTED,
        "list": Reason.UNSUPPORTED,
        "link": Reason.UNSUPPORTED,
        "hard": Reason.UNSUPPORTED,
    }
    assert receipt.rows_out == 3  # good, and two whose names lead outside: names are keys, no file has them
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("in", "private", "data")] == []


REFERENCES = [
    "{secret}",
    "../private/secret.png",
    "pictures/../../private/secret.png",
    "file://{secret}",
    "pipe:touch {ran}",
    "pipe:cat {secret}",
    "http://127.0.0.1:1/a.png",
    "s3://bucket/a.png",
    "|touch {ran}",
    "$(touch {ran})",
    "\\\\host\\share\\a.png",
    "data:image/png;base64,AAAA",
]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "parquet of structs"])
def test_a_hostile_table_leads_to_nothing_outside_of_its_folder(tmp_path, kind):
    secret, ran = tmp_path / "private" / "secret.png", tmp_path / "ran"
    secret.parent.mkdir()
    secret.write_bytes(picture(colour=RED))
    paths = [reference.format(secret=secret, ran=ran) for reference in REFERENCES]
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / f"a.{kind.split()[0]}"
    if kind == "jsonl":
        source.write_bytes(b"\n".join(orjson.dumps({"image": path}) for path in paths))
    elif kind == "csv":
        source.write_text("image,n\n" + "".join(f'"{path}",{n}\n' for n, path in enumerate(paths)))
    else:
        cells = [{"bytes": None, "path": path} for path in paths] if "structs" in kind else paths
        pq.write_table(pa.table({"image": cells}), source)
    opened.clear()
    made = sharded(source, tmp_path / "data")
    assert opened_below(secret.parent) == []
    assert not ran.exists()
    rejects = read_rejects(made.store, "shards")
    assert len(rejects) == len(paths)
    assert {reject.reason for reject in rejects} == {Reason.OUTSIDE, Reason.UNSUPPORTED, Reason.SOURCE_MISSING}
    assert [reject.reason for reject in rejects[:3]] == [Reason.OUTSIDE] * 3


BILLION = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CONFIGS = {
    "a billion of laughs": (BILLION + "modalities: [*i]", "values once its aliases are written out"),
    "a list that holds itself": ("modalities: &a [*a]", "values once its aliases are written out"),
    "lists within lists": ("a: " + "[" * 5000, "cannot be read as YAML"),
    "a command": ("!!python/object/apply:os.system ['touch RAN']", "cannot be read as YAML"),
    "a module": ("source: !!python/module:os", "cannot be read as YAML"),
    "a target": ("_target_: os.system\ncommand: touch RAN", "unknown key '_target_'"),
}


@pytest.mark.parametrize(("text", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_hostile_config_makes_nothing_and_takes_no_memory(tmp_path, text, message):
    ran = tmp_path / "ran"
    (tmp_path / "a.yaml").write_text(text.replace("RAN", str(ran)))
    with pytest.raises(ConfigError, match=message):
        load(ShardConfig, str(tmp_path / "a.yaml"))
    assert not ran.exists()
