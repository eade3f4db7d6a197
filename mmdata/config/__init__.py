"""One model a stage. Flags go over --set, --set over the file, the file over the defaults."""

from mmdata.config.build import AlignConfig, EndToEndConfig, ExportConfig, ExtractConfig, IndexConfig, ShardConfig
from mmdata.config.learn import (
    EvaluateConfig,
    PredictConfig,
    ProbeConfig,
    ProjectConfig,
    SweepConfig,
    TrainConfig,
)
from mmdata.config.load import Config, check, load
from mmdata.config.serve import ServeConfig

__all__ = [
    "AlignConfig",
    "Config",
    "EndToEndConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExtractConfig",
    "IndexConfig",
    "PredictConfig",
    "ProbeConfig",
    "ProjectConfig",
    "ServeConfig",
    "ShardConfig",
    "SweepConfig",
    "TrainConfig",
    "check",
    "load",
]
