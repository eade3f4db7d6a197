"""What a head can learn: a loss on the state of a batch, outputs, and figures that say how good they are.

Each task has its own labels; a row without one (-1, or NaN) trains the other tasks and not this one.
"""

from typing import Any

from mmdata.fusion.tasks.joint import Reconstruct
from mmdata.fusion.tasks.labelled import Multiclass, Multilabel, Regression
from mmdata.fusion.tasks.pairs import Align, Match
from mmdata.fusion.tasks.task import Context, Outputs, State, Task

__all__ = ["TASKS", "Align", "Context", "Multiclass", "Multilabel", "Outputs", "Regression", "State", "Task"]

TASKS: dict[str, Any] = {
    "multiclass": Multiclass,
    "multilabel": Multilabel,
    "regression": Regression,
    "align": Align,
    "match": Match,
    "reconstruct": Reconstruct,
}
