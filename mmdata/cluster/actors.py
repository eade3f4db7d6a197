"""The loop in the driver that feeds a pool of Ray actors and survives the death of any of them."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mmdata.cluster import (
    IN_FLIGHT,
    LOOK_EVERY,
    STALL_SECONDS,
    Done,
    Item,
    Resources,
    Result,
    State,
    setup_error,
)
from mmdata.cluster.connect import connected, fit, kills_on, last_line, room
from mmdata.cluster.metrics import show_workers
from mmdata.cluster.pool import Pool, Worker
from mmdata.cluster.task import ATTEMPTS, NODES, Order, Step
from mmdata.cluster.worker import WATCH, Actor
from mmdata.errors import MMDataError, ModelError, WorkerDied
from mmdata.heap import ENVIRONMENT
from mmdata.types import Reason

GO_ON = "\nrun the same command again to go on"
log = logging.getLogger(__name__)


def run_on_ray(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    resources: Resources,
    ready: Callable[[], None],
    samples: Callable[[Item], Sequence[int]] | None,
    name: str,
) -> Iterator[Done[Item, Result]]:
    """`mmdata.cluster.run` on actors: they are fitted to the cluster, fed, watched, and replaced when they die.

    The pool is what was asked for: workers that have no room yet wait for it, which is how an autoscaler learns of
    them. Where no number was asked it is what the nodes can hold, and follows them when they come and go.
    """
    with connected(resources.address):
        import ray

        fitted = fit(resources, len(items))
        actor_class = ray.remote(concurrency_groups={WATCH: 1})(Actor).options(
            num_cpus=fitted.cpus,
            num_gpus=fitted.gpus,
            max_concurrency=IN_FLIGHT,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": ENVIRONMENT},
        )
        arguments = ray.put(setup), ray.put(work), fitted.cpus  # once, however many workers there are
        pool = Pool(
            name=name,
            start=lambda: actor_class.remote(*arguments),
            room=lambda: resources.workers or room(fitted),
            limits=resources.limits,
            queue=deque(Order(item, samples) for item in items),
        )
        try:
            yield from _drive(pool, ready)
        finally:
            for worker in [*pool.workers, *pool.starting.values()]:
                pool.end(worker)


def _drive(pool: Pool, ready: Callable[[], None]) -> Iterator[Done[Any, Any]]:
    import ray

    moved = time.monotonic()
    while pool.left:
        pool.fit()
        pool.feed()
        pool.look()
        show_workers(len(pool.workers), len(pool.starting), pool.waiting)
        ended, _ = ray.wait(pool.refs, timeout=min(LOOK_EVERY, STALL_SECONDS, pool.limits.sample / 4))
        if any(ref not in pool.questions for ref in ended):
            moved = time.monotonic()
        elif time.monotonic() - moved > STALL_SECONDS:
            moved = time.monotonic()
            log.warning("%s: %s", pool.name, _stall(pool))
        for ref in ended:
            if ref in pool.starting:
                _started(pool, ref, ready)
            elif ref in pool.questions:
                _answered(pool, ref)
            elif ref in pool.working and (done := _ended(pool, ref)) is not None:
                yield done


def _started(pool: Pool, ref: Any, ready: Callable[[], None]) -> None:
    import ray
    from ray.exceptions import RayActorError, RayError

    worker = pool.starting.pop(ref)
    try:
        told = ray.get(ref)
    except RayActorError as death:
        pool.failed_starts += 1
        if getattr(death, "_actor_init_failed", False):  # mmdata, or what `setup` needs, is not there
            raise ModelError(f"a worker could not be set up: {last_line(death)}") from death
        shown = pool.was_ready or _machine_went(death)  # that it is not the setup
        most = NODES if shown else ATTEMPTS
        if pool.failed_starts >= most:
            told = f"{pool.failed_starts} workers died while they were set up: {_why(death)}"
            raise (WorkerDied(told + GO_ON) if shown else ModelError(told)) from death
        log.warning("a worker died while it was set up (%d of %d): %s", pool.failed_starts, most, _why(death))
        return
    except RayError as problem:
        raise ModelError(f"a worker could not be set up: {last_line(problem)}") from problem
    if told.error is not None:
        pool.end(worker)
        raise setup_error(told.error)
    pool.failed_starts, pool.was_ready = 0, True
    worker.node, worker.kills = told.node, told.kills
    pool.workers.append(worker)
    ready()


def _answered(pool: Pool, ref: Any) -> None:
    import ray
    from ray.exceptions import RayError

    worker = pool.questions.pop(ref)
    try:
        pool.answered(worker, ray.get(ref))
    except RayError:  # a dead worker answers nothing; what it had in work tells of it
        worker.question = None


def _ended(pool: Pool, ref: Any) -> Done[Any, Any] | None:
    """The outcome of an item, or None when it is to be done again."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    worker = pool.working.pop(ref)
    order, since = worker.doing.pop(ref)
    try:
        done: Done[Any, Any] = replace(ray.get(ref), item=order.item)
    except RayTaskError as problem:
        return Done(order.item, error=MMDataError(f"the result of {order} cannot be sent: {last_line(problem)}"))
    except RayError as death:
        return _died(pool, worker, order, death, time.monotonic() - since)
    if not order.trials or (done.error is not None and order.step is not Step.CONTROL):
        return done
    order.passed()
    if order.step is not Step.STAND:
        return _again(pool, order)
    if worker not in pool.workers:
        order.gone()
        return _again(pool, order)
    pool.give(worker, order)  # the one that has lived through the controls
    return None


