"""An empty cluster that Ray's own autoscaler fills: what is wanted is asked for, what comes is used."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_kill import descendants

BIN = Path(sys.executable).parent
LISTS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")

RUN = """
import sys, time
from mmdata.cluster import Limits, Resources, run

def setup():
    import ray
    return ray.get_runtime_context().get_node_id()

def work(node, item):
    time.sleep(1 if item < 4 else 8)  # the second node takes a while
    return node

if __name__ == "__main__":
    resources = Resources(2, address=sys.argv[1], limits=Limits(nodes=120))
    for done in run(setup, work, list(range(12)), resources):
        sys.stderr.write(f"done {done.item} {done.result} {done.error}\\n")
"""


def node_type(cpus: int, most: int) -> dict[str, object]:
    return {"resources": {"CPU": cpus}, "node_config": {}, "min_workers": 0, "max_workers": most}


@pytest.fixture
def empty_cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Its address and environment: a head without CPUs, and nodes of one CPU that are processes of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    provider = {"type": "fake_multinode", "use_node_id_as_ip": True, "gcs_address": address}
    config = {
        "cluster_name": "empty",
        "max_workers": 2,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 5,
        "provider": provider | {"disable_node_updaters": True, "disable_launch_config_check": True},
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": node_type(0, 0), "spot": node_type(1, 2)},
    } | {f"{name}_commands": [] for name in LISTS}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = os.environ | token | {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        flags = [f"--port={address.partition(':')[2]}", f"--temp-dir={folder}", "--object-store-memory=100000000"]
        flags += [f"--autoscaling-config={folder}/config.json", "--include-dashboard=false", "--disable-usage-stats"]
        with (Path(folder) / "told").open("w") as told:
            command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=0", *flags]
            head = subprocess.Popen(command, env=environment, stdout=told, stderr=told)
        try:
            yield address, environment
        finally:
            nodes = descendants(head.pid)
            head.terminate()
            head.wait(60)
            for pid in nodes:  # which outlive their head by a minute
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_an_autoscaler_is_asked_for_nodes_and_every_node_that_comes_gets_work(
    empty_cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = empty_cluster
    script = tmp_path / "run.py"
    script.write_text(RUN)
    for _ in range(30):  # the head takes some seconds
        ran = subprocess.run(
            [sys.executable, script, address], capture_output=True, text=True, timeout=280, env=environment
        )
        if "cannot reach" not in ran.stderr:
            break
    assert ran.returncode == 0, ran.stderr
    assert "no node can hold a worker; waiting 120 s for one" in ran.stderr
    done = [line.split() for line in ran.stderr.splitlines() if line.startswith("done ")]
    assert sorted(int(item) for _, item, _, _ in done) == list(range(12))
    assert {error for *_, error in done} == {"None"}
    assert len({node for _, _, node, _ in done}) == 2
