"""Listing the tasks is quick: what a person waits for is Python and invoke, hardly anything of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.layer_rules import HEAVY

ROOT = Path(__file__).parent.parent


def test_list_imports_nothing_heavy() -> None:
    program = (
        "import sys, invoke.loader; before = set(sys.modules); import tasks; tasks.namespace.task_names;"
        "print(*(set(sys.modules) - before))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    imported = {name.split(".")[0] for name in shown.stdout.split()}

    assert {"fabfile", "rolling_upgrade"} <= imported
    assert imported & HEAVY == set()
