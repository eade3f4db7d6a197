"""The same work in this process and on Ray, and what becomes of it when workers die."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray.cloudpickle

import mmdata.cluster.actors
import mmdata.cluster.here
from mmdata.cluster import Done, Limits, Resources, WorkerDied, default_resources, run, threads
from mmdata.errors import ConfigError, Conflict, MMDataError, ModelError

HERE = Resources(workers=0)
ONE = Resources(workers=1)
TWO = Resources(workers=2)
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file


def setup(folder: Path) -> Path:
    """Leaves one file a worker."""
    (folder / f"setup-{os.getpid()}").touch()
    return folder


def double(folder: Path, item: int) -> tuple[int, int]:
    return 2 * item, os.getpid()


def with_company(folder: Path, item: int) -> int:
    """The worker's process id, once there are two workers."""
    assert any(time.sleep(0.1) or len(list(folder.glob("setup-*"))) == 2 for _ in range(300))
    return os.getpid()


def fail_on_three(folder: Path, item: int) -> int:
    if item == 3:
        raise Conflict("three is taken")
    if item == 4:
        raise KeyError("four")
    if item == 5:
        raise NotOurs(5, "five")
    return item


class NotOurs(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)


def count_threads(folder: Path, item: str) -> int:
    return threads()


def lambdas(folder: Path, item: int) -> object:
    return (x for x in [item]) if item == 1 else item  # a generator cannot cross to the driver


def die_once(folder: Path, item: str) -> str:
    _note(folder, item)
    if item == "killer" and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die_always(folder: Path, item: str) -> str:
    """The killer waits for company, so that its death always hits a neighbour as well, and then dies."""
    _note(folder, item)
    if item == "killer":
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1.0)
    return item


def _note(folder: Path, item: str) -> None:
    with (folder / f"tries-{item}").open("a") as file:
        file.write(f"{os.getpid()}\n")


def tries(folder: Path, item: str) -> list[str]:
    """The processes that took an item, in order."""
    return (folder / f"tries-{item}").read_text().split()


def meet(folder: Path, item: str) -> bool:
    """Whether the other item was in work at the same time."""
    (folder / item).touch()
    return any(time.sleep(0.1) or len(list(folder.glob("[ab]"))) == 2 for _ in range(100))


def slow(folder: Path, item: str) -> str:
    time.sleep(3)
    return item


def outcomes(ended: Iterator[Done]) -> dict:
    return {done.item: done.result if done.error is None else done.error for done in ended}


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(params=[HERE, TWO], ids=["here", "ray"])
def anywhere(request: pytest.FixtureRequest, local_ray: None) -> Resources:
    return request.param


def test_every_item_has_its_result(anywhere: Resources, tmp_path: Path) -> None:
    ended = outcomes(run(partial(setup, tmp_path), double, list(range(9)), anywhere))
    assert {item: result for item, (result, _) in ended.items()} == {n: 2 * n for n in range(9)}


def test_setup_runs_once_a_worker(local_ray: None, tmp_path: Path) -> None:
    ended = outcomes(run(partial(setup, tmp_path), with_company, list(range(12)), TWO))
    assert {f"setup-{pid}" for pid in ended.values()} == {path.name for path in tmp_path.iterdir()}
    assert len(set(ended.values())) == 2  # how many items each takes is up to the machine


def test_nothing_is_set_up_for_nothing(tmp_path: Path) -> None:
    assert list(run(partial(setup, tmp_path), double, [], TWO)) == []
    assert list(tmp_path.iterdir()) == []


def test_an_item_that_fails_keeps_its_error_and_stops_no_other(anywhere: Resources, tmp_path: Path) -> None:
    ended = outcomes(run(partial(setup, tmp_path), fail_on_three, [1, 2, 3, 4, 5, 6], anywhere))
    assert {item: str(result) for item, result in ended.items() if item in (1, 2, 6)} == {1: "1", 2: "2", 6: "6"}
    assert (type(ended[3]), str(ended[3])) == (Conflict, "three is taken")
    assert (type(ended[4]), str(ended[4])) == (KeyError, "'four'")
    assert "five" in str(ended[5])


