"""Listing the tasks is fast: it imports no heavy package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "words", [["--help"], ["deploy", "--help"], ["config.check"], ["config.show", "-e", "staging"]]
)
def test_task_without_hosts_imports_no_ssh_and_no_screen(words: list[str]) -> None:
    program = (
        "import sys; from rolling_upgrade import cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    root = ROOT / "tests" / "fixtures" / "memoryark"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    imported = {name.split(".")[0] for name in done.stderr.split()}

    assert "rolling_upgrade" in imported
    assert imported & {"paramiko", "fabric", "rich", "cryptography", "pyrage"} == set()


def test_completion_script_is_printed_without_reading_a_configuration() -> None:
    program = (
        "import sys; from rolling_upgrade.features.completion import workflow; from pathlib import Path\n"
        "workflow.completion('bash', '', root=Path()); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )

    assert not {"pydantic", "yaml"} & set(done.stderr.split())


def test_status_imports_no_server_of_images() -> None:
    program = (
        "import sys, fabric; from rolling_upgrade.features.status import workflow;print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    modules = set(done.stderr.split())

    assert {"rolling_upgrade.ssh.fabric_host", "fabric"} <= modules
    assert modules & {"rolling_upgrade.ssh.image_server", "http.server"} == set()
