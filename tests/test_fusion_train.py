"""The loop: it reaches what can be reached, it ends where it should, and a killed run goes on to the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_optimum import TRAIN, known
from tiny_features import memory_pack

from mmdata.errors import ConfigError, Conflict
from mmdata.fusion.baselines import baselines, features
from mmdata.fusion.checkpoint import Checkpoints
from mmdata.fusion.feed import Feed, Plan, Where
from mmdata.fusion.figures import collect, figures
from mmdata.fusion.model import Architecture, FusionModel, TaskFacts
from mmdata.fusion.operators import OPERATORS
from mmdata.fusion.pack import Pack
from mmdata.fusion.splits import Part
from mmdata.fusion.train import Recipe, Run, fit_standardiser, train
from mmdata.fusion.trained import output_dims
from mmdata.storage.store import Store

HERE = Plan(Where.RESIDENT, "")
NEAR = 0.01  # of the best accuracy there is
LUCK = 0.005  # above it: 3 sigma of 20,000 rows
EXPRESSES = [name for name in OPERATORS if name != "linear"]


class Nowhere:
    """Keeps no checkpoint."""

    def load(self, run: Run) -> bool:
        return False

    def save(self, run: Run) -> None:
        pass


def model_of(pack: Pack, operator: str, tasks: dict[str, TaskFacts], dim: int = 32, seed: int = 0) -> FusionModel:
    torch.manual_seed(seed)
    inputs = {name: one.values.shape[1] for name, one in pack.inputs.items()}
    return FusionModel(Architecture(inputs, (), operator, dim, 1, 0.0, tasks))


def accuracy(kind: str, operator: str) -> tuple[float, float]:
    """Of a head on unseen rows, and the best there is."""
    data = known(kind)
    model = model_of(data.pack, operator, {"y": TaskFacts("multiclass", 1.0, {}, data.facts)})
    feed = Feed(data.pack, {"y": torch.from_numpy(data.label)}, HERE)
    parts = {Part.TRAIN: np.arange(TRAIN - 1000), Part.VALIDATION: np.arange(TRAIN - 1000, TRAIN)}
    fit_standardiser(model, feed, torch.from_numpy(parts[Part.TRAIN]))
    train(model, feed, parts, Recipe("y/accuracy", epochs=8, lr=4e-3, modality_dropout=0.0), Nowhere())
    test = torch.arange(TRAIN, len(data.pack))
    return figures(model, feed, test)["y/accuracy"], data.bayes


# what can be reached


@pytest.mark.parametrize("operator", EXPRESSES)
def test_every_operator_but_the_linear_one_solves_xor_and_none_is_better_than_bayes(operator: str) -> None:
    found, best = accuracy("xor", operator)
    assert best - NEAR < found < best + LUCK


@pytest.mark.parametrize("kind", ["redundant", "unique"])
def test_the_linear_operator_reaches_what_is_linear(kind: str) -> None:
    found, best = accuracy(kind, "linear")
    assert best - NEAR < found < best + LUCK


def test_the_linear_operator_cannot_do_xor() -> None:
    assert accuracy("xor", "linear")[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redundant", "unique", "and"])
@pytest.mark.parametrize("operator", EXPRESSES)
def test_every_operator_reaches_bayes(operator: str, kind: str) -> None:
    found, best = accuracy(kind, operator)
    assert best - NEAR < found < best + LUCK


def test_alignment_finds_pairs_of_known_mutual_information_and_so_does_cca() -> None:
    # 16 correlated directions, rho 0.9: 13.3 nats; the exact posterior finds 98.6% among 1,000
    random = np.random.default_rng(0)
    shared, noise = random.normal(size=(3000, 16)), random.normal(size=(3000, 16))
    views = {"a": shared, "b": 0.9 * shared + np.sqrt(1 - 0.81) * noise}
    for name, dim in (("a", 40), ("b", 24)):
        padded = np.concatenate([views[name], random.normal(size=(3000, dim - 16))], axis=1)
        views[name] = padded @ np.linalg.qr(random.normal(size=(dim, dim)))[0]
    pack = memory_pack(views)
    model = model_of(pack, "linear", {"common": TaskFacts("align", 1.0, {"between": ["a", "b"], "dim": 32})}, dim=64)
    feed = Feed(pack, {"common": torch.arange(3000)}, HERE)
    parts = {Part.TRAIN: np.arange(1800), Part.VALIDATION: np.arange(1800, 2000), Part.TEST: np.arange(2000, 3000)}
    fit_standardiser(model, feed, torch.arange(1800))
    train(model, feed, parts, Recipe("common/mean R@10", epochs=30, lr=3e-3), Nowhere())
    test = torch.from_numpy(parts[Part.TEST])
    given = {
        role: (features(model, feed, parts[p]), parts[p])
        for role, p in (("train", Part.TRAIN), ("validation", Part.VALIDATION), ("asked", Part.TEST))
    }
    (cca,) = baselines(model.task("common"), given).values()
    task = model.task("common")
    assert 0.85 < figures(model, feed, test)["common/a to b R@1"] <= 0.986 + 3 * 0.004
    assert 0.96 < task.scores(cca, parts[Part.TEST])["a to b R@1"] <= 0.986 + 3 * 0.004


def test_what_inputs_share_before_is_kept_beside_what_is_learned_of_few_pairs() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(600, 12))
    noise = 0.5 * random.normal(size=(2, 600, 12))
    views = {"image": np.concatenate([random.normal(size=(600, 30)), shared + noise[0]], 1), "text": shared + noise[1]}
    pack, parts = memory_pack(views), {Part.TRAIN: np.arange(100), Part.VALIDATION: np.arange(100, 200)}
    found, shares = [], []
    for facts in (
        {},
        {"shared": {"image": [0, 12], "text": [0, 12]}},
        {"shared": {"image": [30, 42], "text": [0, 12]}},
    ):
        options = {"between": ["image", "text"], "dim": 16}
        model = model_of(pack, "linear", {"common": TaskFacts("align", 1.0, options, facts)})
        feed = Feed(pack, {"common": torch.arange(600)}, HERE)
        fit_standardiser(model, feed, torch.arange(100))
        train(model, feed, parts, Recipe("common/mean R@10", epochs=10, batch=50, lr=4e-3), Nowhere())
        found.append(figures(model, feed, torch.arange(200, 600))["common/text to image R@1"])
        shares += [float(share) for name, share in model.tasks["common"].named_buffers() if name == "share"]
    assert found[2] > found[0] + 0.2
    assert found[1] > found[0] - 0.05  # columns that say nothing get no weight
    assert shares[0] < shares[1]
    assert output_dims(model.architecture) == {"image": 28, "text": 28}


# joint and missing


def digits_like(scale_view: float = 1.0, scale_target: float = 1.0) -> dict[str, float]:
    """Figures of a joint head on four classes in two views and a number that both views share."""
    random = np.random.default_rng(0)
    label, number = random.integers(0, 4, 1500), random.normal(size=1500)
    centres = random.normal(size=(2, 4, 10))
    views = {}
    for name, centre in zip(("left", "right"), centres, strict=True):
        views[name] = centre[label] + number[:, None] * random.normal(size=10) + 1.3 * random.normal(size=(1500, 10))
    views["left"] = views["left"] * scale_view
    target = number * scale_target
    facts = {"mean": float(target[:1000].mean()), "scale": float(target[:1000].std())}
    pack = memory_pack(views)
    tasks = {
        "label": TaskFacts("multiclass", 1.0, {}, {"classes": [0, 1, 2, 3]}),
        "number": TaskFacts("regression", 1.0, {}, facts),
        "rebuild": TaskFacts("reconstruct", 1.0, {"alpha": {"left": 0.1, "right": 0.1}}),
    }
    model = model_of(pack, "concat_mlp", tasks)
    standard = torch.from_numpy((target - facts["mean"]) / facts["scale"]).float()
    feed = Feed(pack, {"label": torch.from_numpy(label), "number": standard, "rebuild": torch.zeros(1500)}, HERE)
    parts = {Part.TRAIN: np.arange(1000), Part.VALIDATION: np.arange(1000, 1500)}
    fit_standardiser(model, feed, torch.arange(1000))
    train(model, feed, parts, Recipe("label/accuracy", epochs=12, lr=4e-3, batch=100), Nowhere())
    return figures(model, feed, torch.arange(1000, 1500))


def test_neither_the_unit_of_a_view_nor_that_of_a_target_matters() -> None:
    plain = digits_like()
    view, target = digits_like(scale_view=1000), digits_like(scale_target=100)
    assert view["label/accuracy"] == pytest.approx(plain["label/accuracy"], abs=0.005)
    assert target["label/accuracy"] == pytest.approx(plain["label/accuracy"], abs=0.01)
    assert target["number/r2"] == pytest.approx(plain["number/r2"], abs=0.02)
    assert plain["label/accuracy"] > 0.85
    assert plain["number/r2"] > 0.4
    assert 0 < plain["rebuild/r2 left from others"] < plain["rebuild/r2 left from all"]


def test_modality_dropout_keeps_more_when_a_view_is_missing() -> None:
    data = known("redundant")
    found = {}
    for rate in (0.0, 0.4):
        model = model_of(data.pack, "concat_mlp", {"y": TaskFacts("multiclass", 1.0, {}, data.facts)})
        feed = Feed(data.pack, {"y": torch.from_numpy(data.label)}, HERE)
        parts = {Part.TRAIN: np.arange(2000), Part.VALIDATION: np.arange(2000, 3000)}
        fit_standardiser(model, feed, torch.arange(2000))
        train(model, feed, parts, Recipe("y/accuracy", epochs=6, lr=4e-3, modality_dropout=rate), Nowhere())
        found[rate] = figures(model, feed, torch.arange(3000, 8000), without=["left"])["y/accuracy"]
    assert found[0.4] > 0.965  # Bayes of one view alone: 0.977
    assert found[0.4] > found[0.0]


# the loop


class Cut(Exception):
    """A kill."""


class Killed(Checkpoints):
    """Checkpoints of every step, and a kill behind one of them."""

    left = 0

    def save(self, run: Run) -> None:
        super().save(run)
        self.left -= 1
        if self.left == 0:
            raise Cut


def small_run(keeper: Any, seed: int = 0, **changes: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    data = known("and")
    tasks = {
        "y": TaskFacts("multiclass", 1.0, {}, data.facts),
        "common": TaskFacts("align", 0.5, {"between": ["left", "right"], "dim": 8}),
    }
    torch.manual_seed(seed)
    model = FusionModel(Architecture({"left": 12, "right": 8}, (), "gmu", 16, 1, 0.3, tasks))
    feed = Feed(data.pack, {"y": torch.from_numpy(data.label), "common": torch.arange(len(data.pack))}, HERE)
    parts = {Part.TRAIN: np.arange(400), Part.VALIDATION: np.arange(400, 600)}
    fit_standardiser(model, feed, torch.arange(400))
    options = {"epochs": 3, "batch": 100, "balance": "uncertainty", "seed": seed} | changes
    run = train(model, feed, parts, Recipe("y/accuracy", **options), keeper)
    return run.model.state_dict(), run.progress.history


@pytest.mark.parametrize("step", [1, 3, 4, 5, 9, 13])
def test_a_run_that_is_cut_off_anywhere_goes_on_to_the_same_bits(step: int, tmp_path: Path) -> None:
    whole, history = small_run(Nowhere())
    killed = Killed(Store(str(tmp_path)), "checkpoint", {}, every=0)
    killed.left = step
    with pytest.raises(Cut):
        small_run(killed)
    weights, again = small_run(Checkpoints(Store(str(tmp_path)), "checkpoint", {}, every=0))
    assert again == history
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    one, same, other = small_run(Nowhere())[0], small_run(Nowhere())[0], small_run(Nowhere(), seed=1)[0]
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["fusion.gates.weight"], other["fusion.gates.weight"])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    small_run(Checkpoints(Store(str(tmp_path)), "checkpoint", {"seed": 1}, every=0))
    with pytest.raises(Conflict, match=r"seed: there 1, asked 2"):
        small_run(Checkpoints(Store(str(tmp_path)), "checkpoint", {"seed": 2}, every=0))


def test_training_ends_when_patience_does_and_keeps_the_best_epoch() -> None:
    _, history = small_run(Nowhere(), epochs=30, patience=2, lr=0.05)
    values = [epoch["validation"]["y/accuracy"] for epoch in history]
    assert len(history) < 30
    assert len(history) - 1 - int(np.argmax(values)) == 2


def test_a_monitor_that_is_no_figure_lists_those_there_are() -> None:
    data = known("and")
    model = model_of(data.pack, "linear", {"y": TaskFacts("multiclass", 1.0, {}, data.facts)})
    feed = Feed(data.pack, {"y": torch.from_numpy(data.label)}, HERE)
    parts = {Part.TRAIN: np.arange(100), Part.VALIDATION: np.arange(100, 200)}
    with pytest.raises(ConfigError, match="monitor 'y/f1' is no figure of the validation rows; there are: y/accuracy"):
        train(model, feed, parts, Recipe("y/f1"), Nowhere())


def test_a_task_with_weight_zero_is_not_computed() -> None:
    data = known("and")
    tasks = {
        "y": TaskFacts("multiclass", 1.0, {}, data.facts),
        "common": TaskFacts("align", 0.0, {"between": ["left", "right"]}),
    }
    model = model_of(data.pack, "linear", tasks)
    before = {name: value.clone() for name, value in model.tasks["common"].state_dict().items()}
    feed = Feed(data.pack, {"y": torch.from_numpy(data.label), "common": torch.arange(len(data.pack))}, HERE)
    parts = {Part.TRAIN: np.arange(400), Part.VALIDATION: np.arange(400, 600)}
    run = train(model, feed, parts, Recipe("y/accuracy", epochs=1, weight_decay=0.0), Nowhere())
    assert list(run.progress.history[0]["loss"]) == ["y"]
    assert all(torch.equal(value, before[name]) for name, value in model.tasks["common"].state_dict().items())


def test_streamed_and_resident_training_give_the_same_bits() -> None:
    data = known("and")
    found = []
    for where in Where:
        model = model_of(data.pack, "concat_mlp", {"y": TaskFacts("multiclass", 1.0, {}, data.facts)})
        feed = Feed(data.pack, {"y": torch.from_numpy(data.label)}, Plan(where, ""))
        parts = {Part.TRAIN: np.arange(2000), Part.VALIDATION: np.arange(2000, 2500)}
        train(model, feed, parts, Recipe("y/accuracy", epochs=1), Nowhere())
        found.append(collect(model, feed, torch.arange(3000, 3100))["y"][0]["probability"])
    assert np.array_equal(*found)
