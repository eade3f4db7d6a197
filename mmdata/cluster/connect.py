"""The cluster: a connection to it, and how many workers of what size it can hold."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from mmdata.cluster import Resources, kept_until
from mmdata.cluster.worker import memory_kills
from mmdata.errors import ConfigError

ANSWER_SECONDS = 20.0
GUARDED = "it asks for a token; set RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
log = logging.getLogger(__name__)
Node = tuple[float, float]
"""CPUs and GPUs."""


def fit(resources: Resources, items: int) -> Resources:
    """As many workers as the nodes can hold and the items need; what is left of the CPUs asked is shared out.

    So a single item has the threads of all workers, as far as one node has them. Raises ConfigError, saying
    what is asked and what there is, when no node can hold a worker, or comes within `limits.nodes` seconds.
    """
    there = _wait_for_room(resources)
    wanted = resources.workers or there
    if wanted > there:
        log.warning("%d workers asked, the cluster has room for %d; the others start when it grows", wanted, there)
    size = min(wanted, there)
    workers = min(size, items)
    shares = (resources.cpus * factor for factor in range(size // workers, 1, -1))
    cpus = next((share for share in shares if room(replace(resources, cpus=share)) >= workers), resources.cpus)
    return replace(resources, workers=workers, cpus=cpus)


def room(resources: Resources) -> int:
    """Workers of this size that the nodes can hold now."""
    asked = resources.cpus, resources.gpus
    return sum(int(min(has / need for has, need in zip(node, asked, strict=True) if need) + 1e-9) for node in _nodes())


def _nodes() -> list[Node]:
    import ray

    return [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]


def _wait_for_room(resources: Resources) -> int:
    """An autoscaler has to be asked, or it brings no node."""
    from ray.autoscaler.sdk import request_resources

    if there := room(resources):
        return there
    end = time.monotonic() + resources.limits.nodes
    if resources.limits.nodes:
        log.warning("no node can hold a worker; waiting %g s for one", resources.limits.nodes)
        request_resources(bundles=[{"CPU": resources.cpus, "GPU": resources.gpus}])
    while not (there := room(resources)) and time.monotonic() < end:
        time.sleep(1)
    if resources.limits.nodes:
        request_resources(bundles=[])  # from now on the workers themselves do
    if there:
        return there
    nodes = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(_nodes())))
    raise ConfigError(
        f"one worker needs {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and no node of the cluster has "
        f"that; there are: {nodes}; ask less with cpus_per_worker and gpus_per_worker, or wait for an autoscaler "
        "with wait_for_nodes"
    )


def kills_on(node: str) -> int:
    """`memory_kills` of a node now; 0 when it cannot be asked."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    ref = ray.remote(memory_kills).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()
    try:
        return int(ray.get(ref, timeout=ANSWER_SECONDS))
    except (RayError, TimeoutError):
        return 0


def last_line(error: Exception) -> str:
    """The line of one of Ray's errors that says what happened."""
    return str(error).strip().rpartition("\n")[2].strip()


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, or to a Ray of our own; one that is there already is used and kept."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what its raylets report would go to stdout, among results
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": "error", "log_to_driver": False}  # Ray warns at each start that it uses a token
    try:
        with _our_sigterm():
            if address is None:
                ray.init(address="local", include_dashboard=False, **quiet)
            else:
                knock(address)
                ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        what = f"reach the Ray cluster at {address}" if address else "start Ray on this machine"
        why = GUARDED if "AuthToken" in str(error.__cause__) else last_line(error)
        raise ConfigError(f"cannot {what}: {why}") from error
    with ExitStack() as until:
        (kept_until() or until).callback(ray.shutdown)
        yield


@contextmanager
def _our_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the one that is there."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_DFL):
        signal.signal(signal.SIGTERM, before)


def knock(address: str) -> None:
    """OSError when nobody listens at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
