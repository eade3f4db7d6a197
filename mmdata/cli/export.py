"""The verb export."""

from pathlib import Path
from typing import Annotated

import typer

from mmdata.cli.build import AsJson, Config, DatasetArg, DryRun, Sets, _job


def export(
    dataset: DatasetArg = None,
    features: Annotated[str | None, typer.Option(help="a feature set, whose rows and vectors to write")] = None,
    to: Annotated[str | None, typer.Option(help="parquet, hf, lance, qdrant or embedding-atlas")] = None,
    head: Annotated[str | None, typer.Option(help="a trained head, to write as ONNX")] = None,
    out: Annotated[str | None, typer.Option(help="a local file or folder that is not there yet")] = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Rows and vectors of a feature set for other tools, or a trained head as ONNX.

    mmdata export data/ --features minilm --to parquet --out minilm.parquet
    mmdata export data/ --features minilm --to hf --out minilm-hf
    mmdata export data/ --features pictures.image --to qdrant --out pictures-qdrant
    mmdata export data/ --head category --out category.onnx
    """
    from mmdata.config import ExportConfig, load
    from mmdata.errors import ConfigError
    from mmdata.stages.export import export as stage

    if head is not None:
        if dataset is None or out is None or features or to:
            raise ConfigError("a head goes alone: mmdata export DATASET --head NAME --out FILE.onnx")
        _export_head(dataset, head, Path(out))
        return
    flags = {"dataset": dataset, "features": features, "to": to, "out": out}
    _job(stage, load(ExportConfig, config, set_ or (), flags), as_json, dry_run)


def _export_head(dataset: str, head: str, out: Path) -> None:
    from mmdata import console
    from mmdata.fusion.heads import read_head
    from mmdata.fusion.onnx import to_onnx
    from mmdata.fusion.trained import load_model
    from mmdata.storage.dataset import Dataset

    model = load_model(read_head(Dataset.open(dataset), head))
    out.write_bytes(to_onnx(model))
    console.emit(f"{out}: {out.stat().st_size} bytes")
