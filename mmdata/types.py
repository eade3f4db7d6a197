"""The words of mmdata as types: frozen dataclasses and enums, no I/O."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Modality(StrEnum):
    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"


SUFFIXES: dict[str, Modality] = {
    **dict.fromkeys(["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"], Modality.IMAGE),
    **dict.fromkeys(["avif", "heic", "heif", "svg"], Modality.IMAGE),
    **dict.fromkeys(["wav", "flac", "ogg", "opus", "mp3", "m4a", "aac"], Modality.AUDIO),
    **dict.fromkeys(["mp4", "mkv", "webm", "mov"], Modality.AUDIO),  # the sound track
    **dict.fromkeys(["txt"], Modality.TEXT),
}
"""File suffix (lower case, no dot) to the modality it holds."""


class Reason(StrEnum):
    """Why a sample was left out or changed: a closed list, counted in every receipt."""

    EMPTY = "empty"
    UNSUPPORTED = "unsupported"
    DECODE_TRUNCATED = "decode_truncated"
    DECODE_FAILED = "decode_failed"
    DECODE_BOMB = "decode_bomb"
    TOO_LONG = "too_long"
    FIRST_FRAME = "first_frame"  # of an animation, first page of a document
    RESCALED = "rescaled"  # values far beyond the range of their kind
    SILENT = "silent"  # a sound that never changes
    BAD_TEXT = "bad_text"
    BAD_METADATA = "bad_metadata"
    BAD_SAMPLE_RATE = "bad_sample_rate"
    NONFINITE_INPUT = "nonfinite_input"
    NONFINITE_OUTPUT = "nonfinite_output"
    ZERO_NORM = "zero_norm"
    DUPLICATE = "duplicate"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_PART = "missing_part"
    OUTSIDE = "outside"  # a table refers to what is not below its folder
    SOURCE_MISSING = "source_missing"
    SOURCE_CHANGED = "source_changed"
    DAMAGED = "damaged"  # a stretch of a tar that cannot be read
    ENCODE_FAILED = "encode_failed"
    OOM = "oom"
    CRASH = "crash"
    TIMEOUT = "timeout"


class Outcome(StrEnum):
    """What became of a sample that is not simply ok: left out, or kept with a change."""

    REJECTED = "rejected"
    REPAIRED = "repaired"


class Rejected(Exception):
    """One part of one sample cannot be used; a stage counts it and goes on."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a sample, still encoded. `suffix` is lower case, without the dot."""

    suffix: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of the rejects report."""

    id: int
    key: str
    source: str
    part: str  # a modality, or "" for the whole sample
    outcome: Outcome
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: its number in the plan, its key, where it came from and its parts."""

    id: int
    key: str
    source: str
    parts: Mapping[Modality, Part]
    metadata: Mapping[str, Any]
    notes: tuple[Reject, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A finished file as its receipt records it."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that one shard of one stage is complete. `rows_in == rows_out + sum(rejected.values())`, always."""

    stage: str
    shard: str
    fingerprint: str
    inputs: dict[str, str]  # name -> sha256
    outputs: dict[str, Output]  # file name -> size and hash
    rows_in: int
    rows_out: int
    absent: int  # samples without this stage's modality; not part of rows_in
    rejected: dict[str, int]
    repaired: dict[str, int]
    seconds: dict[str, float]  # by phase
    counters: dict[str, int] = field(default_factory=dict)  # parts read, decoded ...
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows_in != self.rows_out + sum(self.rejected.values()):
            raise ValueError(
                f"{self.stage} {self.shard}: {self.rows_in} rows came in, {self.rows_out} went out and "
                f"{sum(self.rejected.values())} were rejected"
            )

    @property
    def content(self) -> dict[str, str]:
        """File name to sha256 of what the next stage reads; the rejects report is no part of it."""
        return {n: o.sha256 for n, o in self.outputs.items() if not n.endswith(".rejects.parquet")}


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; a higher score is nearer. `window` is the stretch that was found, where rows are windows."""

    rank: int
    score: float
    id: int
    key: str
    shard: str
    member: str
    caption: str
    metadata: dict[str, Any]
    window: tuple[float, float] | None = None  # seconds of sound, characters of text


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """What made a feature set. Two sets whose `space` is equal hold vectors that may be compared.

    A family says modality and dim, and what it knows of the rest; `mmdata.encoders.describe` completes the card.
    """

    modality: Modality
    dim: int
    name: str = ""  # the folder below features/
    spec: str = ""
    dtype: str = ""  # of the stored vectors: float16 or float32
    precision: str = ""  # of the model's arithmetic: fp32, bf16 or fp16
    normalised: bool = False
    space: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    revision: str = ""
    weights_sha256: str = ""
    towers: dict[str, str] = field(default_factory=dict)  # modality -> spec that takes a query of it into `space`
    windows: str = ""  # what becomes of inputs longer than the model: mean, rows or cut; "" where none is
    tokens: int = 0  # token vectors a row at most; 0: none are stored
    token_dim: int = 0  # 0 where there are none
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes the vectors: all fields but the name and the versions."""
        facts = {k: v for k, v in asdict(self).items() if k not in ("name", "versions")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
