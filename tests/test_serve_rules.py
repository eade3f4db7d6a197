"""The rules of the door: who may ask, how much they may bring, and what never gets out."""

import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import HERE
from made_features import clusters, make, write_features
from serving import serving
from tiny_files import picture, sound
from typer.testing import CliRunner

from mmdata.cli import app as command_line
from mmdata.config import ShardConfig
from mmdata.errors import ConfigError
from mmdata.serve.app import create_app
from mmdata.serve.kept import Kept
from mmdata.serve.limits import Access, Limits, access, read_key
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset

KEY = "correct-horse-battery"
SMALL = Limits(body=4096, body_seconds=0.5, requests=8)
VECTOR = {"index": "f", "terms": [{"vector": [1.0] * 16}], "k": 2}
SCRIPT = b"<html><script>alert(1)</script></html>"
DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Vectors, and three samples whose files are not what their names say."""
    folder = tmp_path_factory.mktemp("rules")
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "a.jpg").write_bytes(SCRIPT)
    (corpus / "b.svg").write_bytes(DRAWING)
    (corpus / "c.png").write_bytes(picture(size=(400, 300)))
    (corpus / "c.wav").write_bytes(SCRIPT)
    (corpus / "c.txt").write_text("<img src=x onerror=alert(1)>")
    (corpus / "d.wav").write_bytes(sound())
    url = str(folder / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus), validate_media=False), HERE)
    dataset = Dataset.open(url)
    write_features(dataset, "f", [clusters(300, 16)])
    make(dataset)
    return dataset


@pytest.fixture(scope="module")
def client(dataset: Dataset) -> Iterator[httpx.Client]:
    with serving(create_app(dataset, limits=SMALL)) as client:
        yield client


@pytest.fixture(scope="module")
def locked(dataset: Dataset) -> Iterator[httpx.Client]:
    with serving(create_app(dataset, Access(frozenset(["127.0.0.1", "search.example.org"]), KEY))) as client:
        yield client


@pytest.mark.parametrize("host", [".".join("0000"), "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_a_host_that_others_reach_needs_a_key(dataset: Dataset, host: str) -> None:
    done = CliRunner().invoke(command_line, ["serve", dataset.url, "--host", host])
    assert isinstance(done.exception, ConfigError)
    assert "--api-key-file" in str(done.exception)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_the_loopback_needs_no_key(host: str) -> None:
    assert access(host, None, ["Search.Example.org"]).api_key is None
    assert "search.example.org" in access(host, None, ["Search.Example.org"]).hosts


@pytest.mark.parametrize("text", ["", "short", "\n", "two words\nand a second line of it", "schlüsselschlüssel"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match="--api-key-file"):
        read_key(tmp_path / "key")


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "nothing")


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe9"])
def test_without_the_key_nothing_is_told(locked: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for path in ("/indexes", "/samples/0", "/samples/0/image", "/indexes/f/map", "/metrics", "/openapi.json", "/x"):
        answer = locked.get(path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert locked.post("/search", json=VECTOR, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "path", ["//indexes", "/INDEXES", "/page/../indexes", "/page/%2e%2e/indexes", "/indexes/", "/indexes."]
)
def test_no_spelling_of_a_path_goes_round_the_key(locked: httpx.Client, path: str) -> None:
    assert '"dim"' not in raw(locked, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")


def test_with_the_key_all_is_told_and_health_needs_none(locked: httpx.Client) -> None:
    assert locked.get("/indexes", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert locked.get("/health", headers={"Host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Host": "evil.example:8000"}, 400),
        ({"Host": ""}, 400),
        ({"Host": "["}, 400),
        ({"Origin": "http://evil.example"}, 400),
        ({"Origin": "null"}, 400),
        ({"Host": "LOCALHOST:8000"}, 200),
        ({"Host": "localhost."}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "http://localhost:8000"}, 200),
    ],
)
def test_only_names_that_were_allowed_are_answered(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert client.get("/indexes", headers=headers).status_code == status


def test_no_other_site_is_let_in(client: httpx.Client) -> None:
    asked = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
    answer = client.options("/search", headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert not [name for name in client.get("/indexes").headers if name.startswith("access-control")]


def test_a_body_is_counted_by_the_bytes_that_come(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(800):
            yield b" " * 65536

    try:
        answer = client.post("/search", content=chunks(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
    except httpx.WriteError:  # the service has hung up on 50 MB
        pass
    assert client.post("/search", content=b" " * 5000, headers={"Content-Type": "application/json"}).status_code == 413
    lying = raw(client, f"POST /search HTTP/1.1\r\n{JSON_HEAD}Content-Length: 99999999\r\n\r\n")
    assert " 413 " in lying.splitlines()[0]
    assert client.post("/search", json=VECTOR).status_code == 200


JSON_HEAD = "Host: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"


def raw(client: httpx.Client, request: str) -> str:
    """What comes back for bytes that no library would send."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as link:
        link.sendall(request.encode())
        answer = b""
        while piece := link.recv(65536):
            answer += piece
    return answer.decode("latin-1")


def test_a_body_that_does_not_come_is_not_waited_for(client: httpx.Client) -> None:
    answer = raw(client, f"POST /search HTTP/1.1\r\n{JSON_HEAD}Content-Length: 100\r\n\r\n{{")
    assert " 408 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
def test_only_json_is_read(client: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert client.post("/search", content=b"{}", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "kind", ["Application/JSON", "application/json ; charset=utf-8", "APPLICATION/JSON;charset=UTF-8"]
)
def test_json_is_json_in_any_letters(client: httpx.Client, kind: str) -> None:
    answer = client.post(
        "/search", content=httpx.Request("POST", "/", json=VECTOR).content, headers={"Content-Type": kind}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 4000, b'{"index":"f","terms":[{"vector":[NaN]}]}', b"null"]
)
def test_what_is_no_question_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert [*answer.json()] == ["error"]


