"""The service as its contract has it: indexes, search, samples, media and the map, over real HTTP."""

import base64
import errno
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from conftest import HERE
from made_features import clusters, make, write_features, write_shard
from PIL import Image
from serving import serving
from tiny_files import picture

from mmdata.config import IndexConfig, ShardConfig
from mmdata.retrieval.ask import Narrowed, Query, ask
from mmdata.serve.app import create_app
from mmdata.serve.shelf import Shelf
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.types import Modality

CLOSE = 1e-5  # of a score: several queries at once are multiplied in another order


@pytest.fixture(scope="module")
def client(built: Dataset) -> Iterator[httpx.Client]:
    with serving(create_app(built)) as client:
        yield client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """2,000 vectors of 16 numbers and no shards."""
    dataset = Dataset.create(str(tmp_path_factory.mktemp("made") / "dataset"))
    write_features(dataset, "f", np.split(clusters(2000, 16), 4))
    make(dataset, kind="ivf-flat")
    return dataset


def search(client: httpx.Client, index: object, *terms: dict[str, object], **more: object) -> list[dict]:
    answer = client.post("/search", json={"index": index, "terms": terms, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["answers"]


def test_the_list_of_indexes_tells_who_can_ask_and_what_can_be_filtered(client: httpx.Client, built: Dataset) -> None:
    found = {about["name"]: about for about in client.get("/indexes").json()}
    assert sorted(found) == ["efficientnet-lite0", "minilm", "pictures.image"]
    about = found["pictures.image"]
    assert about["queries"] == ["image", "text"]
    dim = Features(built, "pictures.image").card.dim
    assert (about["modality"], about["dim"], about["rows"], about["kind"]) == ("image", dim, 60, "flat")
    assert about["recall"]["image"]["10"] == 1.0
    fields = {field["name"]: field for field in about["fields"]}
    assert fields["count"] == {
        "name": "count",
        "type": "number",
        "values": fields["count"]["values"],
        "min": 1,
        "max": 4,
    }
    assert set(fields["folder"]["values"]) == {"circle", "cross", "ring", "square", "star", "triangle"}


def test_a_text_finds_what_the_library_finds(client: httpx.Client, built: Dataset) -> None:
    (answer,) = search(client, "pictures.image", {"text": "a red circle"}, k=5)
    (expected,) = ask(built, ["pictures.image"], Query.of(text="a red circle"), Narrowed(5))[0].hits
    assert [hit["key"] for hit in answer["hits"]] == [hit.key for hit in expected]
    assert answer["hits"][0]["score"] == pytest.approx(expected[0].score, abs=CLOSE)
    assert answer["hits"][0]["metadata"] == expected[0].metadata
    assert answer["hits"][0]["media"] == f"/samples/{expected[0].id}/image?key={quote(expected[0].key, safe='')}"
    assert client.get(answer["hits"][0]["media"]).status_code == 200


def test_an_uploaded_picture_finds_itself(client: httpx.Client, corpus: Path) -> None:
    path = sorted(corpus.rglob("*.png"))[11]
    picture = base64.b64encode(path.read_bytes()).decode()
    (answer,) = search(client, "efficientnet-lite0", {"image": picture}, k=1)
    assert answer["hits"][0]["key"] == str(path.relative_to(corpus).with_suffix(""))


def test_several_indexes_answer_at_once_each_in_its_place(client: httpx.Client) -> None:
    answers = search(client, ["minilm", "pictures.image"], {"text": "two stars"}, k=2)
    assert [(answer["index"], answer["modality"], len(answer["hits"])) for answer in answers] == [
        ("minilm", "text", 2),
        ("pictures.image", "image", 2),
    ]


def test_terms_are_added_up_and_a_negative_one_pushes_away(client: httpx.Client) -> None:
    (alone,) = search(client, "minilm", {"text": "a red circle"}, k=60)
    (pushed,) = search(client, "minilm", {"text": "a red circle"}, {"key": alone["hits"][0]["key"], "weight": -1}, k=60)
    assert pushed["hits"][0]["key"] != alone["hits"][0]["key"]
    assert pushed["hits"][-1]["score"] < 0


def test_filters_are_typed_and_limits_hold(client: httpx.Client) -> None:
    where = [{"field": "count", "op": ">=", "value": 3}, {"field": "folder", "value": "star"}]
    (answer,) = search(client, "minilm", {"text": "stars"}, k=50, where=where)
    assert answer["hits"]
    assert all(hit["metadata"]["count"] >= 3 and hit["metadata"]["folder"] == "star" for hit in answer["hits"])
    bar = answer["hits"][1]["score"]
    (above,) = search(client, "minilm", {"text": "stars"}, k=50, where=where, at_least=bar)
    assert len(above["hits"]) == 2
    (folded,) = search(client, "minilm", {"text": "stars"}, k=5, fold="duplicates")
    assert len(folded["hits"]) == 5


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"index": "none", "terms": [{"text": "a"}]}, 404, "there is no index 'none'; there are: efficientnet-lite0"),
        ({"index": "efficientnet-lite0", "terms": [{"text": "a"}]}, 409, "nothing takes text into its space"),
        ({"index": "minilm", "terms": [{"key": "nobody"}]}, 404, "no sample 'nobody'"),
        ({"index": "minilm", "terms": [{"text": "a"}], "k": 0}, 422, "k: Input should be greater than"),
        ({"index": "minilm", "terms": [{"text": "a"}], "k": 10**6}, 422, "1000 hits at most"),
        ({"index": "minilm", "terms": [{"text": "a"}] * 17}, 422, "at most 16"),
        ({"index": "minilm", "terms": [{"text": "a", "key": "b"}]}, 422, "exactly one of"),
        ({"index": "minilm", "terms": [{"vector": [1.0, 2.0]}]}, 422, "takes 384"),
        ({"index": "efficientnet-lite0", "terms": [{"image": "%%%%"}]}, 422, "image: String should match"),
        ({"index": "efficientnet-lite0", "terms": [{"image": "AAAAA"}]}, 422, "not base64"),
        ({"index": "efficientnet-lite0", "terms": [{"image": "AAAA"}]}, 422, "cannot be used"),
        ({"index": "minilm", "terms": [{"image": "http://127.0.0.1/cat.jpg"}]}, 422, "image: String"),
        ({"index": "minilm", "terms": [{"image_url": "http://127.0.0.1/cat.jpg"}]}, 422, "exactly one of"),
        ({"index": "minilm", "terms": [{"text": "a"}], "where": [{"field": "colr", "value": "red"}]}, 422, "'colour'"),
        ({"index": "minilm", "terms": [{"text": "a"}], "where": [{"field": "count", "value": "x"}]}, 422, "is int64"),
        ({"index": "minilm", "terms": [{"text": "a"}], "where": [{"field": "x", "value": 1}]}, 422, "where 'x=1': no"),
        ({"index": "minilm", "terms": [{"image": "AAAA"}]}, 409, "image queries cannot be compared with 'minilm'"),
    ],
)
def test_an_error_says_what_and_why(client: httpx.Client, body: dict, status: int, said: str) -> None:
    answer = client.post("/search", json=body)
    assert (answer.status_code, [*answer.json()]) == (status, ["error"])
    assert said in answer.json()["error"]
    assert not answer.json()["error"].startswith("--")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/indexes", "/health", "/metrics", "/openapi.json", "/page/main.js", "/vendor/plotly.min.js"),
        *("/samples/17", "/samples/17/audio", "/samples/17/image?thumbnail=32", "/indexes/minilm/map"),
        *("/samples/100000", "/nothing"),
    ],
)
def test_head_answers_as_get_does_without_the_body(client: httpx.Client, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    same = ("content-type", "etag", "accept-ranges", "content-security-policy")
    assert {name: head.headers.get(name) for name in same} == {name: whole.headers.get(name) for name in same}
    if path != "/metrics":  # which grow
        assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))


