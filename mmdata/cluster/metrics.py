"""What a run exports through Ray: to its dashboard, and to Prometheus where that reads the cluster.

Ray adds `ray_` in front of each name and `_total` behind that of a counter; `deploy/grafana.json` shows them all.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mmdata_shards": ("shards finished", ("stage",)),
    "mmdata_rows": ("rows written", ("stage",)),
    "mmdata_bytes": ("bytes written", ("stage",)),
    "mmdata_rejects": ("samples left out", ("stage", "reason")),
    "mmdata_seconds": ("seconds by phase, added up over threads", ("stage", "phase")),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mmdata_shards_left": ("shards that are not finished", ("stage",)),
    "mmdata_queue": ("shards that no worker has yet", ()),
    "mmdata_workers": ("workers that are ready, or wait to start", ("state",)),
}


def add(name: str, value: float, **tags: str) -> None:
    """Add to a counter, where Ray runs."""
    if value > 0 and (metric := _metric(name)) is not None:
        metric.inc(value, tags=tags)


def show(name: str, value: float, **tags: str) -> None:
    """Set a gauge, where Ray runs."""
    if (metric := _metric(name)) is not None:
        metric.set(value, tags=tags)


def add_all(name: str, tag: str, values: Mapping[str, float], **tags: str) -> None:
    """Add to a counter for each value of one of its tags."""
    for key, value in values.items():
        add(name, value, **tags, **{tag: key})


def show_workers(ready: int, starting: int, queue: int) -> None:
    """The pool as it is now."""
    show("mmdata_workers", ready, state="ready")
    show("mmdata_workers", starting, state="starting")
    show("mmdata_queue", queue)


def exported() -> list[str]:
    """The names as Prometheus has them."""
    return [*(f"ray_{name}_total" for name in COUNTERS), *(f"ray_{name}" for name in GAUGES)]


def _metric(name: str) -> Any:
    ray = sys.modules.get("ray")
    return _make(name) if ray is not None and ray.is_initialized() else None


@cache
def _make(name: str) -> Any:
    from ray.util.metrics import Counter, Gauge

    kind, (about, tags) = (Counter, COUNTERS[name]) if name in COUNTERS else (Gauge, GAUGES[name])
    return kind(name, about, tags)
