"""Records a command on a terminal and draws the recording as an animated SVG, such as docs/images/deploy.svg.

    python3 scripts/picture.py record FILE COMMAND…   # runs it on a pseudo-terminal and records its output with times
    python3 scripts/picture.py draw FILE SVG          # draws it; needs pyte (pip install pyte)

FILE is an asciicast (version 2). The animation runs FASTER times as fast, and shows no frame for more than PAUSE
seconds. In print, and with reduced motion, only the last frame is shown.
"""

from __future__ import annotations

import codecs
import fcntl
import html
import json
import os
import pty
import re
import shlex
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any

COLUMNS, ROWS = 114, 30
FASTER, PAUSE, LAST = 2.0, 2.5, 6.0
WIDE, HIGH, EDGE, TOP = 8.4, 19, 16, 40
INK, PAPER = "#d6dbe1", "#15191f"
COLORS = {"cyan": "#56c8d8", "green": "#6fcf7c", "red": "#ff7b72", "brown": "#e3b341", "yellow": "#e3b341"}


def record(to: Path, command: list[str]) -> int:
    """Run the command on a terminal of COLUMNS × ROWS. Return its exit code."""
    started_at, child = time.monotonic(), pty.fork()
    if child[0] == 0:
        environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": ""}
        os.execvpe(command[0], command, environ)  # noqa: S606 - the words are an argument list; no shell is wanted
    fcntl.ioctl(child[1], termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    decoder = codecs.getincrementaldecoder("utf-8")()
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": shlex.join(command)}
    with to.open("w", encoding="utf-8") as file:
        print(json.dumps(head), file=file)
        while data := _read(child[1]):
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            print(json.dumps([round(time.monotonic() - started_at, 3), "o", decoder.decode(data)]), file=file)
    return os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1])


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux reports EIO when the other side is closed
        return b""


def frames(lines: list[str]) -> list[tuple[float, list[str]]]:
    """Return each different screen, as rows of SVG text, with the seconds for which it is shown."""
    import pyte

    head, *events = [json.loads(line) for line in lines]
    screen = pyte.Screen(head["width"], head["height"])
    stream = pyte.Stream(screen)
    stream.feed(f"\x1b[1;32m$\x1b[0m \x1b[1m{head['title']}\x1b[0m\r\n")
    screens = [(0.0, drawn(screen))]
    for at, (moment, _, text) in enumerate(events):
        stream.feed(text)
        soon = at + 1 < len(events) and events[at + 1][0] - moment < 0.5
        rows = drawn(screen)
        if rows != screens[-1][1] and not (soon and moment - screens[-1][0] < 0.9):
            screens.append((moment, rows))
    ends = [moment for moment, _ in screens[1:]]
    durations = [min((end - start) / FASTER, PAUSE) for (start, _), end in zip(screens, ends, strict=False)]
    shown = [1.2, *durations[1:], LAST]
    return [(max(seconds, 0.15), rows) for seconds, (_, rows) in zip(shown, screens, strict=True)]


def drawn(screen: Any) -> list[str]:
    """Return each row of the screen, with one tspan per run of equally styled characters."""
    rows = []
    for at in range(screen.lines):
        runs: list[tuple[str, str]] = []
        for column in range(len(screen.display[at].rstrip())):
            cell = screen.buffer[at][column]
            color = COLORS.get(cell.fg, INK)
            look = f'fill="{color}"' * (color != INK) + ' font-weight="700"' * cell.bold
            if runs and (runs[-1][0] == look or not cell.data.strip()):
                runs[-1] = (runs[-1][0], runs[-1][1] + cell.data)
            else:
                runs.append((look, cell.data))
        texts = [(look, html.escape(text, quote=False)) for look, text in runs]
        row = "".join(f"<tspan {look.strip()}>{text}</tspan>" if look else text for look, text in texts)
        rows.append(row)
    return rows


def draw(shown: list[tuple[float, list[str]]], title: str) -> str:
    """Return the animation: all frames side by side on a strip that jumps from one to the next."""
    columns, rows = COLUMNS, max(len(frame) for _, frame in shown)
    wide, high = round(columns * WIDE + 2 * EDGE), rows * HIGH + TOP + EDGE
    texts = list(dict.fromkeys(row for _, frame in shown for row in frame if row))
    number = {text: at for at, text in enumerate(texts)}
    whole, now, keys, strip = sum(seconds for seconds, _ in shown), 0.0, [], []
    for at, (seconds, frame) in enumerate(shown):
        keys.append(f"{now / whole * 100:.2f}%{{transform:translateX(-{at * wide}px)}}")
        now += seconds
        uses = (f'<use href="#t{number[row]}" y="{line * HIGH}"/>' for line, row in enumerate(frame) if row)
        strip.append(f'<g transform="translate({at * wide})">{"".join(uses)}</g>')
    last = (len(shown) - 1) * wide
    style = (
        f".s{{transform:translateX(-{last}px)}}text{{fill:{INK};"
        f"font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre}}"
        f"@media (prefers-reduced-motion:no-preference){{.s{{animation:m {whole:.1f}s "
        f"steps(1,end) infinite}}}}@keyframes m{{{''.join(keys)}100%{{transform:translateX(-{last}px)}}}}"
    )
    defined = "".join(
        f'<text id="t{at}" xml:space="preserve" textLength="{_length(text) * WIDE:.0f}">{text}</text>'
        for at, text in enumerate(texts)
    )
    dots = "".join(f'<circle cx="{EDGE + 6 + 20 * at}" cy="18" r="6" fill="#3b434d"/>' for at in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">'
        f"<title>{html.escape(title)}</title><style>{style}</style><defs>{defined}</defs>"
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>{dots}'
        f'<svg x="{EDGE}" y="{TOP}" width="{wide - EDGE}" height="{high - TOP}"><g transform="translate(0 14)">'
        f'<g class="s">{"".join(strip)}</g></g></svg></svg>\n'
    )


def _length(text: str) -> int:
    """Return the number of visible characters of a drawn row, for its fixed width in every font."""
    return len(html.unescape(re.sub("<[^>]*>", "", text)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", file, *words] if words:
            sys.exit(record(Path(file), words))
        case ["draw", file, picture]:
            recorded = Path(file).read_text("utf-8").splitlines()
            Path(picture).write_text(draw(frames(recorded), json.loads(recorded[0])["title"]), "utf-8")
        case _:
            sys.exit(__doc__)