def test_head_is_for_what_can_be_got_and_is_counted_by_its_route(client: httpx.Client) -> None:
    assert client.head("/search").status_code == 405
    assert client.head("/samples/17/audio", headers={"Range": "bytes=0-9"}).headers["content-length"] == "10"
    client.head("/samples/9/text")
    assert 'mmdata_requests_total{route="/samples/{sample}/{modality}",status="200"}' in client.get("/metrics").text


def test_a_sample_tells_its_parts_and_their_bytes_come_from_the_tar(client: httpx.Client, corpus: Path) -> None:
    about = client.get("/samples/17").json()
    assert sorted(about["parts"]) == ["audio", "image", "text"]
    for modality, suffix, kind in (("image", "png", "image/png"), ("audio", "wav", "audio/wav")):
        source = (corpus / f"{about['key']}.{suffix}").read_bytes()
        part = about["parts"][modality]
        answer = client.get(part["url"])
        assert (answer.content, answer.headers["content-type"], part["size"]) == (source, kind, len(source))
        assert part["type"] == kind
        again = client.get(part["url"], headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/samples/17/text").headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-", 0, None), ("bytes=100-199", 100, 200), ("bytes=-50", -50, None), ("bytes=10-9999999", 10, None)],
)
def test_a_sound_can_be_had_in_pieces(client: httpx.Client, asked: str, start: int, stop: int | None) -> None:
    whole = client.get("/samples/3/audio").content
    piece = client.get("/samples/3/audio", headers={"Range": asked})
    assert (piece.status_code, piece.content) == (206, whole[start:stop])
    first = start % len(whole)
    assert piece.headers["content-range"] == f"bytes {first}-{first + len(piece.content) - 1}/{len(whole)}"


