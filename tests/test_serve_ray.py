"""The service on a real Ray Serve, and as a process that is told to end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from made_features import clusters, make, write_features

from mmdata.storage.dataset import Dataset

ROOT = Path(__file__).parent.parent
VECTOR = {"index": "f", "terms": [{"vector": [1.0] * 16}], "k": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    dataset = Dataset.create(str(tmp_path_factory.mktemp("serve") / "dataset"))
    write_features(dataset, "f", [clusters(300, 16)])
    make(dataset)
    return dataset


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(*command: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def test_a_service_that_is_told_to_end_answers_what_is_open(dataset: Dataset) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = started("-c", "from mmdata.cli import main; main()", "serve", dataset.url, "--port", str(port))
    wait_for(url, process)
    body = b'{"index": "f", "terms": [{"vector": ' + str([1.0] * 16).encode() + b'}], "k": 3}'
    answers = []

    def slow_body():
        yield body[:10]
        sent.set()
        time.sleep(1)
        yield body[10:]

    sent = threading.Event()
    headers = {"Content-Type": "application/json"}
    ask = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{url}/search", content=slow_body(), headers=headers, trust_env=False)
        )
    )
    ask.start()
    sent.wait()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    ask.join()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert len(answers[0].json()["answers"][0]["hits"]) == 3


@pytest.mark.slow
def test_replicas_on_ray_serve_answer_as_one_process_does(dataset: Dataset) -> None:
    port = free_port()
    settings = [f"dataset={dataset.url}", f"port={port}", "replicas=2", "cpus_per_replica=0.5"]
    process = started("-m", "pipelines.serve", *[word for pair in settings for word in ("--set", pair)])
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            answers = [client.post("/search", json=VECTOR).json()["answers"][0]["hits"] for _ in range(20)]
            assert client.get("/indexes", headers={"Host": "evil.example"}).status_code == 400
            assert client.get("/samples/0").status_code == 404
        expected = np.argsort(-_cosines(dataset))[:3].tolist()
        assert [[hit["row"] for hit in answer] for answer in answers] == [expected] * 20
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def _cosines(dataset: Dataset) -> np.ndarray:
    rows = clusters(300, 16)
    return rows @ np.ones(16) / np.linalg.norm(rows, axis=1)
