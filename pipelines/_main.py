"""How every job starts: CONFIG and --set to a config; an error of ours is its message and its exit code."""

import argparse
from collections.abc import Callable

from mmdata.cluster import one_connection
from mmdata.config import Config, load
from mmdata.ending import run_to_end


def run_job(job: Callable[[Config], None], model: type[Config], about: str | None) -> None:
    """Read the command line and do the job; `about` is what --help says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the file; repeatable")
    parser.add_argument("--debug", action="store_true", help="the traceback of an error")
    arguments = parser.parse_args()

    def call() -> None:
        with one_connection():
            job(load(model, arguments.config, arguments.set))

    run_to_end(call, arguments.debug)
