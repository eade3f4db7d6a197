"""The command line: one verb a stage. stdout is the result, stderr is progress."""

import sys
from collections.abc import Callable

import typer

from mmdata.cli import build, export, keep, learn, look, serve
from mmdata.ending import run_to_end

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",  # markdown would make one paragraph of the examples and eat their asterisks
    help="Raw images, audio and text to shards, cached features and an index that answers across modalities.",
)
STAGES: list[Callable[..., None]] = [build.shard, build.extract, build.align, build.index]
LEARNING: list[Callable[..., None]] = [
    learn.train,
    learn.evaluate,
    learn.predict,
    learn.project,
    learn.probe,
    learn.sweep,
]
LOOKING: list[Callable[..., None]] = [
    look.search,
    serve.serve,
    export.export,
    look.encoders,
    look.doctor,
    look.demo,
]
KEEPING: list[Callable[..., None]] = [keep.status, keep.rejects, keep.verify, keep.gc]
for verb in STAGES:
    app.command(rich_help_panel="Stages")(verb)
for verb in LEARNING:
    app.command(rich_help_panel="Learning")(verb)
for verb in LOOKING:
    app.command(rich_help_panel="Looking")(verb)
for verb in KEEPING:
    app.command(rich_help_panel="Keeping")(verb)


def invoke(arguments: list[str]) -> None:
    """Run one command line in this process, without the program's name; errors are raised."""
    app(arguments, prog_name="mmdata", standalone_mode=False)


def main() -> None:
    """Run the command line; an error of ours is its message and its exit code, without a traceback.

    `--debug`, anywhere, shows the traceback.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    run_to_end(lambda: app(arguments, prog_name="mmdata"), debug="--debug" in sys.argv)
