"""The verb that answers over HTTP: serve."""

from pathlib import Path
from typing import Annotated

import typer

from mmdata.cli.look import DatasetArg

GRACE = 20  # seconds for open requests when the service is told to end


def serve(
    dataset: DatasetArg,
    host: Annotated[str, typer.Option(help="address to listen at; others than this machine need --api-key-file")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen at")] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help="file with the key that requests must carry")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="name the service is reached by; repeatable")] = None,
    max_body: Annotated[int, typer.Option(min=1024, help="bytes of a request, uploads included")] = 8 << 20,
    max_k: Annotated[int, typer.Option(min=1, help="hits of a query")] = 1000,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="for a search")] = 30.0,
    max_requests: Annotated[int, typer.Option(min=1, help="requests open at once")] = 256,
) -> None:
    """Answer searches over HTTP, and show the page at http://127.0.0.1:8000/.

    mmdata serve data/
    mmdata serve data/ --host 0.0.0.0 --allow-host search.example.org --api-key-file key.txt
    """
    import uvicorn

    from mmdata import console
    from mmdata.serve.app import create_app
    from mmdata.serve.limits import Limits, access
    from mmdata.storage.dataset import Dataset

    limits = Limits(body=max_body, k=max_k, seconds=max_seconds, requests=max_requests)
    app = create_app(Dataset.open(dataset), access(host, api_key_file, allow_host or []), limits, warm=True)
    console.say(f"serving {dataset} at http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C ends it)")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
