"""What every benchmark program shares: its lab, its tasks, its log and its options."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab import laboratory
from lab.files import locked
from lab.laboratory import PROJECT, Lab
from rolling_upgrade.errors import RollingError


@contextmanager
def benchmark_lab(name: str, hosts: int) -> Iterator[Lab]:
    """Start a lab and remove it at the end. A second benchmark with this lab waits. Raises SystemExit."""
    with locked(f"benchmark-{name}"):
        try:
            yield laboratory.up(hosts, name=name, log=log)
        except RollingError as error:
            raise SystemExit(str(error)) from error
        finally:
            laboratory.down(name, log=log)


def run_task(lab: Lab, *words: str) -> str:
    """Run a task in the lab's environment and return its output. Raises SystemExit when it fails."""
    command = [sys.executable, "-m", "invoke", words[0], "--env", lab.name, *words[1:]]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`inv {' '.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def log(text: str) -> None:
    """Print a line of progress, apart from the results."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def numbers(text: str) -> list[int]:
    """Return the numbers of an option such as `--rtt 0,50`."""
    return [int(number) for number in text.split(",")]
