"""What the encoders gave, put together again: windows to samples, units to rows, unusable vectors to rejects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Windows, pool_windows
from mmdata.errors import ModelError
from mmdata.media.text import MAX_CHARS
from mmdata.stages.lanes import Encoded, Line, Unit, shorten
from mmdata.types import EncoderCard, Outcome, Reason, Reject, Rejected

DECODED = {
    Reason.TOO_LONG: f"a text of more than {MAX_CHARS:,} characters; those behind them were not read",
    Reason.FIRST_FRAME: "an animation or a document of several pages; only the first frame or page was read",
    Reason.RESCALED: "values far beyond the range of their kind were scaled into it",
    Reason.SILENT: "every sample of the sound has one value",
    Reason.BAD_METADATA: "its EXIF or colour profile cannot be read; it may lie on its side, or its colours be others",
}
"""What a decoder did, by its reason."""
PREPARED = {
    Reason.TOO_LONG: "cut to what the encoder takes; windows keep the rest: --windows mean or rows",
}
"""What an encoder did."""
UNUSABLE = {
    Reason.ZERO_NORM: "gave a vector of zeros, which has no direction; another encoder may see something in this part",
    Reason.NONFINITE_OUTPUT: "gave numbers that are not finite; try --dtype float32, or --precision fp32",
    Reason.OOM: "needs more memory for this part alone than the device has; try the CPU, or shorter windows",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a features file, in order: the numbers of their samples in the sample table and their vectors.

    `spans` are start and end of each row's window, `(n, 2) float32`, where each window is a row.
    """

    numbers: list[int]
    vectors: NDArray[np.floating]  # (n, dim), as they are stored
    tokens: list[NDArray[np.floating]] | None
    spans: NDArray[np.float32] | None


@dataclass(slots=True)
class Gathering:
    """One encoder's share of one shard; samples are numbered as in the sample table, `about`."""

    line: Line
    about: list[dict[str, Any]]
    notes: list[Reject] = field(default_factory=list)
    samples: int = 0  # that have this encoder's modality
    rows_in: int = 0  # samples, or windows where each is a row

    @property
    def card(self) -> EncoderCard:
        return self.line.encoder.card

    def take(self, row: int, inputs: Sequence[Prepared] | Rejected | ModelError, decoded: Iterable[Reason]) -> None:
        """Count a sample and its repairs, and send its windows on their way; an error of the encoder ends its share.

        `decoded` are the decoder's repairs.
        """
        if isinstance(inputs, ModelError):
            self.line.error = self.line.error or inputs
            return
        self.samples += 1
        if isinstance(inputs, Rejected):
            self.rows_in += 1
            self._note(row, Outcome.REJECTED, inputs.reason, inputs.message)
            return
        self.rows_in += len(inputs) if self.card.windows == Windows.ROWS else 1
        prepared = {reason: PREPARED.get(reason, "") for ready in inputs for reason in ready.repairs}
        for reason, what in sorted(({reason: DECODED[reason] for reason in decoded} | prepared).items()):
            self._note(row, Outcome.REPAIRED, reason, what or f"{reason.replace('_', ' ')}, says {self.card.spec}")
        for window, ready in enumerate(inputs):
            self.line.put(Unit(row, window, ready))

    def finish(self) -> Rows:
        """The rows. Those whose vectors, of tokens too, are no numbers or have no direction are rejects.

        Raises ModelError when none of several rows holds finite numbers, and memory is not the reason.
        """
        encoded = self.line.finish()
        too_large = frozenset[int]().union(*(part.too_large for part in encoded))
        rows = _in_order(self.card, encoded)
        finite = np.isfinite(rows.vectors).all(axis=1)
        if rows.tokens is not None:
            finite &= np.array([np.isfinite(sequence).all() for sequence in rows.tokens], bool)
        keep = finite & (rows.vectors != 0).any(axis=1)
        if len(keep) > 1 and not finite.any() and not too_large:
            remedy = "--dtype float32" if _overflowed(self.card, encoded) else "--precision fp32 or bf16"
            raise ModelError(f"{self.card.spec} gave no finite vector in a whole shard; try {remedy}")
        for place in np.flatnonzero(~keep):
            row = rows.numbers[place]
            reason = Reason.ZERO_NORM if finite[place] else Reason.NONFINITE_OUTPUT
            reason = Reason.OOM if row in too_large else reason
            self._note(row, Outcome.REJECTED, reason, f"{self.card.spec} {UNUSABLE[reason]}")
        return _kept(rows, keep)

    def _note(self, row: int, outcome: Outcome, reason: Reason, message: str) -> None:
        about = self.about[row]
        self.notes.append(
            Reject(about["id"], about["key"], about["source"], self.card.modality, outcome, reason, message)
        )


def _in_order(card: EncoderCard, encoded: list[Encoded]) -> Rows:
    units = [unit for part in encoded for unit in part.units]
    order = sorted(range(len(units)), key=lambda n: (units[n].row, units[n].window))
    units = [units[n] for n in order]
    vectors = np.concatenate([*(part.vectors for part in encoded), np.zeros((0, card.dim), np.float32)])[order]
    tokens = [sequence for part in encoded for sequence in part.tokens]
    tokens = [tokens[n] for n in order] if card.tokens else []
    spans = np.array([(unit.ready.start, unit.ready.end) for unit in units], np.float32).reshape(-1, 2)
    numbers = [unit.row for unit in units]
    if card.windows != Windows.ROWS:
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
        lengths = np.array([unit.ready.length for unit in units])
        if 0 < len(firsts) < len(units):
            vectors = pool_windows(vectors, lengths, firsts, normalised=card.normalised)
            tokens = [_join(tokens[a:b], card.tokens) for a, b in pairwise([*firsts, len(units)])] if tokens else []
        numbers = [numbers[first] for first in firsts]
    with np.errstate(over="ignore"):
        stored = vectors.astype(card.dtype)
    return Rows(numbers, stored, tokens if card.tokens else None, spans if card.windows == Windows.ROWS else None)


def _overflowed(card: EncoderCard, encoded: list[Encoded]) -> bool:
    """Whether the model gave numbers, and only float16 has no room for them."""
    numbers = all(np.isfinite(part.vectors).all() for part in encoded)
    return (
        card.dtype == "float16" and numbers and not any(np.isnan(one).any() for part in encoded for one in part.tokens)
    )


def _join(windows: Sequence[NDArray[np.floating]], most: int) -> NDArray[np.floating]:
    return shorten(np.concatenate(windows), most)


def _kept(rows: Rows, keep: NDArray[np.bool_]) -> Rows:
    if keep.all():
        return rows
    return Rows(
        numbers=[number for number, kept in zip(rows.numbers, keep, strict=True) if kept],
        vectors=rows.vectors[keep],
        tokens=None if rows.tokens is None else [t for t, kept in zip(rows.tokens, keep, strict=True) if kept],
        spans=None if rows.spans is None else rows.spans[keep],
    )
