"""The verb that answers over HTTP: serve."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mmdata.cli.build import Config, DatasetArg, Sets

KeyFile = Annotated[Path | None, typer.Option(help="file with the key that requests must carry")]


def serve(
    dataset: DatasetArg = None,
    host: Annotated[str | None, typer.Option(help="address to listen at; others need --api-key-file")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen at (8000)")] = None,
    api_key_file: KeyFile = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="name the service is reached by; repeatable")] = None,
    max_body: Annotated[str | None, typer.Option(help="bytes of a request, uploads included (8MiB)")] = None,
    max_k: Annotated[int | None, typer.Option(help="hits of a query (1000)")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="for a search (30)")] = None,
    max_requests: Annotated[int | None, typer.Option(help="requests open at once (256)")] = None,
    config: Config = None,
    set_: Sets = None,
) -> None:
    """Answer searches over HTTP, and show the page.

    mmdata serve data/
    mmdata serve data/ --host 0.0.0.0 --allow-host search.example.org --api-key-file key.txt
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of FAISS sleep and do not spin

    from mmdata import console
    from mmdata.config import ServeConfig, load
    from mmdata.serve.start import listen

    flags = {
        "dataset": dataset,
        "host": host,
        "port": port,
        "api_key_file": None if api_key_file is None else str(api_key_file),
        "allow_host": allow_host or None,
        "max_body": max_body,
        "max_k": max_k,
        "max_seconds": max_seconds,
        "max_requests": max_requests,
    }
    chosen = load(ServeConfig, config, set_ or (), flags)
    console.say(f"http://{f'[{chosen.host}]' if ':' in chosen.host else chosen.host}:{chosen.port}/ (Ctrl-C ends it)")
    listen(chosen)
