"""How far a run is: one line that moves on a terminal, lines of JSON elsewhere, both on stderr."""

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson

LOG_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def say(text: str) -> None:
    """A line for people."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(event: str, **facts: Any) -> None:
    """A line for machines: when, what, and the facts of it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    say(orjson.dumps({"time": now, "event": event, **facts}, default=str).decode())


class Progress:
    """A `Watch`: rate and time left from the shards that are done."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.first_done = 0
        self.stage = ""

    def __call__(self, stage: str, done: int, total: int, rows: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.start, self.first_done = stage, now, done
        spent, fresh = now - self.start, done - self.first_done
        rate = rows / spent if rows and spent > 0 else None
        left = spent / fresh * (total - done) if fresh and done < total else None
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K" + _line(stage, done, total, rate, left) + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif now - self.last >= LOG_EVERY or done == total:
            self.last = now
            say_json(
                "progress",
                stage=stage,
                shards_done=done,
                shards=total,
                rows=rows,
                rows_per_second=None if rate is None else round(rate, 1),
                seconds_left=None if left is None else round(left),
            )


def _line(stage: str, done: int, total: int, rate: float | None, left: float | None) -> str:
    told = [f"  {stage}: {done} of {total} shards"]
    told += [f"{rate:.0f} rows/s"] if rate is not None else []
    told += [f"{_time(left)} left"] if left is not None else []
    return ", ".join(told)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Log(logging.Handler):
    """Warnings in the way of progress: below the moving line of a terminal, or as JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if sys.stderr.isatty():
            say(f"\r\x1b[K  {text}")
        else:
            say_json("log", level=record.levelname.lower(), message=text)