def test_a_result_that_cannot_cross_is_an_error_of_its_item(local_ray: None, tmp_path: Path) -> None:
    ended = outcomes(run(partial(setup, tmp_path), lambdas, [1, 2, 3, 4], ONE))
    assert {item: ended[item] for item in (2, 3, 4)} == {2: 2, 3: 3, 4: 4}
    assert type(ended[1]) is MMDataError
    assert "cannot pickle 'generator' object" in str(ended[1])
    assert [path.name for path in tmp_path.iterdir()] == [f"setup-{path.name[6:]}" for path in tmp_path.iterdir()]
    assert len(list(tmp_path.iterdir())) == 1  # and its worker lives on


def refuse() -> None:
    raise Conflict("made by another encoder")


def stumble() -> None:
    raise ValueError("no such\nlayer")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_setup_that_fails_ends_the_run_with_its_error(anywhere: Resources) -> None:
    with pytest.raises(Conflict, match=r"^made by another encoder$") as caught:
        list(run(refuse, double, [1, 2, 3], anywhere))
    assert caught.value.exit_code == 6


def test_a_setup_with_a_bug_is_a_model_error_that_says_which(anywhere: Resources) -> None:
    with pytest.raises(ModelError, match=r"^a worker could not be set up: ValueError: no such\nlayer$"):
        list(run(stumble, double, [1, 2, 3], anywhere))


def test_workers_that_die_in_setup_end_the_run(local_ray: None) -> None:
    with pytest.raises(ModelError, match="3 workers died while they were set up: The actor is dead because"):
        list(run(die, double, [1, 2, 3], TWO))


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(local_ray: None, tmp_path: Path) -> None:
    items = ["killer", *(f"item{n}" for n in range(7))]
    ended = list(run(partial(setup, tmp_path), die_once, items, TWO))
    assert sorted((done.item, done.result, done.error) for done in ended) == sorted((i, i, None) for i in items)
    first, second = tries(tmp_path, "killer")
    assert first != second
    assert not alive(first)


@pytest.mark.parametrize("resources", [ONE, TWO], ids=["one worker", "two workers"])
def test_an_item_that_always_kills_is_given_up_and_its_neighbours_are_not(
    resources: Resources, local_ray: None, tmp_path: Path
) -> None:
    items = ["item0", "killer", "item1", "item2", "item3", "item4"]
    ended = outcomes(run(partial(setup, tmp_path), die_always, items, resources))
    killer = ended.pop("killer")
    assert ended == {f"item{n}": f"item{n}" for n in range(5)}
    assert type(killer) is WorkerDied
    assert killer.exit_code == 4
    assert str(killer).startswith(
        "run: killer killed 3 workers; the last: The actor is dead because its worker process"
    )
    assert str(killer).endswith("\nrun the same command again to go on")
    assert len(set(tries(tmp_path, "killer"))) == 3
    assert max(len(tries(tmp_path, f"item{n}")) for n in range(5)) == 2  # hit once, then kept away from the killer


def test_a_worker_has_two_items_in_work_at_once(local_ray: None, tmp_path: Path) -> None:
    ended = outcomes(run(partial(setup, tmp_path), meet, ["a", "b"], ONE))
    assert ended == {"a": True, "b": True}


def test_the_last_items_are_left_to_workers_that_have_none(local_ray: None, tmp_path: Path) -> None:
    assert len(set(outcomes(run(partial(setup, tmp_path), with_company, ["a", "b"], TWO)).values())) == 2


