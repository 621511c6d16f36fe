"""Read text from outside (hosts, registries, files on a host) within bounds.

Every reader returns a value or raises Malformed, in time linear in a length that it checks first.
Standard library only (Python 3.10+).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar, overload

from rolling_upgrade.engine.masking import clean

#: The default limit of an answer, and the longest line of a stream, in bytes.
ANSWER_BYTES: Final = 2 << 20
LINE_BYTES: Final = 1 << 20
#: The largest file or archive of logs that is read as a whole, in bytes.
LARGE_ANSWER_BYTES: Final = 32 << 20
#: The largest number of lines in an answer.
MOST_LINES: Final = 50_000
#: The bounds of a JSON document.
JSON_BYTES: Final = 1 << 20
JSON_DEPTH: Final = 32
#: The largest count (bytes, seconds, restarts): it fits every float and every clock.
LARGEST: Final = 2**53
#: The latest time in Unix seconds, in the year 6325, which every calendar supports.
LATEST: Final = 2**37
#: The longest text shown in an error message.
SHOWN_CHARACTERS: Final = 300

_DIGITS = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
#: A JSON string, or a bracket outside of strings. The pattern never fails midway, so it never backtracks.
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_SURROGATE_ALONE = re.compile("[\ud800-\udfff]")
#: The line ends of str.splitlines().
_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"

T = TypeVar("T")


class Malformed(ValueError):
    """A text from outside does not have the expected form."""


@overload
def integer(value: object, *, minimum: int = 0, maximum: int = LARGEST) -> int: ...
@overload
def integer(value: object, *, minimum: int = 0, maximum: int = LARGEST, default: T) -> int | T: ...
def integer(value: object, *, minimum: int = 0, maximum: int = LARGEST, default: Any = ...) -> Any:
    """A whole number within bounds, given as JSON's int or as ASCII digits. Without `default` Malformed is raised."""
    number = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _DIGITS.fullmatch(value):
        number = int(value)
    if number is not None and minimum <= number <= maximum:
        return number
    return _otherwise(default, value, f"a whole number from {minimum} to {maximum}")


@overload
def number(value: object, *, minimum: float = 0, maximum: float = LARGEST) -> float: ...
@overload
def number(value: object, *, minimum: float = 0, maximum: float = LARGEST, default: T) -> float | T: ...
def number(value: object, *, minimum: float = 0, maximum: float = LARGEST, default: Any = ...) -> Any:
    """A finite number within bounds, given as JSON's number or as ASCII digits with a point, without an exponent."""
    parsed = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        parsed = float(value) if abs(value) <= LARGEST else math.nan
    elif isinstance(value, str) and _DECIMAL.fullmatch(value):
        parsed = float(value)
    if minimum <= parsed <= maximum:
        return parsed
    return _otherwise(default, value, f"a number from {minimum:g} to {maximum:g}")


def moment(value: object, *, default: Any = ...) -> Any:
    """Unix seconds, no later than LATEST. See `number`."""
    return number(value, maximum=LATEST, default=default)


def json_value(text: str, *, max_bytes: int = JSON_BYTES, max_depth: int = JSON_DEPTH, surrogates: bool = False) -> Any:
    """Parse a JSON document with finite numbers, at most `max_depth` levels, and no lone surrogates by default."""
    if len(text) > max_bytes:
        raise Malformed(f"a JSON document of more than {size(max_bytes)}")
    _check_depth(text, max_depth)
    try:
        value = json.loads(text, parse_int=_json_integer, parse_float=_json_number, parse_constant=_json_constant)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON document ({error})") from None
    if not surrogates and _SURROGATE.search(text) and not _encodable(value):
        raise Malformed("a JSON document with a lone surrogate")
    return value


def json_object(
    text: str, *, max_bytes: int = JSON_BYTES, max_depth: int = JSON_DEPTH, surrogates: bool = False
) -> dict[str, Any]:
    """Parse a JSON object. See `json_value`."""
    value = json_value(text, max_bytes=max_bytes, max_depth=max_depth, surrogates=surrogates)
    if not isinstance(value, dict):
        raise Malformed(f"a JSON {type(value).__name__} instead of an object")
    return value


def line(value: object, longest: int = SHOWN_CHARACTERS) -> str:
    """A text as one line without control sequences, cut at `longest` characters with an ellipsis."""
    text = value if isinstance(value, str) else str(value)
    words = " ".join(clean(text[: 4 * longest]).split())
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def lines(text: str, most: int = MOST_LINES) -> list[str]:
    """The lines of a text by str.splitlines(). Raises Malformed for more than `most`, before it splits."""
    if len(text) > most and sum(map(text.count, _BREAKS)) > most:
        raise Malformed(f"an answer of more than {most} lines")
    return text.splitlines()


def rows(text: str, most: int = MOST_LINES) -> list[str]:
    """The parts of a text between line feeds. Raises Malformed for more than `most`, before it splits."""
    if text.count("\n") > most:
        raise Malformed(f"an answer of more than {most} lines")
    return text.split("\n")


def string(value: object, longest: int = 4096) -> str:
    """A JSON string, unchanged. Raises Malformed for another type or a longer string."""
    if not isinstance(value, str) or len(value) > longest:
        raise Malformed(f"{line(repr(value)[:200], 80)} is not a string of at most {longest} characters")
    return value


def tail(text: str, most: int = 30, longest: int = 1000) -> str:
    """The last lines of a text, safe to show, each cut at `longest` characters."""
    end = clean(text[-most * longest * 4 :]).strip()
    return "\n".join(row if len(row) <= longest else f"{row[: longest - 1]}…" for row in end.splitlines()[-most:])


def columns(row: Sequence[str], count: int) -> Sequence[str]:
    """The row itself, if it has at least that many columns."""
    if len(row) < count:
        raise Malformed(f"a row of {len(row)} columns instead of {count}")
    return row


def size(count: int) -> str:
    """Return a number of bytes in its largest unit: `64 KiB`, `2 MiB`."""
    units = (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10))
    unit, shift = next(((name, by) for name, by in units if count >> by), ("bytes", 0))
    return f"{count / (1 << shift):.4g} {unit}"


def _otherwise(default: Any, value: object, expected: str) -> Any:
    if default is not ...:
        return default
    raise Malformed(f"{line(repr(value)[:200], 80)} is not {expected}")


def _check_depth(text: str, most: int) -> None:
    depth = 0
    for match in _BRACKET.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth += 1
            if depth > most:
                raise Malformed(f"a JSON document of more than {most} levels")
        elif first in "]}":
            depth -= 1


def _json_integer(text: str) -> int:
    if len(text) > 20:
        raise Malformed(f"a JSON number of {len(text)} digits")
    return int(text)


def _json_number(text: str) -> float:
    value = float(text) if len(text) <= 400 else math.inf
    if not math.isfinite(value):
        raise Malformed("a JSON number that is too large")
    return value


def _json_constant(text: str) -> float:
    raise Malformed(f"{text} in a JSON document")


def _encodable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_encodable(key) and _encodable(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_encodable, value))
    return not (isinstance(value, str) and _SURROGATE_ALONE.search(value))
