"""The cluster: a connection to it, and how many workers of what size it can hold."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from mmdata.cluster import Resources, kept_until
from mmdata.errors import ConfigError

log = logging.getLogger(__name__)
Node = tuple[float, float]
"""CPUs and GPUs."""


def fit(resources: Resources, items: int) -> Resources:
    """As many workers as the nodes can hold and the items need; what is left of the CPUs asked is shared out.

    So a single item has the threads of all workers, as far as one node has them. Raises ConfigError, saying
    what is asked and what there is, when no node can hold a worker.
    """
    import ray

    nodes = [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]
    room = _room(nodes, resources.cpus, resources.gpus)
    if room < 1:
        there = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(nodes)))
        raise ConfigError(
            f"one worker needs {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and no node of the cluster has "
            f"that; there are: {there}; ask less with cpus_per_worker and gpus_per_worker"
        )
    wanted = resources.workers or room
    if wanted > room:
        log.warning("%d workers asked, the cluster has room for %d", wanted, room)
    size = min(wanted, room)
    workers = min(size, items)
    shares = (resources.cpus * factor for factor in range(size // workers, 1, -1))
    cpus = next((share for share in shares if _room(nodes, share, resources.gpus) >= workers), resources.cpus)
    return replace(resources, workers=workers, cpus=cpus)


def _room(nodes: list[Node], cpus: float, gpus: float) -> int:
    asked = cpus, gpus
    return sum(int(min(there / need for there, need in zip(node, asked, strict=True) if need) + 1e-9) for node in nodes)


def last_line(error: Exception) -> str:
    """The line of one of Ray's errors that says what happened."""
    return str(error).strip().rpartition("\n")[2].strip()


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, or to a Ray of our own; one that is there already is used and kept."""
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": "error", "log_to_driver": False}  # Ray warns at each start that it uses a token
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            _knock(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        what = f"reach the Ray cluster at {address}" if address else "start Ray on this machine"
        raise ConfigError(f"cannot {what}: {last_line(error)}") from error
    with ExitStack() as until:
        (kept_until() or until).callback(ray.shutdown)
        yield


def _knock(address: str) -> None:
    """OSError when nobody listens at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
