"""The service on Ray Serve: the same app as `mmdata serve`, in replicas behind Ray's proxy.

    python -m pipelines.serve --set dataset=demo/dataset --set replicas=2

CONFIG.yaml holds the keys of `mmdata.config.ServeConfig`; every node has to see the dataset and the key file. Ends,
and takes the service down, with Ctrl-C. Needs `pip install 'mmdata[serve]'`.
"""

import os
import threading
from typing import Any

from ray import serve

from mmdata.cluster.connect import connected
from mmdata.config import ServeConfig
from mmdata.serve.limits import access
from mmdata.storage.dataset import Dataset
from pipelines._main import run_job

NAME = "mmdata"


def application(config: ServeConfig) -> Any:
    """What Ray Serve runs: each replica builds the app for itself."""

    def build() -> Any:
        from mmdata.serve.start import app_of

        return app_of(config)

    replica = serve.deployment(
        num_replicas=config.replicas,
        max_ongoing_requests=config.max_requests,
        ray_actor_options={"num_cpus": config.cpus_per_replica},
    )
    return replica(serve.ingress(build)()).bind()


def _anywhere(config: ServeConfig) -> ServeConfig:
    """With paths that mean the same in a replica, which may start in another folder."""
    key = config.api_key_file
    return config.model_copy(
        update={"dataset": Dataset(config.dataset).url, "api_key_file": None if key is None else key.resolve()}
    )


def main(config: ServeConfig) -> None:
    """Serve until the process is told to end."""
    access(config.host, config.api_key_file, config.allow_host)  # a host that needs a key ends here, not in a replica
    with connected(config.ray_address or os.environ.get("RAY_ADDRESS")):
        serve.start(http_options={"host": config.host, "port": config.port})
        serve.run(application(_anywhere(config)), name=NAME)
        try:
            threading.Event().wait()
        finally:
            serve.delete(NAME)  # what else runs on this Serve goes on


if __name__ == "__main__":
    run_job(main, ServeConfig, __doc__)
