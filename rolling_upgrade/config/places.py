"""The lines of the values in a YAML file, and the names of places for people: `service web: gate.passes`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: The lists and mappings whose entries have names, and what an entry is called.
_NAMED = {
    "services": "service",
    "suites": "suite",
    "accessories": "accessory",
    "jobs": "job",
    "hooks": "hook",
    "environments": "environment",
}


@dataclass
class Mark:
    """The line of a value, its `name` if it is a mapping with one, and the marks of its entries or items."""

    line: int
    name: str = ""
    entries: dict[str, Mark] = field(default_factory=dict)
    items: list[Mark] = field(default_factory=list)
    removed: bool = False

    def remove(self, places: Iterable[Sequence[int | str]]) -> None:
        """Drop the values at these places, or the closest values around them that are marked.

        The positions of the others become those in the model.
        """
        for place in places:
            current = self
            for part in place:
                child = None if current.removed else current._child(part)
                if child is None:
                    break
                current = child
            current.removed = True
        self._compact()

    def _child(self, part: int | str) -> Mark | None:
        """Return the mark of an entry or item, None for an unknown one."""
        if isinstance(part, str):
            return self.entries.get(part)
        return self.items[part] if part < len(self.items) else None

    def _compact(self) -> None:
        self.items = [item for item in self.items if not item.removed]
        self.entries = {key: entry for key, entry in self.entries.items() if not entry.removed}
        for mark in (*self.entries.values(), *self.items):
            mark._compact()

    def find(self, path: str) -> tuple[Mark, list[tuple[Mark, str]]]:
        """Find the innermost marked value on the way to a place such as `services[0].gate.passes`.

        Returns its mark, and for each value on the way its mark and the path from it to the place.
        """
        current, rest, way = self, path, [(self, path)]
        while rest:
            step = current._step(rest)
            if step is None:
                break
            current, rest = step
            way.append((current, rest))
        return current, way

    def _step(self, path: str) -> tuple[Mark, str] | None:
        """Follow the first part of a path. A key may contain dots."""
        if index := re.match(r"\[(\d+)\]\.?", path):
            mark = self._child(int(index[1]))
            return (mark, path[index.end() :]) if mark else None
        keys = [key for key in self.entries if path == key or path.startswith((f"{key}.", f"{key}["))]
        if not keys:
            return None
        key = max(keys, key=len)
        return self.entries[key], path[len(key) :].removeprefix(".")


def named_place(root: Mark, path: str) -> str:
    """Return a place with the names of its service, host or environment: `service web: gate.passes`."""
    _, way = root.find(path)
    first = path.partition(".")[0].partition("[")[0]
    if first not in _NAMED or len(way) < 3:
        return path
    entry, rest = way[2]
    name = entry.name if path[len(first)] == "[" else path[len(first) + 1 : len(path) - len(rest)].rstrip(".")
    if not name:
        return path
    label = f"{_NAMED[first]} {name}"
    if first == "environments" and rest.startswith("hosts.") and len(way) > 4:
        host = rest.removeprefix("hosts.")
        rest = way[4][1]
        label = f"host {host[: len(host) - len(rest)].rstrip('.')} of {name}"
    return f"{label}: {rest}" if rest else label
