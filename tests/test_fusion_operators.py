"""One contract over every fusion operator, and what each of them can learn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from mmdata.fusion.feed import Inputs
from mmdata.fusion.model import Architecture, FusionModel, TaskFacts
from mmdata.fusion.onnx import example_inputs, to_onnx
from mmdata.fusion.operators import OPERATORS, default_operator

PARITY = 1e-5  # ONNX against torch
TASKS = {
    "kind": TaskFacts("multiclass", 1.0, {}, {"classes": ["a", "b", "c"]}),
    "size": TaskFacts("regression", 1.0, {}, {"mean": 3.0, "scale": 2.0}),
    "tags": TaskFacts("multilabel", 1.0, {}, {"classes": ["x", "y"]}),
    "common": TaskFacts("align", 1.0, {"between": ["image", "text"], "dim": 8}),
    "space": TaskFacts(
        "align", 1.0, {"between": ["image", "text"], "dim": 8}, {"shared": {"image": [0, 4], "text": [3, 7]}}
    ),
    "match": TaskFacts("match", 1.0, {"between": ["image", "text"]}),
    "rebuild": TaskFacts("reconstruct", 1.0, {"alpha": {"image": 0.5, "text": 0.5}}),
}
operators = pytest.mark.parametrize("operator", OPERATORS)
kinds = pytest.mark.parametrize("tokens", [(), ("image",), ("image", "text")], ids=["pooled", "mixed", "tokens"])


def model_of(operator: str, tokens: tuple[str, ...] = (), tasks: Mapping[str, TaskFacts] = TASKS) -> FusionModel:
    torch.manual_seed(0)
    return FusionModel(Architecture({"image": 12, "text": 7}, tokens, operator, 16, 2, 0.1, dict(tasks)))


def targets_of(rows: int) -> dict[str, Tensor]:
    return {
        "kind": torch.arange(rows) % 3,
        "size": torch.linspace(-1, 1, rows),
        "tags": (torch.arange(2 * rows).view(rows, 2) % 2).float(),
        "common": torch.arange(rows),
        "space": torch.arange(rows),
        "match": torch.arange(rows),
        "rebuild": torch.zeros(rows),
    }


def flat(outputs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{task}.{name}": value for task, found in outputs.items() for name, value in found.items()}


@torch.no_grad()
def outputs_of(model: FusionModel, inputs: Inputs) -> dict[str, Tensor]:
    state = model.eval()(inputs)
    return flat({name: model.task(name).outputs(state) for name in model.tasks})


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name].nan_to_num(9), other[name].nan_to_num(9)) for name in one)


@operators
@kinds
def test_every_parameter_gets_a_gradient_and_is_saved(operator: str, tokens: tuple[str, ...]) -> None:
    model = model_of(operator, tokens)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    moved = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for _ in range(3):
        state = model.train()(example_inputs(model, 64))
        loss = torch.stack([model.task(name).loss(state, target) for name, target in targets_of(64).items()]).sum()
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            moved[name] |= parameter.grad != 0
        optimiser.step()
    assert [name for name, any_ in moved.items() if not any_.any()] == []
    assert {name for name, _ in model.named_parameters()} <= model.state_dict().keys()


@operators
@kinds
def test_a_saved_model_gives_the_same_bits(operator: str, tokens: tuple[str, ...]) -> None:
    model, again = model_of(operator, tokens), model_of(operator, tokens)
    torch.nn.init.normal_(next(model.fusion.parameters()))
    again.load_state_dict(load(save(model.state_dict())))
    inputs = example_inputs(model, 9)
    assert same_bits(outputs_of(model, inputs), outputs_of(again, inputs))


@operators
@kinds
def test_what_is_masked_changes_no_bit(operator: str, tokens: tuple[str, ...]) -> None:
    model = model_of(operator, tokens)
    inputs = example_inputs(model, 20)
    assert not any(mask.all() for _, mask in inputs.values())
    for garbage in (torch.nan, torch.inf, 1e30):
        spoiled = {name: (torch.where(mask[..., None], x, garbage), mask) for name, (x, mask) in inputs.items()}
        assert same_bits(outputs_of(model, inputs), outputs_of(model, spoiled))


@operators
def test_garbage_in_a_masked_row_reaches_no_gradient(operator: str) -> None:
    model = model_of(operator)
    inputs = {name: (torch.where(m[..., None], x, torch.nan), m) for name, (x, m) in example_inputs(model, 32).items()}
    state = model.train()(inputs)
    torch.stack([model.task(name).loss(state, target) for name, target in targets_of(32).items()]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@operators
def test_the_order_of_inputs_and_tasks_in_a_config_changes_nothing(operator: str) -> None:
    torch.manual_seed(0)
    turned = FusionModel(
        Architecture({"text": 7, "image": 12}, (), operator, 16, 2, 0.1, dict(reversed(list(TASKS.items()))))
    )
    model = model_of(operator)
    inputs = example_inputs(model, 9)
    assert same_bits(outputs_of(model, inputs), outputs_of(turned, dict(reversed(list(inputs.items())))))


@operators
@kinds
def test_a_row_does_not_depend_on_its_neighbours(operator: str, tokens: tuple[str, ...]) -> None:
    single = {name: task for name, task in TASKS.items() if name != "match"}  # which mixes rows on purpose
    model = model_of(operator, tokens, single)
    inputs = example_inputs(model, 6)
    whole = outputs_of(model, inputs)
    alone = outputs_of(model, {name: (x[2:3], mask[2:3]) for name, (x, mask) in inputs.items()})
    for name, value in alone.items():
        assert torch.allclose(value, whole[name][2:3], atol=1e-5, equal_nan=True)


@operators
def test_padding_of_tokens_changes_nothing(operator: str) -> None:
    model = model_of(operator, ("image",))
    inputs = example_inputs(model, 6)
    x, mask = inputs["image"]
    wider = inputs | {"image": (torch.cat([x, x], 1), torch.cat([mask, torch.zeros_like(mask)], 1))}
    for name, value in outputs_of(model, wider).items():
        assert torch.allclose(value, outputs_of(model, inputs)[name], atol=1e-5, equal_nan=True)


@operators
def test_an_input_that_is_not_given_is_one_that_every_row_lacks(operator: str) -> None:
    model = model_of(operator)
    inputs = example_inputs(model, 9)
    x, mask = inputs["text"]
    none = inputs | {"text": (x, torch.zeros_like(mask))}
    assert same_bits(outputs_of(model, {"image": inputs["image"]}), outputs_of(model, none))


@pytest.mark.slow  # the exporter takes seconds a model
@operators
@pytest.mark.parametrize("tokens", [(), ("image",)], ids=["pooled", "tokens"])
def test_onnx_of_every_operator_is_equal_to_torch(operator: str, tokens: tuple[str, ...]) -> None:
    check_onnx(operator, tokens)


def test_onnx_is_equal_to_torch() -> None:
    check_onnx("transformer", ("image",))


def check_onnx(operator: str, tokens: tuple[str, ...]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    unmixed = {name: task for name, task in TASKS.items() if name in ("kind", "common")}
    model = model_of(operator, tokens, unmixed)
    session = onnxruntime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    for rows in (1, 33):
        inputs = example_inputs(model, rows)
        given: dict[str, Any] = {name: x.numpy() for name, (x, _) in inputs.items()}
        given |= {f"{name}.present": mask.numpy() for name, (_, mask) in inputs.items()}
        wanted = outputs_of(model, inputs)
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert np.allclose(value, wanted[name].numpy(), atol=PARITY, equal_nan=True)


def test_the_default_operator_is_chosen_by_inputs_and_tokens() -> None:
    assert default_operator(3, tokens=False) == "concat_mlp"
    assert default_operator(4, tokens=False) == default_operator(2, tokens=True) == "transformer"
