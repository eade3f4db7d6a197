"""Alignment: the figures it reports, the map it fits, and the head it leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import HERE
from numpy.typing import NDArray

from mmdata.config import AlignConfig, ExtractConfig, IndexConfig
from mmdata.errors import ConfigError, Conflict, Damage, NotFound
from mmdata.fusion.align import Fit, common_columns, common_space, fit_cca
from mmdata.fusion.evaluate import chance_at, recall_at
from mmdata.fusion.heads import read_head
from mmdata.retrieval.search import open_index
from mmdata.stages import Summary
from mmdata.stages.align import _chosen, _pairs, align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.types import EncoderCard, Modality

SAMPLING = 0.03  # of a correlation estimated from 20,000 pairs, each row scaled to unit length
HALF = 1e-3  # what float16 keeps of a component below one

# how good a retrieval is


def test_recall_of_a_hand_computed_example() -> None:
    gallery = np.eye(4)
    queries = np.array([[9, 0, 0, 0], [8, 9, 0, 0], [9, 8, 7, 0], [9, 8, 7, 6]])
    assert recall_at(queries, gallery, list("abcd"), (1, 2, 3, 4)) == {"R@1": 0.5, "R@2": 0.5, "R@3": 0.75, "R@4": 1.0}
    assert recall_at(queries, gallery, list("aabb"), (1, 3)) == {"R@1": 0.5, "R@3": 1.0}


def test_recall_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(2, 1500, 6))
    groups = [f"g{n}" for n in rng.integers(0, 400, 1500)]
    order = np.argsort(-(queries @ gallery.T), axis=1)
    hits = [[groups[j] == groups[i] for j in order[i][:10]] for i in range(1500)]
    brute = {f"R@{k}": float(np.mean([any(row[:k]) for row in hits])) for k in (1, 5, 10)}
    assert recall_at(queries, gallery, groups) == pytest.approx(brute, abs=1e-12)


def test_vectors_that_are_all_alike_find_nothing() -> None:
    assert recall_at(np.ones((50, 3)), np.ones((50, 3)), [str(n) for n in range(50)]) == dict.fromkeys(
        ("R@1", "R@5", "R@10"), 0.0
    )


def test_fewer_pairs_than_k_are_all_found() -> None:
    assert recall_at(np.eye(3), np.eye(3), list("abc")) == {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0}
    assert chance_at(list("abc")) == pytest.approx({"R@1": 1 / 3, "R@5": 1.0, "R@10": 1.0})


def test_chance_of_a_hand_computed_example() -> None:
    assert chance_at(list("abcd"), (1, 2)) == pytest.approx({"R@1": 1 / 4, "R@2": 1 / 2})
    # of five, "a" is right twice: 1 - C(3, 2) / C(5, 2) = 0.7; each of the others: 1 - C(4, 2) / C(5, 2) = 0.4
    assert chance_at(list("aabcd"), (2,)) == pytest.approx({"R@2": (2 * 0.7 + 3 * 0.4) / 5})


def test_chance_is_what_a_random_order_gives() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{n}" for n in rng.integers(0, 60, 200)]
    found = [recall_at(*rng.normal(size=(2, 200, 8)), groups)["R@10"] for _ in range(40)]
    assert chance_at(groups)["R@10"] == pytest.approx(np.mean(found), abs=0.02)  # 8,000 draws


# the map

RHO = np.array([0.9, 0.7, 0.5])


def gaussian_pairs(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two views of 40 dimensions, of which three directions are correlated by RHO, each view turned and stretched."""
    rng = np.random.default_rng(5)
    x, noise = rng.normal(size=(2, n, 40))
    y = noise.copy()
    y[:, :3] = RHO * x[:, :3] + np.sqrt(1 - RHO**2) * noise[:, :3]
    turns = [np.linalg.qr(rng.normal(size=(40, 40)))[0] * rng.uniform(0.5, 2, 40) for _ in range(2)]
    return x @ turns[0], y @ turns[1]


def fit(x: NDArray[np.float64], y: NDArray[np.float64], dim: int) -> Fit:
    folds = np.arange(len(x)) % 2
    return fit_cca(x, y, [str(n) for n in range(len(x))], folds, dim, choices=((0.0, 0.0),))