@pytest.mark.parametrize("vector", [[1e300] * 16, [0.0] * 15 + [1e39]])
def test_a_number_beyond_float32_is_refused(client: httpx.Client, vector: list[float]) -> None:
    answer = client.post("/search", json={"index": "f", "terms": [{"vector": vector}]})
    assert (answer.status_code, "float32" in answer.text) == (422, True)


def test_every_answer_has_the_headers_that_protect_a_browser(client: httpx.Client) -> None:
    for answer in (client.get("/indexes"), client.get("/samples/77"), client.post("/search", content=b"")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers or answer.headers["server"] != ""


def test_bytes_never_get_a_type_that_they_have_not_earned(client: httpx.Client) -> None:
    by_key = {client.get(f"/samples/{n}").json()["key"]: n for n in range(4)}
    for url in (f"/samples/{by_key['a']}/image", f"/samples/{by_key['c']}/audio"):
        answer = client.get(url)
        assert (answer.content, answer.headers["content-type"]) == (SCRIPT, "application/octet-stream")
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    text = client.get(f"/samples/{by_key['c']}/text")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_drawing_is_only_sent_as_a_picture_of_it(client: httpx.Client) -> None:
    pytest.importorskip("resvg_py")
    for url in ("/samples/1/image", "/samples/1/image?thumbnail=32"):
        answer = client.get(url)
        assert answer.headers["content-type"] in ("image/png", "image/webp")
        assert b"script" not in answer.content
    assert client.get("/samples/1").json()["parts"]["image"]["type"] == "image/png"


def test_a_bomb_is_refused_before_it_is_decoded(dataset: Dataset) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pieces = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(60_000))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in pieces
    )
    from mmdata.media import decode
    from mmdata.types import Modality, Reason, Rejected

    with pytest.raises(Rejected) as caught:
        decode(Modality.IMAGE, data)
    assert caught.value.reason is Reason.DECODE_BOMB


def test_requests_beyond_the_limit_are_told_to_come_again(dataset: Dataset) -> None:
    with serving(create_app(dataset, limits=Limits(requests=2, body_seconds=3))) as client:
        address = client.base_url.host, client.base_url.port
        waiting = [socket.create_connection(address) for _ in range(2)]
        for link in waiting:
            link.sendall(f"POST /search HTTP/1.1\r\n{JSON_HEAD}Content-Length: 100\r\n\r\n".encode())
        answer = client.get("/indexes")
        while answer.status_code == 200:  # until both have come in
            answer = client.get("/indexes")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        for link in waiting:
            link.close()


def test_a_search_that_takes_too_long_ends(dataset: Dataset) -> None:
    with serving(create_app(dataset, limits=Limits(seconds=1e-9))) as client:
        answer = client.post("/search", json=VECTOR)
        assert (answer.status_code, "too long" in answer.json()["error"]) == (504, True)


def test_a_full_queue_says_so(dataset: Dataset) -> None:
    with serving(create_app(dataset, limits=Limits(waiting=0))) as client:
        answer = client.post("/search", json=VECTOR)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_kept_bytes_are_bounded() -> None:
    kept, made = Kept(100, makers=1), []

    def make_one(number: int) -> bytes:
        made.append(number)
        return bytes(40)

    for number in (0, 1, 0, 2, 0, 1):
        assert kept.get(number, lambda number=number: make_one(number)) == bytes(40)
    assert made == [0, 1, 2, 1]
    assert kept.get("large", lambda: bytes(1000)) == bytes(1000)


def test_what_is_kept_waits_for_nothing_that_is_being_made() -> None:
    kept, go, begun = Kept(100, makers=1), threading.Event(), threading.Event()
    kept.get("there", lambda: b"there")

    def slowly() -> bytes:
        begun.set()
        assert go.wait(20)
        return b"slow"

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(kept.get, "slow", slowly)
        assert begun.wait(20)
        behind = pool.submit(kept.get, "slow", lambda: b"made twice")
        assert kept.get("there", lambda: b"made again") == b"there"
        go.set()
        assert (slow.result(), behind.result()) == (b"slow", b"slow")


def test_damaged_media_never_end_as_if_they_were_whole(dataset: Dataset, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(dataset.url, tmp_path / "copy")
    tar = tmp_path / "copy/shards/000000.tar"
    data = bytearray(tar.read_bytes())
    place = data.find(b"RIFF") + 200
    data[place] ^= 1
    tar.write_bytes(data)
    with serving(create_app(Dataset.open(str(tmp_path / "copy")))) as client:
        with pytest.raises(httpx.HTTPError):
            client.get("/samples/3/audio")
        assert client.get("/health").status_code == 200


def test_the_page_is_a_closed_list_of_files(client: httpx.Client) -> None:
    for name in ("__init__.py", "..%2fapp.py", "%2e%2e/app.py", "nothing.js", "index.html%00"):
        assert client.get(f"/page/{name}").status_code == 404
    plotly = client.get("/vendor/plotly.min.js")
    assert plotly.headers["content-type"] == "text/javascript; charset=utf-8"
    assert b"plotly.js v" in plotly.content[:200]
    assert client.get("/docs").status_code == 404


def test_one_bad_question_does_not_spoil_those_beside_it(client: httpx.Client) -> None:
    good = [{"index": "f", "terms": [{"vector": row}], "k": 2} for row in np.eye(16).tolist()]
    bad = {"index": "f", "terms": [{"vector": [1.0]}], "k": 2}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda body: client.post("/search", json=body).status_code, [*good, bad] * 4))
    assert answers == ([200] * 16 + [422]) * 4