def test_a_range_outside_of_a_part_is_refused_and_many_ranges_cost_nothing(client: httpx.Client) -> None:
    whole = client.get("/samples/3/audio").content
    beyond = client.get("/samples/3/audio", headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    many = client.get("/samples/3/audio", headers={"Range": "bytes=" + ",".join(["0-9"] * 5000)})
    assert (many.status_code, many.content) == (200, whole)


def test_a_thumbnail_is_small(client: httpx.Client) -> None:
    answer = client.get("/samples/5/image?thumbnail=32")
    assert answer.headers["content-type"] == "image/webp"
    assert max(Image.open(io.BytesIO(answer.content)).size) == 32
    assert client.get("/samples/5/audio?thumbnail=32").status_code == 422


@pytest.mark.parametrize("path", ["/samples/60", "/samples/9007199254740991", "/samples/3/image%2f..%2f..", "/nothing"])
def test_what_is_not_there_is_404(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/samples/-1", "/samples/9223372036854775808", "/samples/3/..", "/samples/x/image"])
def test_a_sample_is_a_number_and_its_part_a_modality(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


def test_the_map_has_a_point_for_every_row_and_is_the_same_each_time(client: httpx.Client) -> None:
    found = client.get("/indexes/minilm/map?field=folder").json()
    assert {name: len(column) for name, column in found.items()} == dict.fromkeys(
        ["id", "key", "x", "y", "value", "caption"], 60
    )
    assert found["value"][0] == found["key"][0].split("/")[0]
    assert np.std(found["x"]) > np.std(found["y"]) > 0
    assert client.get("/indexes/minilm/map?field=folder").json() == found
    assert client.get("/indexes/minilm/map?field=nothing").status_code == 404


def test_without_shards_hits_have_no_media(made: Dataset) -> None:
    with serving(create_app(made)) as client:
        (answer,) = search(client, "f", {"vector": [1.0] * 16}, k=2)
        assert [hit["media"] for hit in answer["hits"]] == [None, None]
        assert client.get("/samples/0").status_code == 404


def test_media_of_an_index_older_than_the_shards_are_refused_and_never_of_another_sample(tmp_path: Path) -> None:
    corpus, url = tmp_path / "corpus", str(tmp_path / "dataset")
    corpus.mkdir()
    for number in range(3):
        (corpus / f"k{number}.png").write_bytes(picture(colour=(number, 0, 0)))
    shard(ShardConfig(dataset=url, source=str(corpus)), HERE)
    write_features(Dataset.open(url), "f", [clusters(3, 8)], modality=Modality.IMAGE)
    make(Dataset.open(url))
    with serving(create_app(Dataset.open(url))) as client:
        (answer,) = search(client, "f", {"key": "k0"}, k=3)
        media = {hit["key"]: hit["media"] for hit in answer["hits"]}
        assert client.get(media["k0"]).content == (corpus / "k0.png").read_bytes()
        (corpus / "a.png").write_bytes(picture(colour=(9, 9, 9)))
        (corpus / "k2.png").unlink()
        shard(ShardConfig(dataset=url, source=str(corpus), overwrite=True), HERE)
        for path in (media["k0"], f"{media['k0']}&thumbnail=32", "/samples/0?key=k0", "/samples/77?key=k0"):
            refused = client.get(path)
            assert refused.status_code == 409
            assert refused.json()["error"].startswith("the index is older than the shards: 'k0' is not sample")
        assert client.get("/samples/0").json()["key"] == "a"
        assert client.get("/samples/0/image?key=a").content == (corpus / "a.png").read_bytes()


def test_shards_that_are_made_while_a_service_runs_are_known_by_their_new_plan(tmp_path: Path) -> None:
    corpus, url = tmp_path / "corpus", str(tmp_path / "dataset")
    dataset = Dataset.create(url)
    write_features(dataset, "f", [clusters(3, 8)], modality=Modality.IMAGE)
    make(dataset)
    corpus.mkdir()
    (corpus / "k0.png").write_bytes(picture())
    with serving(create_app(dataset, refresh_seconds=0.05)) as client:
        for number, name in enumerate(["k0", "k1", "k2"]):
            (corpus / f"{name}.png").write_bytes(picture())
            shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=1, overwrite=True), HERE)
            wait_for(lambda number=number, name=name: found_key(client, number) == name)
        assert client.get("/samples/3").json() == {"error": "there is no sample 3; there are 3, from 0"}
        (answer,) = search(client, "f", {"key": "k2"}, k=1)
        assert answer["hits"][0]["media"] == "/samples/2/image?key=k2"


def test_a_look_for_what_is_new_that_fails_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [clusters(300, 8)])
    make(dataset)
    with serving(create_app(dataset, refresh_seconds=0.02)) as client:
        with monkeypatch.context() as full:
            full.setattr(os, "scandir", no_space)
            wait_for(lambda: "No space left on device" in caplog.text)
        make(dataset, name="other")
        wait_for(lambda: len(client.get("/indexes").json()) == 2)