def test_known_canonical_correlations_are_recovered() -> None:
    found = fit(*gaussian_pairs(20_000), dim=40).correlations
    assert found[:3] == pytest.approx(RHO, abs=SAMPLING)
    assert found[3:].max() < 0.1  # chance gives up to 2 sqrt(40 / 20,000) = 0.09


def test_projections_correlate_as_the_fit_says() -> None:
    x, y = gaussian_pairs(20_000)
    found = fit(x, y, dim=3)
    sides = [tower.centre for tower in (found.left, found.right)]
    assert [side.shape for side in sides] == [(40,), (40,)]
    a, b = found.left.project(x), found.right.project(y)
    assert a.shape == b.shape == (20_000, 3)
    assert a.dtype == np.float32
    assert np.linalg.norm(a, axis=1) == pytest.approx(np.ones(20_000), abs=1e-5)
    shuffled = np.roll(b, 1, axis=0)
    assert (a * b).sum(1).mean() > 0.5
    assert abs((a * shuffled).sum(1).mean()) < SAMPLING


def test_what_was_fitted_retrieves_pairs_it_has_not_seen() -> None:
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(1200, 10))
    x, y = (latent @ rng.normal(size=(10, 40)) + 0.3 * rng.normal(size=(1200, 40)) for _ in range(2))
    groups = [str(n) for n in range(1000)]
    found = fit_cca(x[:1000], y[:1000], groups, np.arange(1000) % 4, dim=10)
    held = recall_at(found.left.project(x[1000:]), found.right.project(y[1000:]), groups[:200])
    assert held["R@1"] > 0.9  # chance is 0.005


def test_what_both_sides_share_helps_where_pairs_are_few_and_is_left_out_where_it_says_nothing() -> None:
    rng = np.random.default_rng(3)
    text = rng.normal(size=(600, 30))
    picture = text @ rng.normal(size=(30, 40)) + 15 * rng.normal(size=(600, 40))
    named, nothing = text + 2 * rng.normal(size=(600, 30)), rng.normal(size=(600, 30))
    groups, train = [str(n) for n in range(600)], slice(0, 200)
    found, shares = {}, {}
    for name, y, shared in (
        ("without", picture, None),
        ("with", np.hstack([picture, named]), ((0, 30), (40, 70))),
        ("noise", np.hstack([picture, nothing]), ((0, 30), (40, 70))),
    ):
        fitted = fit_cca(text[train], y[train], groups[train], np.arange(200) % 4, 20, shared=shared)
        shares[name] = fitted.share
        sides = fitted.left.project(text[200:]), fitted.right.project(y[200:])
        assert sides[0].shape == sides[1].shape == (400, fitted.left.dim)
        assert np.linalg.norm(sides[1], axis=1) == pytest.approx(np.ones(400), abs=1e-5)
        found[name] = recall_at(*sides, groups[200:])["R@10"]
    assert found["with"] > found["without"] + 0.2
    assert (shares["without"], shares["noise"]) == (0.0, 0.0)
    assert shares["with"] > 0


def test_the_space_of_two_features_is_found_whole_or_among_the_columns() -> None:
    def card(space: str, dim: int, **holds: list[int]) -> EncoderCard:
        return EncoderCard(Modality.IMAGE, dim, space=space, preprocessing={"holds": holds} if holds else {})

    text, both, sound = card("words", 4), card("mixed", 10, words=[6, 10]), card("sounds", 3)
    found = common_space({"audio": sound, "image": both, "text": text})
    assert {name: tuple(columns) for name, columns in found.items()} == {"image": (6, 10), "text": (0, 4)}
    assert common_columns(text, both) == ((0, 4), (6, 10))
    assert common_columns(text, sound) is None


def test_dim_is_cut_to_what_the_smaller_view_has() -> None:
    x, y = gaussian_pairs(500)
    found = fit(x, y[:, :7], dim=128)
    assert found.left.weight.shape == (40, 7)
    assert found.right.weight.shape == (7, 7)


def test_a_view_with_a_constant_column_is_fitted() -> None:
    x, y = gaussian_pairs(500)
    x[:, 0] = 3.0
    found = fit_cca(x, y, [str(n) for n in range(500)], np.arange(500) % 4, dim=5)
    assert np.isfinite(found.left.project(x)).all()


