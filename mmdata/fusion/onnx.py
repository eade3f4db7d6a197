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
    shapes = tuple(_free(tensor, name in model.architecture.tokens) for name in flat.names for tensor in example[name])
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


def _free(tensor: Tensor, tokens: bool) -> dict[int, Any]:
    """The dimensions of a tensor that may change: rows, and tokens."""
    rows = {0: torch.export.Dim("rows")}
    return rows | {1: torch.export.Dim.DYNAMIC} if tokens else rows


def example_inputs(model: FusionModel, rows: int = ROWS) -> Inputs:
    """Random inputs in which every input is missing somewhere."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for name, dim in model.architecture.inputs.items():
        shape = (rows, TOKENS) if name in model.architecture.tokens else (rows,)
        found[name] = (torch.randn(*shape, dim, generator=random), torch.rand(shape, generator=random) > 0.3)
    return found