def no_space(*path: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def found_key(client: httpx.Client, sample: int) -> str | None:
    return client.get(f"/samples/{sample}").json().get("key")


def wait_for(done: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.02)


def test_32_threads_get_what_one_gets(built: Dataset, made: Dataset) -> None:
    vectors = np.random.default_rng(1).normal(size=(64, 16)).round(4).tolist()
    bodies = [
        {"index": "f", "terms": [{"vector": vector}], "k": 5 + number % 3} for number, vector in enumerate(vectors)
    ]
    texts = [{"index": "minilm", "terms": [{"text": f"{n} stars"}], "k": 3} for n in range(16)]
    for dataset, asked in ((made, bodies), (built, texts)):
        with serving(create_app(dataset)) as client, ThreadPoolExecutor(32) as pool:

            def post(body: dict, client: httpx.Client = client) -> list[dict]:
                return client.post("/search", json=body).json()["answers"][0]["hits"]

            alone = [post(body) for body in asked]
            together = list(pool.map(post, asked * 3))
        for one, other in zip(alone * 3, together, strict=True):
            assert [hit["row"] for hit in one] == [hit["row"] for hit in other]
            np.testing.assert_allclose([h["score"] for h in one], [h["score"] for h in other], atol=CLOSE, rtol=CLOSE)


def test_a_new_generation_and_a_new_index_are_used_without_a_restart(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    rows = clusters(600, 8)
    card = write_features(dataset, "f", [rows[:300]])
    make(dataset)
    shelf = Shelf(dataset)
    before = shelf["f"]
    write_shard(dataset, card, 1, rows[300:], 300)
    make(dataset)
    index(IndexConfig(dataset=dataset.url, features="f", name="other"), HERE)
    shelf.refresh()
    assert (len(before), len(shelf["f"]), len(shelf["other"])) == (300, 600, 600)
    assert before.search(rows[:1], 1).ids[0, 0] == 0
    same = shelf["f"]
    shelf.refresh()
    assert shelf["f"] is same


def test_a_generation_that_cannot_be_opened_leaves_the_one_before(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [clusters(300, 8)])
    make(dataset)
    shelf = Shelf(dataset)
    label = tmp_path / "dataset/indexes/f/index.json"
    label.write_bytes(label.read_bytes()[:-20])
    shelf.refresh()
    assert len(shelf["f"]) == 300


def test_an_index_that_stays_broken_is_told_once_and_tried_less_and_less(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [clusters(300, 8)])
    make(dataset)
    vectors = tmp_path / "dataset/indexes/f/000001/index.faiss"
    good = vectors.read_bytes()
    vectors.write_bytes(good[:-20])
    shelf = Shelf(dataset)
    for _ in range(10):  # tried at looks 1, 2, 4 and 8
        shelf.refresh()
    assert caplog.text.count("the index 'f' cannot be opened") == 1
    assert "index.faiss is not the file index.json names" in shelf.problems["f"]
    vectors.write_bytes(good)
    for _ in range(4):
        shelf.refresh()
    assert "f" in shelf.problems  # the next try is at look 16
    shelf.refresh()
    assert (len(shelf["f"]), shelf.problems) == (300, {})
    assert caplog.text.count("the index 'f' can be opened again") == 1


def test_a_new_label_of_a_broken_index_is_tried_at_once(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [clusters(300, 8)])
    make(dataset)
    label = tmp_path / "dataset/indexes/f/index.json"
    good = label.read_bytes()
    label.write_bytes(good[:-20])
    shelf = Shelf(dataset)
    for _ in range(100):
        shelf.refresh()
    label.write_bytes(good)
    shelf.refresh()
    assert (len(shelf["f"]), shelf.problems) == (300, {})


def test_a_broken_index_is_shown_with_its_reason_and_the_others_answer(built: Dataset, tmp_path: Path) -> None:
    shutil.copytree(built.url, tmp_path / "copy")
    (tmp_path / "copy/indexes/minilm/index.json").write_text("{")
    with serving(create_app(Dataset.open(str(tmp_path / "copy")))) as client:
        listed = {about["name"]: about for about in client.get("/indexes").json()}
        assert sorted(listed["minilm"]) == ["name", "problem"]
        assert "index.json" in listed["minilm"]["problem"]
        assert (listed["pictures.image"]["rows"], listed["pictures.image"]["problem"]) == (60, None)
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert str(tmp_path) not in health.text
        assert "mmdata_broken_indexes 1.0" in client.get("/metrics").text
        refused = client.post("/search", json={"index": "minilm", "terms": [{"text": "a"}]})
        assert (refused.status_code, refused.json()["error"].split(":")[0]) == (
            503,
            "the index 'minilm' cannot be opened",
        )
        assert search(client, "pictures.image", {"text": "stars"}, k=1)[0]["hits"]


def test_the_figures_count_answers_by_route(client: httpx.Client) -> None:
    client.get("/samples/1")
    client.get("/samples/100000")
    figures = client.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain")
    assert 'mmdata_requests_total{route="/samples/{sample}",status="404"}' in figures.text
    assert 'mmdata_index_rows{index="minilm"} 60.0' in figures.text
    assert client.get("/health").json() == {"status": "ok", "problem": None}