def test_more_workers_than_fit_are_fitted_with_a_warning(
    local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended = outcomes(run(partial(setup, tmp_path), double, list(range(8)), Resources(workers=7)))
    assert sorted(result for result, _ in ended.values()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert "7 workers asked, the cluster has room for 2" in caplog.text
    assert len(list(tmp_path.iterdir())) <= 2


def test_a_share_of_a_cpu_is_counted_exactly(local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(run(partial(setup, tmp_path), double, [1], Resources(workers=20, cpus=0.1)))
    assert "room for" not in caplog.text


def test_one_item_has_the_threads_of_all_workers(local_ray: None, tmp_path: Path) -> None:
    assert outcomes(run(partial(setup, tmp_path), count_threads, ["a"], TWO)) == {"a": 2}
    assert set(outcomes(run(partial(setup, tmp_path), count_threads, ["a", "b"], TWO)).values()) == {1}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(workers=1, cpus=64), "one worker needs 64 CPUs and 0 GPUs, .* there are: 2 CPUs and 0 GPUs"),
        (Resources(workers=1, cpus=64, limits=Limits(nodes=1)), "one worker needs 64 CPUs .* wait_for_nodes"),
        (Resources(workers=None, gpus=1), "one worker needs 1 CPUs and 1 GPUs, .* there are: 2 CPUs and 0 GPUs"),
    ],
)
def test_what_no_node_can_hold_is_refused_with_what_there_is(
    resources: Resources, message: str, local_ray: None, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        list(run(partial(setup, tmp_path), double, [1], resources))
    assert list(tmp_path.iterdir()) == []


def test_a_stall_names_what_it_waits_for(
    local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmdata.cluster.actors, "STALL_SECONDS", 0.5)
    assert outcomes(run(partial(setup, tmp_path), slow, ["000041", "000042"], ONE)) == {
        "000041": "000041",
        "000042": "000042",
    }
    told = (
        r"run: nothing ended for 0.5 s: 1 workers ready, 0 waiting to start \(free: 1 CPUs, 0 GPUs\), 0 shards queued, "
    )
    assert re.search(told + "in work: 000041, 000042", caplog.text)


def test_a_stall_in_this_process_names_what_it_waits_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmdata.cluster.here, "STALL_SECONDS", 0.5)
    limited = Resources(0, limits=Limits(sample=1.0))  # which is also how often it looks
    assert outcomes(run(partial(setup, tmp_path), slow, ["000041"], limited, name="extract")) == {"000041": "000041"}
    assert "extract: nothing ended for 0.5 s: 0 shards queued, in work: 000041" in caplog.text


def preempted_once(folder: Path, item: str) -> str:
    """A kind kill in the midst of one item, and after its grace the other, as spot nodes have them."""
    if item == "first" and not (folder / "preempted").exists():
        (folder / "preempted").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_worker_that_is_preempted_loses_and_doubles_nothing(local_ray: None, tmp_path: Path) -> None:
    items = ["first", *(f"item{n}" for n in range(5))]
    ended = list(run(partial(setup, tmp_path), preempted_once, items, ONE))
    assert sorted((done.item, done.result, done.error) for done in ended) == sorted((i, i, None) for i in items)
    assert len(list(tmp_path.glob("setup-*"))) == 2


def test_a_run_that_is_given_up_leaves_no_actor_behind(local_ray: None, tmp_path: Path) -> None:
    ended = run(partial(setup, tmp_path), slow, ["a", "b", "c"], TWO)
    next(ended)
    workers = [path.name.removeprefix("setup-") for path in tmp_path.glob("setup-*")]
    assert any(alive(pid) for pid in workers)
    ended.close()  # as an error in the driver does
    assert any(time.sleep(0.2) or not any(alive(pid) for pid in workers) for _ in range(50))


def test_a_cluster_that_is_not_there_is_a_config_error_at_once() -> None:
    code = """
from mmdata.cluster import Resources, run
from mmdata.errors import ConfigError
try:
    list(run(int, max, [1], Resources(1, address="127.0.0.1:9")))
except ConfigError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.startswith("cannot reach the Ray cluster at 127.0.0.1:9: ")


@pytest.mark.parametrize(
    ("workers", "address", "expected"),
    [
        (None, None, Resources(0, 1.0, 0.0, None)),
        (1, None, Resources(1, float(os.cpu_count() or 1), 0.0, None)),
        (1000, None, Resources(1000, 1.0, 0.0, None)),
        (None, "host:6379", Resources(None, 1.0, 0.0, "host:6379")),
        (0, "host:6379", Resources(0, 1.0, 0.0, "host:6379")),
    ],
)
def test_workers_and_cpus_follow_from_what_is_given(
    workers: int | None, address: str | None, expected: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert default_resources(workers, None, 0.0, address) == expected


def test_ray_address_is_honoured_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert default_resources(None, None, 0.0, None) == Resources(None, 1.0, 0.0, "head:6379")
    assert default_resources(3, None, 0.0, "other:6379").address == "other:6379"


NODES = """
import os, sys, time
from functools import partial
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from mmdata.cluster import Resources, run

def setup(folder, nodes):
    node = ray.get_runtime_context().get_node_id()
    (folder / f"node-{node}").touch()
    return folder, nodes, node

