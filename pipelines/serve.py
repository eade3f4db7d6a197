"""The service on Ray Serve: the same app as `mmdata serve`, in replicas behind Ray's proxy.

    python -m pipelines.serve --set dataset=demo/dataset --set replicas=2

CONFIG.yaml holds the keys of `mmdata.config.ServeConfig`; every node has to see the dataset and the key file. Ends,
and takes the service down, with Ctrl-C. Needs `pip install 'mmdata[serve]'`.
"""

import os
from typing import Any

from ray import serve

from mmdata.cluster.connect import connected
from mmdata.config import ServeConfig
from mmdata.serve.limits import access
from pipelines._main import run_job


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


def main(config: ServeConfig, *, blocking: bool = True) -> None:
    """Serve until the process is told to end."""
    access(config.host, config.api_key_file, config.allow_host)  # a host that needs a key ends here, not in a replica
    with connected(config.ray_address or os.environ.get("RAY_ADDRESS")):
        serve.start(http_options={"host": config.host, "port": config.port})
        serve.run(application(config), name="mmdata", blocking=blocking)


if __name__ == "__main__":
    run_job(main, ServeConfig, __doc__)