def _died(pool: Pool, worker: Worker, order: Order, death: Exception, seconds: float) -> Done[Any, Any] | None:
    if worker in pool.workers:
        pool.end(worker)  # it may only be out of reach
    if worker.blame is not None and worker.blame.order not in (order, None):
        pool.queue.appendleft(order)  # a neighbour's doing, for certain
        return None
    order.last = worker.blame.why if worker.blame else _why(death)
    if worker.blame is None and _machine_went(death):
        order.gone()
        return _again(pool, order)
    log.warning("a worker died over %s, after %.1f s: %s", order, seconds, order.last)
    lost = len(order.lost)
    if worker.blame is not None and len(worker.blame.samples) == 1:
        order.late(worker.blame.samples[0])
    else:
        certain = worker.blame is not None and worker.blame.order is order
        order.died(Reason.TIMEOUT if worker.blame else _reason(worker, order, death), seconds, certain)
    for sample in list(order.lost)[lost:]:
        log.warning("sample %d of %s is left out: %s", sample, order.item, order.lost[sample])
    return _again(pool, order)


def _again(pool: Pool, order: Order) -> Done[Any, Any] | None:
    if told := order.given_up:
        alone = f"{pool.name}: {told}{GO_ON}"  # of a shard the stage says more
        return Done(order.item, error=WorkerDied(alone if order.samples is None else told))
    if order.suspect:
        pool.suspects.append(order)
    else:
        pool.queue.appendleft(order)
    return None


def _machine_went(death: Exception) -> bool:
    return "its node has died" in str(death) or getattr(death, "preempted", False)


def _reason(worker: Worker, order: Order, death: Exception) -> Reason:
    """Memory, where Ray or the kernel of that machine says so; it is asked where a sample is at stake."""
    if "OUT_OF_MEMORY" in str(death):
        return Reason.OOM
    return Reason.OOM if order.at_stake and kills_on(worker.node) > worker.kills else Reason.CRASH


def _why(death: Exception) -> str:
    """What Ray says of a death, without its tables of ids and its advice."""
    lines = [line.strip() for line in str(death).splitlines()]
    told = next((line for line in lines if "dead because" in line), lines[0])
    return told.partition(" Some common causes")[0]


def _stall(pool: Pool) -> str:
    import ray

    doing = ", ".join(str(order) for worker in pool.workers for order, _ in worker.doing.values())
    free = ray.available_resources()
    return (
        f"nothing ended for {STALL_SECONDS:g} s: {len(pool.workers)} workers ready, {len(pool.starting)} waiting to "
        f"start (free: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs), "
        f"{pool.waiting} shards queued, in work: {doing or 'nothing'}"
    )
