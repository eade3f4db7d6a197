"""The verbs that show things: search, encoders, demo."""

from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON document")]
DatasetArg = Annotated[str, typer.Argument(help="folder or URL of the dataset")]


def search(
    dataset: DatasetArg,
    index: Annotated[list[str] | None, typer.Option(help="which index; may be repeated; default: the only one")] = None,
    text: Annotated[list[str] | None, typer.Option(help="what to look for, in words")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="a picture to look for things like it")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="a sound to look for things like it")] = None,
    key: Annotated[list[str] | None, typer.Option(help="a sample of the index, to look for more like it")] = None,
    vectors: Annotated[Path | None, typer.Option(help=".npy or Parquet of query vectors, each a query")] = None,
    k: Annotated[int, typer.Option("-k", help="how many hits at most")] = 10,
    where: Annotated[list[str] | None, typer.Option(help="FIELD=VALUE, also != < <= > >= ~; may be repeated")] = None,
    range_: Annotated[float | None, typer.Option("--range", help="only hits with this score at least")] = None,
    fold: Annotated[str | None, typer.Option(help="one hit for the windows of a: sample, or for: duplicates")] = None,
    encoder: Annotated[str | None, typer.Option(help="SPEC that encodes the query; default: the index's own")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet of the hits to this PNG")] = None,
    out: Annotated[Path | None, typer.Option(help="write the hits of --vectors to this Parquet")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the samples nearest to a text, a picture, a sound, a sample or vectors.

    Several are added up, each with its weight behind `::`; a negative one is "less like this":

        mmdata search data/ --index pictures.image --text "a bird that can swim"
        mmdata search data/ --index efficientnet-lite0 --image cat.jpg -k 5 --where folder=animals
        mmdata search data/ --index clip --image beach.jpg --text "at night::0.5" --text "people::-1"
        mmdata search data/ --index pictures.image --index sounds.audio --text "a dog" --sheet dogs.png
        mmdata search data/ --index minilm --vectors million.parquet -k 5 --out hits.parquet
    """
    from mmdata.errors import ConfigError
    from mmdata.retrieval.ask import Narrowed, Query, fold_named
    from mmdata.storage.dataset import Dataset

    opened = Dataset.open(dataset)
    query = Query.of(text=text, image=image, audio=audio, key=key, vectors=vectors)
    narrowed = Narrowed(k, tuple(where or ()), range_, fold_named(fold))
    if vectors is not None and encoder is not None:
        raise ConfigError(
            "--encoder takes in a text, a picture or a sound; --vectors are vectors already: leave it out"
        )
    if out is not None:
        if sheet is not None or as_json:
            raise ConfigError("--out writes the hits to a Parquet; leave --sheet and --json out")
        _search_file(opened, index or [], query, narrowed, out)
        return
    _search(opened, index or [], query, narrowed, encoder, sheet, as_json)


def _search(
    dataset: Any, index: list[str], query: Any, narrowed: Any, encoder: str | None, sheet: Path | None, as_json: bool
) -> None:
    from dataclasses import asdict

    from mmdata import console
    from mmdata.retrieval.ask import ask
    from mmdata.retrieval.sheet import contact_sheet
    from mmdata.storage.store import translated

    answers = ask(dataset, index, query, narrowed, encoder)
    if as_json:
        console.emit_json([{"index": a.index, "hits": [[asdict(h) for h in hits] for hits in a.hits]} for a in answers])
    for found in [] if as_json else answers:
        for number, hits in enumerate(found.hits):
            title = f"{found.index}: {query}" + (f", query {number}" if len(found.hits) > 1 else "")
            console.show_hits(title, hits)
    if sheet is not None:
        groups = [(a.index, a.modality, hits) for a in answers for hits in a.hits]
        picture = contact_sheet(dataset, str(query), groups)
        with translated(str(sheet)):
            sheet.parent.mkdir(parents=True, exist_ok=True)
            sheet.write_bytes(picture)
        console.say(f"contact sheet: {sheet}")


def _search_file(dataset: Any, names: list[str], query: Any, narrowed: Any, out: Path) -> None:
    from mmdata import console
    from mmdata.errors import ConfigError
    from mmdata.retrieval.ask import opened
    from mmdata.retrieval.many import search_file

    if query.file is None or len(names) > 1:
        raise ConfigError("--out takes the queries of one file, --vectors, to one --index")
    (index,) = opened(dataset, names)
    queries, hits = search_file(index, query.file, out, narrowed)
    console.emit(f"{hits} hits of {queries} queries in {out}")


def encoders(
    spec: Annotated[str | None, typer.Argument(help="SPEC whose card to show; default: a list of all there is")] = None,
    as_json: AsJson = False,
) -> None:
    """The encoders there are and what each needs, or the card of one.

    mmdata encoders
    mmdata encoders minilm
    mmdata encoders hf:openai/clip-vit-base-patch32#text --json
    """
    from dataclasses import asdict

    from mmdata import console
    from mmdata.encoders import describe
    from mmdata.encoders.families import offers, plugins

    if spec is not None:
        card = describe(spec)
        facts = {**asdict(card), "fingerprint": card.fingerprint}
        if as_json:
            console.emit_json(facts)
        else:
            console.show_table(card.spec, ["field", "value"], [[name, str(value)] for name, value in facts.items()])
        return
    rows = offers()
    if as_json:
        console.emit_json({"encoders": rows, "plugins": plugins()})
        return
    columns = ["spec", "of", "dim", "windows", "tokens", "needs", "what"]
    console.show_table("encoders", columns, [[_cell(row[column]) for column in columns] for row in rows])
    for name, value in plugins().items():
        console.say(f"{name}: {value}, of an installed package")


def doctor(
    dataset: Annotated[str | None, typer.Argument(help="a folder or URL that should be writable")] = None,
    ray_address: Annotated[str | None, typer.Option(help="of a cluster that should answer")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether this machine has what mmdata needs, and what to type where it has not.

    mmdata doctor
    mmdata doctor s3://bucket/data --ray-address auto
    """
    from dataclasses import asdict

    from mmdata import console
    from mmdata.doctor import examine
    from mmdata.errors import ModelError

    findings = examine(dataset, ray_address)
    if as_json:
        console.emit_json([asdict(finding) for finding in findings])
    else:
        rows = [[one.what, one.state, f"{one.found}; {one.remedy}" if one.remedy else one.found] for one in findings]
        console.show_table("doctor", ["what", "state", "found"], rows)
    wrong = [finding.what for finding in findings if finding.state == "wrong"]
    if wrong:
        raise ModelError(f"{len(wrong)} checks failed: {', '.join(wrong)}")


def demo(
    folder: Annotated[Path, typer.Argument(help="where the demo may write")],
    samples: Annotated[int, typer.Option(help="size of the corpus")] = 1500,
    workers: Annotated[int, typer.Option(help="Ray workers; 0 is this process without Ray")] = 2,
    text: Annotated[str, typer.Option(help="what to look for")] = "a pair of striped green stars",
) -> None:
    """The main job, end to end, on a corpus that it draws and plays itself.

    mmdata demo demo/
    """
    from mmdata.cli import invoke
    from mmdata.cluster import one_connection
    from mmdata.demo import run

    with one_connection():
        run(folder, samples, workers, text, invoke)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{n} {reason}" for reason, n in value.items()) or "0"
    return str(value)
