"""What goes over the wire: requests, checked before anything else sees them, and answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag

MOST_TERMS, MOST_FILTERS, MOST_NAMES = 16, 16, 16
Number = Annotated[float, Field(allow_inf_nan=False)]
Base64 = Annotated[str, Field(min_length=4, pattern="^[A-Za-z0-9+/]+={0,2}$")]


class Message(BaseModel):
    """Nothing that is not named gets in."""

    model_config = ConfigDict(extra="forbid")


class Filter(Message):
    """A condition on a field; `~` is "contains"."""

    field: Annotated[str, Field(max_length=256)]
    op: Literal["=", "!=", "<", "<=", ">", ">=", "~"] = "="
    value: Annotated[str, Field(max_length=1024)] | bool | int | Number


class Weighted(Message):
    """A negative weight is "less like this"."""

    weight: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0


class TextTerm(Weighted):
    text: Annotated[str, Field(min_length=1, max_length=10_000)]


class ImageTerm(Weighted):
    """The bytes of a picture."""

    image: Base64


class AudioTerm(Weighted):
    """The bytes of a sound."""

    audio: Base64


class KeyTerm(Weighted):
    """A sample of the index."""

    key: Annotated[str, Field(max_length=4096)]


class VectorTerm(Weighted):
    """As many numbers as the index has dimensions."""

    vector: Annotated[list[Number], Field(min_length=1, max_length=65_536)]


TERMS = {"text": TextTerm, "image": ImageTerm, "audio": AudioTerm, "key": KeyTerm, "vector": VectorTerm}


def _kind_of(term: Any) -> str | None:
    """The one kind whose field is there."""
    there = [kind for kind in TERMS if (kind in term if isinstance(term, dict) else hasattr(term, kind))]
    return there[0] if len(there) == 1 else None


Term = Annotated[
    Annotated[TextTerm, Tag("text")]
    | Annotated[ImageTerm, Tag("image")]
    | Annotated[AudioTerm, Tag("audio")]
    | Annotated[KeyTerm, Tag("key")]
    | Annotated[VectorTerm, Tag("vector")],
    Discriminator(
        _kind_of,
        custom_error_type="term",
        custom_error_message="a term is exactly one of text, image, audio, key and vector",
    ),
]


class SearchRequest(Message):
    """What `POST /search` takes."""

    index: str | Annotated[list[str], Field(min_length=1, max_length=MOST_NAMES)]
    terms: Annotated[list[Term], Field(min_length=1, max_length=MOST_TERMS)]
    k: Annotated[int, Field(ge=1)] = 20
    where: Annotated[list[Filter], Field(max_length=MOST_FILTERS)] = []
    at_least: Number | None = None
    fold: Literal["sample", "duplicates"] | None = None


class HitOut(Message):
    """One hit: `row` is its number in the index, `id` that of its sample; start and end where a row is a window."""

    id: int
    row: int
    key: str
    score: float
    caption: str
    modality: str
    media: str | None
    start: float | None = None
    end: float | None = None
    metadata: dict[str, JsonValue]


class Answer(Message):
    """The hits in one index, best first."""

    index: str
    modality: str
    hits: list[HitOut]


class SearchAnswer(Message):
    """What `POST /search` gives."""

    answers: list[Answer]
    seconds: float


class PartOut(Message):
    """A part of a sample: `type` is what its bytes are, by themselves."""

    suffix: str
    size: int
    type: str
    url: str


class SampleOut(Message):
    """What `GET /samples/ID` gives."""

    id: int
    key: str
    caption: str
    metadata: dict[str, JsonValue]
    parts: dict[str, PartOut]


class Facet(Message):
    """A field of an index: its commonest values, or its range."""

    name: str
    type: Literal["text", "number", "bool"]
    values: list[str | float | bool]
    min: float | None = None
    max: float | None = None


class EncoderOut(Message):
    name: str
    spec: str
    space: str
    revision: str


class IndexOut(Message):
    """An index as `GET /indexes` lists it."""

    name: str
    modality: str
    dim: int
    kind: str
    metric: str
    rows: int
    generation: str
    recall: dict[str, dict[str, float]]
    queries: list[str]
    encoder: EncoderOut
    fields: list[Facet]
    problem: str | None = None


class BrokenOut(Message):
    """An index that cannot be opened, as `GET /indexes` lists it."""

    name: str
    problem: str


class HealthOut(Message):
    """What `GET /health` gives, to anyone: no names and no reasons."""

    status: Literal["ok", "degraded"]
    problem: str | None = None


class MapOut(Message):
    """Columns of equal length: where each row lies in two dimensions, and what to colour it by."""

    id: list[int]
    key: list[str]
    x: list[float]
    y: list[float]
    value: list[JsonValue]
    caption: list[str]


class ErrorOut(Message):
    """What, why, and what to do."""

    error: str