# the stage


@pytest.fixture
def featured(sharded: Dataset) -> Dataset:
    """Sixty samples with the features of texts and of sounds."""
    extract(ExtractConfig(dataset=sharded.url, encoders=("minilm", "mel-stats", "again=minilm")), HERE)
    return sharded


def run(dataset: Dataset, **options: object) -> Summary:
    given = {"name": "sounds", "features": ("minilm", "mel-stats"), "holdout": 0.4} | options
    return align(AlignConfig(dataset=dataset.url, **given), HERE)


def stamps(dataset: Dataset, *folders: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in folders for path in Path(dataset.url, folder).iterdir()}


def test_no_caption_is_on_both_sides_of_the_split(built: Dataset) -> None:
    _, _, groups = _pairs(Features(built, "minilm"), Features(built, "efficientnet-lite0"))
    doubled = [*groups, *groups]
    held = _chosen(doubled, 0.4, "0:holdout")
    sides = [set(np.array(doubled)[held]), set(np.array(doubled)[~held])]
    assert sides[0].isdisjoint(sides[1])
    assert sides[0] | sides[1] == set(groups)
    assert 0.25 < len(sides[0]) / len(set(groups)) < 0.55


def test_pairs_are_joined_by_key(built: Dataset) -> None:
    left, right = Features(built, "minilm"), Features(built, "efficientnet-lite0")
    x, y, groups = _pairs(left, right)
    texts, pictures = left.to_arrow(), right.to_arrow()
    place = {caption: row for row, caption in enumerate(texts["caption"].to_pylist())}
    rows = [place[group] for group in groups[:10]]
    assert np.array_equal(x[:10], vectors(texts)[rows].astype(np.float32))
    assert np.array_equal(y[:10], vectors(pictures)[rows].astype(np.float32))


def test_the_report_holds_recall_both_ways_beside_chance(featured: Dataset) -> None:
    summary = run(featured)
    metrics = json.loads(Path(featured.url, "heads/sounds/metrics.json").read_text())
    assert summary.facts["chance"] == metrics["chance"]
    assert metrics["pairs"] == metrics["trained on"] + metrics["held out"] == 60
    for way in ("text to audio", "audio to text", "chance"):
        assert list(metrics[way]) == ["R@1", "R@5", "R@10"]
        assert 0 <= metrics[way]["R@1"] <= metrics[way]["R@5"] <= metrics[way]["R@10"] <= 1
    head = read_head(featured, "sounds")
    x, y, groups = _pairs(Features(featured, "minilm"), Features(featured, "mel-stats"))
    held = _chosen(groups, 0.4, "0:holdout")
    sides = head.tower("text").project(x[held]), head.tower("audio").project(y[held])
    assert recall_at(*sides, list(np.array(groups)[held])) == metrics["text to audio"]


def test_the_head_on_disk_projects_as_the_features_say(featured: Dataset) -> None:
    run(featured)
    head = read_head(featured, "sounds")
    for modality, source in ((Modality.TEXT, "minilm"), (Modality.AUDIO, "mel-stats")):
        raw, projected = (Features(featured, name).to_arrow() for name in (source, f"sounds.{modality}"))
        assert projected["key"].to_pylist() == raw["key"].to_pylist()
        assert projected["member"].to_pylist() == raw["member"].to_pylist()
        wanted = head.tower(modality).project(vectors(raw).astype(np.float64))
        assert np.abs(vectors(projected).astype(np.float32) - wanted).max() < HALF
        card = Features(featured, f"sounds.{modality}").card
        assert card.space == f"head:sounds@{head.sha256[:12]}"
        assert card.towers == {"text": "head:sounds#text", "audio": "head:sounds#audio"}
        assert card.preprocessing == {"features": {source: Features(featured, source).card.fingerprint}}


def test_projected_features_answer_a_text_with_sounds(featured: Dataset) -> None:
    run(featured)
    index(IndexConfig(dataset=featured.url, features="sounds.audio"), HERE)
    opened = open_index(featured, "sounds.audio")
    (hits,) = opened.search(opened.encode(Modality.TEXT, "a red star"), k=4)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert all(hit.member.endswith(".wav") for hit in hits)


