"""Measures how long a backup delays a writer: `python -m benchmarks.backup`.

A writer commits 50 times per second to a database of 500 MB on a lab host. Each journal mode is measured without load
and during the script of `inv backup`. Only lines of one run are comparable. The benchmark uses a separate lab.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.program import benchmark_lab, log, run_task
from benchmarks.tables import markdown
from lab.host import Host
from lab.laboratory import PROJECT, Lab
from rolling_upgrade import config
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import BackupKind

MODES = ("wal", "delete")
QUIET_SECONDS = 15.0
_WRITER = Path(__file__).with_name("writer.py")
_MARKER = "/tmp/writing"  # noqa: S108 - on a lab host
_HEADINGS = ("journal", "database MB", "load", "seconds", "commits", "median ms", "99% ms", "longest ms")


@dataclass(frozen=True)
class Measurement:
    """The commits of the writer during one period."""

    mode: str
    megabytes: int
    meanwhile: str
    seconds: float
    commits: tuple[float, ...]

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table's row, with milliseconds."""
        ordered = sorted(1000 * commit for commit in self.commits)
        middle, late = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        figures = (f"{middle:.1f}", f"{late:.0f}", f"{ordered[-1]:.0f}")
        return (self.mode, str(self.megabytes), self.meanwhile, f"{self.seconds:.1f}", str(len(ordered)), *figures)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both journal modes and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.backup", description="The delay of a writer during a backup."
    )
    parser.add_argument("--megabytes", type=int, default=500, help="size of the database (default: 500)")
    parser.add_argument("--repeat", type=int, default=3, help="backups of each journal mode (default: 3)")
    parser.add_argument("--name", default="bench", help="the lab's name (default: bench)")
    options = parser.parse_args(arguments)
    with benchmark_lab(options.name, 1) as lab:
        _report(lab, options)


def _report(lab: Lab, options: argparse.Namespace) -> None:
    measurements = []
    try:
        for measurement in measure(lab, options.megabytes, options.repeat):
            measurements.append(measurement)
            log(" ".join(measurement.row()))
    finally:
        print(markdown(_HEADINGS, [measurement.row() for measurement in measurements]), flush=True)


def measure(lab: Lab, megabytes: int, repeat: int) -> Iterator[Measurement]:
    """Measure alternately without load and during a backup, for each journal mode."""
    host = lab.hosts[0]
    run_task(lab, "setup", "--force")
    app = config.load(lab.name, root=PROJECT).targets[0].application
    host.sh(f"cat > /tmp/writer.py <<'END'\n{_WRITER.read_text()}\nEND", user="deploy")
    for mode in MODES:
        host.sh(f"python3 /tmp/writer.py fill {app.database} {mode} {megabytes}", user="deploy", timeout=300)
        for number in range(repeat):
            yield _measure_during(host, app, mode, megabytes, "nothing", f"sleep {QUIET_SECONDS:g}")
            script = direct(backup.take(app, f"20261123T00000{number}Z-{mode:0<6}", BackupKind.MANUAL))
            yield _measure_during(host, app, mode, megabytes, "a backup", script.text)


def _measure_during(host: Host, app: Application, mode: str, megabytes: int, meanwhile: str, text: str) -> Measurement:
    """Write while the script runs. Return the commits during its run."""
    script = f"""\
touch {_MARKER}
python3 /tmp/writer.py write {app.database} {_MARKER} > /tmp/commits &
writer=$!
sleep 2
began=$(date +%s.%N)
(
{text}
) >&2
ended=$(date +%s.%N)
sleep 2
rm {_MARKER}
wait "$writer"
echo "$began $ended"
cat /tmp/commits
"""
    first, *rest = host.sh(script, user="deploy", timeout=300).stdout.splitlines()
    began, ended = (float(word) for word in first.split())
    commits = [(float(at), float(took)) for at, took in (row.split() for row in rest)]
    during = tuple(took for at, took in commits if at + took >= began and at <= ended)
    return Measurement(mode, megabytes, meanwhile, ended - began, during)


if __name__ == "__main__":
    main()
