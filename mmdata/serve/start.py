"""From a config to a service that listens."""

import uvicorn
from fastapi import FastAPI

from mmdata.config import ServeConfig
from mmdata.serve.app import create_app
from mmdata.serve.limits import Limits, access
from mmdata.storage.dataset import Dataset

GRACE = 6  # seconds for open requests when the service is told to end; `mmdata.ending` allows 7 in all


def app_of(config: ServeConfig) -> FastAPI:
    """The app that a config describes. ConfigError for a host that needs a key, NotFound without a dataset."""
    allowed = access(config.host, config.api_key_file, config.allow_host)
    limits = Limits(body=config.max_body, k=config.max_k, seconds=config.max_seconds, requests=config.max_requests)
    return create_app(Dataset.open(config.dataset), allowed, limits, warm=True)


def listen(config: ServeConfig) -> None:
    """Answer until a signal comes; then no new request is taken, and those that are open are answered."""
    uvicorn.run(
        app_of(config),
        host=config.host,
        port=config.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
