"""Tasks and their losses: what they encode, what they cost, and how several are balanced."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.autograd import gradcheck

from mmdata.errors import ConfigError
from mmdata.fusion import metrics
from mmdata.fusion.baselines import MOST, to_fit
from mmdata.fusion.feed import Batch
from mmdata.fusion.losses import Balance, InfoNce, SigLip, fusemix, masked_bce
from mmdata.fusion.model import Architecture, FusionModel, TaskFacts
from mmdata.fusion.tasks import TASKS
from mmdata.fusion.tasks.task import Context, State
from mmdata.fusion.train import modality_dropout


def column(*values: object) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values))])


def joint(alpha: dict[str, float]) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    context = Context(4, {"image": 3, "text": 2}, 0.0, {"classes": ["x", "y"]})
    return TASKS["multilabel"](context).double(), TASKS["reconstruct"](context, alpha).double()


def state_of(fused: torch.Tensor, image: torch.Tensor, text: torch.Tensor, has_text: torch.Tensor) -> State:
    present = {"image": torch.ones(len(fused), dtype=torch.bool), "text": has_text}
    return State(fused, {}, {"image": image, "text": text}, present, lambda parts, keep: fused)


# labels


def test_classes_come_from_training_and_a_label_it_has_not_is_none() -> None:
    facts = TASKS["multiclass"].learn(column("b", "a", None, "b"))
    assert facts == {"classes": ["a", "b"]}
    assert TASKS["multiclass"].encode(column("b", "c", None, "a"), facts).tolist() == [1, -1, -1, 0]


def test_tags_are_lists_or_lists_as_json() -> None:
    facts = TASKS["multilabel"].learn(column(["x"], ["y", "x"], None))
    assert facts == {"classes": ["x", "y"]}
    found = TASKS["multilabel"].encode(column('["y", "z"]', "[]", None), facts)
    assert found[:2].tolist() == [[0, 1], [0, 0]]
    assert found[2].isnan().all()
    with pytest.raises(ConfigError, match=r"holds lists, or lists as JSON, \[\"red\", \"round\"\], not single values"):
        TASKS["multilabel"].learn(column(1, 2))


def test_numbers_are_standardised_and_come_back_in_their_unit() -> None:
    facts = TASKS["regression"].learn(column(10, 30, None))
    assert facts == {"mean": 20.0, "scale": 10.0}
    found = TASKS["regression"].encode(column(40, None), facts)
    assert found[0] == 2
    assert found[1].isnan()
    task = TASKS["regression"](Context(4, {}, 0.0, facts))
    figures = task.scores({"value": np.array([41.0, 0.0])}, np.array([2.0, np.nan]))
    assert figures["mae"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("type_", "values", "message"),
    [
        ("multiclass", ["a", "a"], r"needs two classes at least; the training rows have 1 \('a'\)"),
        ("multiclass", [1.0, 2.5], "a number as 2.5 is no class; take the type regression"),
        ("regression", [1, 1], "need two different numbers"),
        ("regression", ["red", "blue"], "holds numbers"),
    ],
)
def test_labels_that_fit_no_task_are_refused(type_: str, values: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TASKS[type_].learn(column(*values))


def test_rows_of_one_caption_are_one_group_and_rows_without_are_alone() -> None:
    groups = TASKS["align"].encode(column("a", None, "a", None, "b"), {}).tolist()
    assert groups[0] == groups[2]
    assert len(set(groups)) == 4


# losses


def test_a_row_without_a_label_costs_nothing() -> None:
    logits = torch.randn(3, 2)
    target = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan], [0.0, 1.0]])
    assert masked_bce(logits, target) == pytest.approx(masked_bce(logits[[0, 2]], target[[0, 2]]).item())
    assert masked_bce(logits, torch.full((3, 2), torch.nan)) == 0


def test_info_nce_of_a_hand_computed_example() -> None:
    loss = InfoNce()
    with torch.no_grad():
        loss.log_temperature.copy_(torch.tensor(1.0).log())
    x = torch.eye(2)
    wanted = np.log(1 + np.exp(-1))  # scores are 1 for the pair and 0 for the other one, both ways
    assert loss(x, x, torch.arange(2)).item() == pytest.approx(wanted)
    assert loss(x, x, torch.zeros(2)).item() == pytest.approx(0.0)  # one caption: no negative is left


def test_siglip_of_a_hand_computed_example() -> None:
    loss = SigLip()
    x = torch.eye(2)
    scores = torch.eye(2) / 0.1 - 10
    signs = 2 * torch.eye(2) - 1
    assert loss(x, x, torch.arange(2)).item() == pytest.approx(
        -torch.log(torch.sigmoid(signs * scores)).sum().item() / 2
    )


def test_fusemix_mixes_both_sides_with_the_same_share() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    mixed_x, mixed_y, group = fusemix(x, 5 * x + 1, 1.0)
    assert torch.allclose(mixed_y, 5 * mixed_x + 1, atol=1e-5)
    assert not torch.allclose(mixed_x, x)
    assert group.tolist() == list(range(6))


def test_the_gradient_of_the_joint_loss_is_that_of_finite_differences() -> None:
    classify, rebuild = joint({"image": 0.3, "text": 0.7})
    torch.manual_seed(1)
    image, text = torch.randn(5, 3, dtype=torch.double), torch.randn(5, 2, dtype=torch.double)
    label = torch.tensor([[1.0, 0], [0, 1], [torch.nan, torch.nan], [1, 1], [0, 0]], dtype=torch.double)
    has_text = torch.tensor([True, True, False, True, False])

    def loss(fused: torch.Tensor) -> torch.Tensor:
        state = state_of(fused, image, text, has_text)
        return classify.loss(state, label) + rebuild.loss(state, torch.zeros(5))

    assert gradcheck(loss, torch.randn(5, 4, dtype=torch.double, requires_grad=True))


def test_the_joint_loss_is_its_formula() -> None:
    classify, rebuild = joint({"image": 0.3, "text": 0.7})
    fused, image, text = (torch.randn(4, size, dtype=torch.double) for size in (4, 3, 2))
    label, has_text = torch.tensor([[1.0, 0.0]] * 4).double(), torch.tensor([True, False, True, True])
    state = state_of(fused, image, text, has_text)
    p = torch.sigmoid(classify.out(fused))
    bce = -(label * p.log() + (1 - label) * (1 - p).log()).mean()
    image_term = ((rebuild.decoders["image"](fused) - image) ** 2).mean()
    text_term = ((rebuild.decoders["text"](fused) - text) ** 2).mean(1)[has_text].mean()
    found = classify.loss(state, label) + rebuild.loss(state, torch.zeros(4))
    assert found.item() == pytest.approx((bce + 0.3 * image_term + 0.7 * text_term).item())


def test_rebuilding_moves_no_gradient_into_its_target() -> None:
    _, rebuild = joint({"image": 1.0})
    image = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    fused = torch.randn(4, 4, dtype=torch.double, requires_grad=True)
    there = torch.ones(4, dtype=torch.bool)
    rebuild.loss(state_of(fused, image, torch.zeros(4, 2), there), torch.zeros(4)).backward()
    assert image.grad is None
    assert fused.grad is not None


# balance and modality dropout


@pytest.mark.parametrize("kind", ["ratio", "uncertainty", "fixed"])
def test_a_balance_of_a_hand_computed_example(kind: str) -> None:
    balance = Balance(kind, {"a": 1.0, "b": 2.0}, {"a": 4.0, "b": 0.5})
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(1.0)}
    wanted = {
        "ratio": 2 / 4 + 2 * 1 / 0.5,
        "uncertainty": (2 / 4 + np.log(4)) + 2 * (1 / 0.5 + np.log(0.5)),
        "fixed": 2 + 2 * 1,
    }
    assert balance(losses).item() == pytest.approx(wanted[kind])


def test_modality_dropout_never_takes_all_that_a_row_has() -> None:
    torch.manual_seed(0)
    has = {"a": torch.ones(20_000, dtype=torch.bool), "b": torch.arange(20_000) % 2 == 0}
    keep = modality_dropout(
        Batch(torch.arange(20_000), {n: (torch.zeros(20_000, 1), m) for n, m in has.items()}, {}), 0.5
    )
    assert keep is not None
    assert (keep["a"] | keep["b"]).all()
    assert keep["a"][~has["b"]].all()
    assert not (keep["b"] & ~has["b"]).any()
    # of rows with both: each stays with 1/2, or comes back with the 1/4 in which both were dropped
    assert keep["a"][has["b"]].float().mean().item() == pytest.approx(0.75, abs=0.02)


# figures


def test_figures_of_a_hand_computed_classification() -> None:
    probability = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    found = metrics.classification(probability, np.array([0, 1, 1, -1]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.7]).mean())
    assert found["ece"] == pytest.approx((0.2 + 0.6 + 0.3) / 3)


def test_figures_of_a_hand_computed_alignment() -> None:
    one, other = np.eye(3), np.eye(3)[[0, 2, 1]]  # the second and the third row are exchanged: rank 3, for ties count
    found = metrics.alignment({"a": one, "b": other}, np.arange(3))
    assert found["a to b R@1"] == found["b to a R@1"] == pytest.approx(1 / 3)
    assert found["a to b median rank"] == 3
    assert found["mean reciprocal rank"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found["mean R@10"] == 1


def test_a_baseline_learns_from_the_same_twenty_thousand_labelled_rows_at_most() -> None:
    target = np.where(np.arange(90_000) % 3, np.arange(90_000) % 5, -1)
    chosen = to_fit(np.arange(60_000), target)
    assert len(np.unique(chosen)) == MOST
    assert chosen.max() < 60_000
    assert (target[chosen] >= 0).all()
    assert np.array_equal(chosen, to_fit(np.arange(60_000), target))
    assert to_fit(np.array([0, 1, 2]), target).tolist() == [1, 2]


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        values = random.random(150) < 0.7
        ((low, high),) = metrics.intervals([lambda rows, v=values: v[rows].mean()], 150, seed=seed)
        covered.append(low <= 0.7 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)  # 3 sigma of 200 draws


def test_a_task_that_names_an_input_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="alpha names sound; the inputs are image"):
        FusionModel(
            Architecture(
                {"image": 3}, (), "linear", 8, 1, 0.0, {"r": TaskFacts("reconstruct", 1.0, {"alpha": {"sound": 1}})}
            )
        )