def work(state, item):
    folder, nodes, node = state
    with (folder / str(item)).open("a") as file:
        file.write(f"{node} {os.getpid()}\\n")
    while len(list(folder.glob("node-*"))) < min(nodes, 1 + item // 8):  # each 8 items wait for one more node
        time.sleep(0.1)
    time.sleep(0.5)
    return node

def tell(*words):
    with (folder / "told").open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def removed(cluster, node):
    tell("removed", node.node_id)
    cluster.remove_node(node, allow_graceful=False)

def joined(cluster):
    node = cluster.add_node(num_cpus=1)
    tell("joined", node.node_id)
    return node

if __name__ == "__main__":
    folder, plan, workers = Path(sys.argv[1]), sys.argv[2].split(), int(sys.argv[3]) or None
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = None
    nodes = 1 + plan.count("join")
    for done in run(partial(setup, folder, nodes), work, list(range(24)), Resources(workers, address=cluster.address)):
        tell("done", done.item, done.result, done.error)
        if plan and plan[0] == "join":
            second = joined(cluster)
            plan.pop(0)
        elif plan and plan[0] == "remove" and done.result == second.node_id:
            removed(cluster, second)
            plan.pop(0)
    cluster.shutdown()
"""


def on_nodes(folder: Path, plan: str, workers: int) -> tuple[list[str], list[str], dict[str, str]]:
    """The nodes that joined, those that were removed, and the node that did each item."""
    script = folder / "nodes.py"
    script.write_text(NODES)
    command = [sys.executable, script, folder, plan, str(workers)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=250, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in (folder / "told").read_text().splitlines()]
    done = [line[1:] for line in lines if line[:1] == ["done"]]
    assert {error for _, _, error in done} == {"None"}
    assert sorted(int(item) for item, _, _ in done) == list(range(24))
    joined, removed = ([line[1] for line in lines if line[:1] == [what]] for what in ("joined", "removed"))
    return joined, removed, {item: node for item, node, _ in done}


@pytest.mark.parametrize("workers", [0, pytest.param(3, marks=pytest.mark.slow)], ids=["fitted", "three asked"])
def test_a_node_that_joins_gets_work(workers: int, tmp_path: Path) -> None:
    joined, _, nodes = on_nodes(tmp_path, "join", workers)
    assert len(set(nodes.values())) == 2
    assert set(joined) < set(nodes.values())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2], ids=["fitted", "two asked"])
def test_a_node_that_is_lost_and_one_that_joins_lose_and_double_nothing(workers: int, tmp_path: Path) -> None:
    joined, removed, nodes = on_nodes(tmp_path, "join remove join", workers)
    tries = {item: [line.split()[0] for line in (tmp_path / item).read_text().splitlines()] for item in nodes}
    again = {item: nodes for item, nodes in tries.items() if len(nodes) > 1}
    assert removed == joined[:1]
    assert joined[1] in nodes.values()
    assert len(again) <= 2  # what was in work on that node
    assert {nodes[0] for nodes in again.values()} <= set(removed)
    assert {node for nodes in again.values() for node in nodes[1:]}.isdisjoint(removed)


INTERRUPTED = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from mmdata.cluster import Resources, run
from mmdata.stages.ahead import ordered_map

def setup(folder):
    return folder, ThreadPoolExecutor(1)

def work(state, item):
    folder, pool = state
    (folder / f"started-{item}").touch()
    five_minutes = [0.1] * 3000  # in threads, as the stages have them
    for _ in ordered_map(pool, time.sleep, five_minutes, ahead=4, budget=1, size=lambda _: 0):
        pass

if __name__ == "__main__":
    list(run(partial(setup, Path(sys.argv[1])), work, ["a", "b", "c"], Resources(workers=int(sys.argv[2]))))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_ends_a_run_and_waits_for_no_shard(workers: int, tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen([sys.executable, script, tmp_path, str(workers)], stderr=subprocess.PIPE, text=True)
    assert any(time.sleep(0.1) or len(list(tmp_path.glob("started-*"))) == 2 for _ in range(600))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)  # of the 300 s that the shards would take
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert sorted(path.name for path in tmp_path.glob("started-*")) == ["started-a", "started-b"]
