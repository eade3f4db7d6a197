"""What goes over the wire: requests, checked before anything else sees them, and answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

MOST_TERMS, MOST_FILTERS, MOST_NAMES = 16, 16, 16
Number = Annotated[float, Field(allow_inf_nan=False)]


class Message(BaseModel):
    """Nothing that is not named gets in."""

    model_config = ConfigDict(extra="forbid")


class Filter(Message):
    """A condition on a field; `~` is "contains"."""

    field: Annotated[str, Field(max_length=256)]
    op: Literal["=", "!=", "<", "<=", ">", ">=", "~"] = "="
    value: Annotated[str, Field(max_length=1024)] | bool | int | Number


class Term(Message):
    """One thing that is asked for: exactly one of text, image, audio (base64), key and vector."""

    text: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    image: Annotated[str, Field(min_length=1)] | None = None
    audio: Annotated[str, Field(min_length=1)] | None = None
    key: Annotated[str, Field(max_length=4096)] | None = None
    vector: Annotated[list[Number], Field(min_length=1, max_length=65_536)] | None = None
    weight: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _is_one(self) -> "Term":
        given = [name for name in ("text", "image", "audio", "key", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a term is exactly one of text, image, audio, key and vector")
        return self


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
