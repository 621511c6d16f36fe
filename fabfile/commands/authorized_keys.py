"""The text of an authorized_keys file: who is let in by which line, and how it reads with a block of ours. Pure.

A block belongs to one application in one environment: several may stand in one file. What is outside of every block
is not ours. Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fabfile.model.public_key import PublicKey, is_type

_BEGIN = "# BEGIN inv access: "
_END = "# END inv access: "
_NOTE = "# Made by inv access.sync from deploy/authorized_keys: edit that folder, not this block."


@dataclass(frozen=True)
class Entry:
    """One line that lets somebody in. `block` names the block that it stands in, '' outside of all."""

    key: PublicKey
    block: str = ""
    options: str = ""

    @property
    def blob(self) -> str:
        """What tells keys apart."""
        return self.key.blob


@dataclass(frozen=True)
class _Line:
    text: str
    block: str = ""
    entry: Entry | None = None


def block_name(application: str, environment: str) -> str:
    """The name of the block that belongs to an application in an environment."""
    return f"{application} {environment}"


def entries(text: str) -> tuple[Entry, ...]:
    """Every line that lets somebody in, in order."""
    return tuple(line.entry for line in _lines(text) if line.entry is not None)


def unread(text: str) -> tuple[int, ...]:
    """The numbers, from 1, of the lines that say something and are not understood here; sshd may think otherwise."""
    rows = enumerate(_lines(text), start=1)
    return tuple(number for number, line in rows if line.entry is None and not _is_silent(line.text.strip()))


def rendered(
    text: str, block: str, keys: Sequence[tuple[str, PublicKey]], revoked: Collection[str], *, exclusive: bool = False
) -> str:
    """The file with exactly these names and keys in the block, and nothing of them, nor of `revoked`, outside of it.

    Other blocks stay as they are. Other keys outside of every block stay too, unless `exclusive`.
    """
    gone = {key.blob for _, key in keys} | set(revoked)
    own = [f"{_BEGIN}{block}", _NOTE, *(key.line(name) for name, key in keys), f"{_END}{block}"]
    out: list[str] = []
    placed = False
    for line in _lines(text):
        if line.block == block:
            out += [] if placed else own
            placed = True
        elif line.block or _stays(line, gone, exclusive=exclusive):
            out.append(line.text)
    return "\n".join(out if placed else [*out, *own]) + "\n"


def _stays(line: _Line, gone: Collection[str], *, exclusive: bool) -> bool:
    words = line.text.strip()
    if _is_silent(words):
        return True
    if exclusive:
        return False
    return line.entry.blob not in gone if line.entry else not any(blob in words for blob in gone)


def _is_silent(words: str) -> bool:
    return not words or words.startswith("#")


def _lines(text: str) -> list[_Line]:
    """The lines with the block of each; one that begins and does not end before another begins is none."""
    rows = text.split("\n")
    rows = rows[:-1] if rows[-1] == "" else rows
    found: list[_Line] = []
    at = 0
    while at < len(rows):
        end = _end(rows, at)
        block = rows[at].strip().removeprefix(_BEGIN) if end else ""
        stop = end + 1 if end else at + 1
        found += [_Line(row, block, _entry(row, block)) for row in rows[at:stop]]
        at = stop
    return found


def _end(rows: Sequence[str], at: int) -> int:
    """The number of the line that ends the block that begins here; 0 where none does."""
    first = rows[at].strip()
    if not first.startswith(_BEGIN):
        return 0
    wanted = _END + first.removeprefix(_BEGIN)
    for number in range(at + 1, len(rows)):
        row = rows[number].strip()
        if row == wanted:
            return number
        if row.startswith((_BEGIN, _END)):
            return 0
    return 0


def _entry(row: str, block: str) -> Entry | None:
    text = row.strip()
    if not text or text.startswith("#"):
        return None
    options = ""
    if not is_type(text.split(None, 1)[0]):
        options, text = _options(text)
    words = text.split(None, 2)
    if len(words) < 2 or not is_type(words[0]):
        return None
    key = PublicKey(words[0], words[1], words[2] if len(words) > 2 else "")
    return Entry(key, block, options) if key.fingerprint else None


def _options(text: str) -> tuple[str, str]:
    """The options in front of a key and what follows: they end at the first blank outside of double quotes."""
    quoted, at = False, 0
    while at < len(text) and (quoted or text[at] not in " \t"):
        if text.startswith('\\"', at):
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        at += 1
    return text[:at], text[at:].strip()
