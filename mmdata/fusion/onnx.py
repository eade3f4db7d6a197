"""A trained head as ONNX: inputs are NAME and NAME.present, outputs TASK.OUTPUT."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from mmdata.errors import ModelError
from mmdata.fusion.feed import Inputs
from mmdata.fusion.model import FusionModel

OPSET = 20
ROWS, TOKENS = 3, 5  # of the example that is traced; both stay free


class _Flat(nn.Module):
    """The model with tensors in and tensors out."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model
        self.names = sorted(model.architecture.inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(tensors[::2], tensors[1::2], strict=True)
        state = self.model(dict(zip(self.names, pairs, strict=True)))
        return tuple(value for name in self.model.tasks for value in self.model.task(name).outputs(state).values())


def to_onnx(model: FusionModel) -> bytes:
    """The outputs of every task; rows, and tokens of token inputs, are free. ModelError without the onnx extra."""
    flat, example = _Flat(model.eval()), example_inputs(model)
    tensors = tuple(tensor for name in flat.names for tensor in example[name])
    inputs = [text for name in flat.names for text in (name, f"{name}.present")]
    with torch.no_grad():
        state = model(example)
        outputs = [f"{name}.{out}" for name in model.tasks for out in model.task(name).outputs(state)]
    shapes = tuple(_free(name in model.architecture.tokens) for name in flat.names for _ in example[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                flat,
                tensors,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=(shapes,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise ModelError(f"export needs pip install 'mmdata[onnx]': {error}") from error
    assert program is not None  # noqa: S101 - for mypy: None comes with a file name only
    return bytes(program.model_proto.SerializeToString())


def _free(tokens: bool) -> dict[int, Any]:
    """The dimensions of a tensor that may change: rows, and tokens."""
    return {place: torch.export.Dim.DYNAMIC for place in ((0, 1) if tokens else (0,))}


def example_inputs(model: FusionModel, rows: int = ROWS) -> Inputs:
    """Random inputs; row i lacks the i-th input, and others are missing here and there."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for place, (name, dim) in enumerate(sorted(model.architecture.inputs.items())):
        shape = (rows, TOKENS) if name in model.architecture.tokens else (rows,)
        mask = torch.rand(shape, generator=random) > 0.3
        mask[place : place + 1] = False
        found[name] = (torch.randn(*shape, dim, generator=random), mask)
    return found