def test_the_same_data_give_the_same_head(featured: Dataset) -> None:
    run(featured)
    run(featured, name="twice")
    heads = [Path(featured.url, "heads", name, "head.safetensors").read_bytes() for name in ("sounds", "twice")]
    assert heads[0] == heads[1]


def test_running_again_does_nothing(featured: Dataset) -> None:
    first = run(featured)
    before = stamps(featured, "heads/sounds", "features/sounds.text", "features/sounds.audio")
    again = run(featured)
    assert stamps(featured, "heads/sounds", "features/sounds.text", "features/sounds.audio") == before
    assert again.facts == first.facts


def test_features_that_changed_are_a_conflict_and_overwrite_answers_it(featured: Dataset) -> None:
    run(featured)
    old = Features(featured, "mel-stats").fingerprint
    extract(ExtractConfig(dataset=featured.url, encoders=("mel-stats",), dtype="float32", overwrite=True), HERE)
    with pytest.raises(Conflict) as caught:
        run(featured)
    assert f"mel-stats: there '{old}', asked '{Features(featured, 'mel-stats').fingerprint}'" in str(caught.value)
    assert "choose another --name, or --overwrite" in str(caught.value)
    run(featured, overwrite=True)
    assert len(Features(featured, "sounds.audio").to_arrow()) == 60


def test_other_options_are_a_conflict_that_names_them(featured: Dataset) -> None:
    run(featured)
    with pytest.raises(Conflict) as caught:
        run(featured, dim=5, seed=1)
    assert str(caught.value).split("\n")[1:-1] == ["  dim: there 128, asked 5", "  seed: there 0, asked 1"]


def test_two_sets_of_one_modality_are_refused(featured: Dataset) -> None:
    with pytest.raises(ConfigError, match="minilm and again are both text; align two modalities"):
        run(featured, features=("minilm", "again"))


def test_too_few_captions_to_hold_any_out_are_refused(featured: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"\d+ to fit by and \d+ held out, where 20 of each are needed"):
        run(featured, holdout=0.1)
    assert featured.names("heads") == []


def test_a_head_that_is_not_there_lists_those_that_are(featured: Dataset) -> None:
    run(featured)
    with pytest.raises(NotFound, match=r"has no head 'nosuch'; there are: sounds$"):
        read_head(featured, "nosuch")


def test_damage_in_a_head_is_found_and_overwrite_answers_it(featured: Dataset) -> None:
    run(featured)
    path = Path(featured.url, "heads/sounds/head.safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damage, match=r"head.safetensors is not the file that head.json names; make it again"):
        run(featured)
    run(featured, overwrite=True)
    assert read_head(featured, "sounds").name == "sounds"


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_head_json_that_is_none_is_damage(featured: Dataset, text: str) -> None:
    run(featured)
    Path(featured.url, "heads/sounds/head.json").write_text(text)
    with pytest.raises(Damage, match=r"head\.json is damaged: .*; make it again"):
        read_head(featured, "sounds")


@pytest.mark.parametrize("left", [["head.safetensors"], ["head.safetensors", "metrics.json"]])
def test_a_run_killed_before_head_json_is_finished_by_the_same_command(featured: Dataset, left: list[str]) -> None:
    run(featured)
    before = {path: path.read_bytes() for path in Path(featured.url).rglob("*") if path.is_file()}
    for path in before:
        if path.parent.name == "sounds" and path.name not in left:
            path.unlink()
        if path.parent.name in ("sounds.text", "sounds.audio"):
            path.unlink()
    run(featured)
    after = {path: path.read_bytes() for path in before if not path.name.startswith("receipts") and len(path.stem) != 6}
    assert after == {path: before[path] for path in after}
    assert Features(featured, "sounds.audio").to_arrow().num_rows == 60


def test_a_run_killed_while_it_projects_is_finished_by_the_same_command(featured: Dataset) -> None:
    run(featured)
    folder = Path(featured.url, "features/sounds.audio")
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    for name in ("000001.json", "000002.json", "000002.parquet", "000003.json"):
        (folder / name).unlink()
    run(featured)
    assert {path.name: path.read_bytes() for path in folder.glob("00*.parquet")} == {
        name: data for name, data in before.items() if name.startswith("00")
    }
    assert list(Features(featured, "sounds.audio").receipts) == ["000000", "000001", "000002", "000003"]
