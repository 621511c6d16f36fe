"""Listing the tasks is quick: what a person waits for is Python and invoke, hardly anything of ours."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from tests.layer_rules import HEAVY

ROOT = Path(__file__).parent.parent
LIST = ("-m", "invoke", "--list")
BARE = ("-c", "import invoke")


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60)
    return time.perf_counter() - began


def test_list_takes_less_than_twice_a_bare_import_of_invoke() -> None:
    seconds(*LIST)  # writes what Python compiles
    # Pairs, one right after the other: what else the machine does slows both, and a median forgets the worst.
    ratios = [seconds(*LIST) / seconds(*BARE) for _ in range(9)]

    assert median(ratios) < 2


def test_list_imports_nothing_heavy() -> None:
    program = (
        "import sys, invoke.loader; before = set(sys.modules); import tasks; tasks.namespace.task_names;"
        "print(*(set(sys.modules) - before))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    imported = {name.split(".")[0] for name in shown.stdout.split()}

    assert "fabfile" in imported
    assert imported & HEAVY == set()
