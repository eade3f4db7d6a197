"""Tables of text that others wrote, csv and lines of JSON: read whole, and what is wrong with them is told by line."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyarrow.csv import ConvertOptions

from mmdata.errors import ConfigError

TOO_LARGE = 2**63  # for an int64


def read_csv(data: bytes, where: str, convert: ConvertOptions, delimiter: str = ",") -> pa.Table:
    """A csv with a line of names. ConfigError, naming `where` and the line, when it is none or is not UTF-8."""
    _check_utf8(data, where)
    _check_quotes(data, where, delimiter.encode())
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(block_size=min(len(data) + 1, 2**31 - 1)),  # else a cell has a limit
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=convert,
        )
    except pa.ArrowException as error:
        raise ConfigError(f"{where} cannot be read as a table: {error}") from error
    for name, count in Counter(table.column_names).items():
        if count > 1:
            raise ConfigError(f"{where} has {count} columns with the name {name!r}; give each a name of its own")
    for name in table.column_names:
        _check_digits(table[name], f"{where}: column {name!r}")
    return table


def _check_digits(column: pa.ChunkedArray, where: str) -> None:
    """Whole numbers that no int64 holds would become doubles, of which neighbours are one."""
    if not pa.types.is_floating(column.type):
        return
    finite = column.filter(pc.is_finite(column))
    if (pc.max(pc.abs(finite)).as_py() or 0) >= TOO_LARGE and pc.all(pc.equal(pc.floor(finite), finite)).as_py():
        raise ConfigError(f"{where} has whole numbers of more than 63 bits; write them as text, with a letter before")


def _check_utf8(data: bytes, where: str) -> None:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{where} is UTF-16; iconv -f utf-16 -t utf-8 {where} > utf8{where[where.rfind('.') :]}")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{where}: line {line} is not UTF-8 ({error.reason}, byte {error.start}); if it is Latin-1: "
            f"iconv -f latin1 -t utf-8 {where} > utf8{where[where.rfind('.') :]}"
        ) from error


def _check_quotes(data: bytes, where: str, delimiter: bytes) -> None:
    """A quote that nobody closes would take all rows up to the next one into its cell."""
    if b'"' not in data:
        return
    data = data.removeprefix(codecs.BOM_UTF8)
    quoted = rb'"[^"]*+(?:""[^"]*+)*+"(?=[%b\r\n]|\Z)' % delimiter
    quoted_and_more = rb'"[^"\n]*+(?:""[^"\n]*+)*+"[^%b\r\n]*+' % delimiter
    plain = rb'[^"%b\r\n][^%b\r\n]*+|' % (delimiter, delimiter)
    cells = rb"(?:(?:%b|%b|%b)(?:[%b\r\n]|\Z))*+" % (quoted, quoted_and_more, plain, delimiter)
    whole = re.compile(cells).match(data)
    end = whole.end() if whole else 0
    if end < len(data):
        line = data.count(b"\n", 0, end) + 1
        raise ConfigError(f'{where}: line {line} opens a quote that its cell does not close; a quote itself is ""')


def json_lines(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    """The object of each line. ConfigError, naming `where` and the line, for a line that is none."""
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{where}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ConfigError(f"{where}: line {number} is not a JSON object")
        yield record
