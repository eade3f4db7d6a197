"""The verb that answers over HTTP: serve."""

from typing import Annotated

import typer

from mmdata.cli.look import DatasetArg


def serve(
    dataset: DatasetArg,
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen at")] = 8000,
) -> None:
    """Answer searches over HTTP, and show the page.

    mmdata serve data/
    """
    import uvicorn

    from mmdata.serve.app import create_app
    from mmdata.storage.dataset import Dataset

    uvicorn.run(create_app(Dataset.open(dataset)), host=host, port=port, log_level="warning")
