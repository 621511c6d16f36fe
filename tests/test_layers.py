"""Imports run one way, pure layers stay pure, and nothing grows beyond what a person reads at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layer_rules import (
    HEAVY,
    LONGEST_FILE,
    LONGEST_FUNCTION,
    import_faults,
    imports,
    module_name,
    size_faults,
)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fabfile"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SIZED = [
    *SOURCES,
    ROOT / "tasks.py",
    *sorted((ROOT / "lab").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]


def test_layers_every_import_keeps_the_rules() -> None:
    faults = [fault for path in SOURCES for fault in import_faults(module_name(path, PACKAGE), path.read_text("utf-8"))]

    assert SOURCES
    assert faults == []


def test_layers_every_file_and_function_is_readable_at_once() -> None:
    faults = [fault for path in SIZED for fault in size_faults(str(path.relative_to(ROOT)), path.read_text("utf-8"))]

    assert faults == []


def test_layers_tasks_file_imports_nothing_heavy() -> None:
    eager = {found.package for found in imports((ROOT / "tasks.py").read_text("utf-8")) if found.eager}

    assert eager & HEAVY == set()


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("model", "from fabfile.config import load", "model lies below config"),
        ("commands.podman", "from fabfile.plans.step import Step", "commands lies below plans"),
        ("plans.deploy", "def f():\n    from fabfile.remote import observe", "plans lies below remote"),
        ("remote.rollout", "import fabfile.workflows.deploy", "remote lies below workflows"),
        ("remote.rollout", "from fabfile import report", "only workflows and tasks speak to report"),
        ("report.plan", "from fabfile.plans import deploy", "report may not know fabfile.plans.deploy"),
        (
            "report.plan",
            "from fabfile.commands.shell import quote",
            "report may not know fabfile.commands.shell",
        ),
        ("report.plan", "from ..commands import shell", "report may not know fabfile.commands"),
        ("notify.send", "from fabfile.config import load", "notify may not know fabfile.config"),
        ("notify.mail", "import jinja2", "jinja2 is not in the standard library"),
        ("report.plan", "from fabfile.notify import send", "report may not know fabfile.notify"),
        ("plans.deploy", "import fabfile.notify.text", "only watchdog and workflows and tasks speak to notify"),
        ("remote.execute", "from fabfile import namespace", "no rule knows the layer of fabfile.namespace"),
        ("model", "import pydantic", "pydantic is not in the standard library"),
        ("plans.deploy", "def f():\n    import yaml", "yaml is not in the standard library"),
        (
            "remote.local_host",
            "try:\n    import rich\nexcept ImportError:\n    pass",
            "rich is not in the standard library",
        ),
        ("remote.fabric_host", "import fabric", "fabric belongs inside functions of remote"),
        (
            "workflows.deploy",
            "def f():\n    from paramiko import PKey",
            "paramiko belongs inside functions of remote",
        ),
        ("tasks.main", "import yaml", "yaml is heavy: import it in the function that needs it"),
        ("tasks.main", "if True:\n    from rich.table import Table", "rich.table is heavy"),
        ("tasks.main", "class Task:\n    import jinja2", "jinja2 is heavy"),
        (
            "",
            "from fabfile.tasks.main import deploy",
            "the package imports fabfile.tasks.main before it is asked",
        ),
    ],
)
def test_import_faults_bad_source_is_found(module: str, source: str, fault: str) -> None:
    (found,) = import_faults(module, source)

    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("plans.deploy", "from fabfile.commands import podman\nfrom fabfile.model import Color\nimport re"),
        ("remote.fabric_host", "def f():\n    import fabric"),
        ("remote.fabric_host", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fabric"),
        ("report.plan", "from fabfile.plans import step\nfrom fabfile.report.text import clean"),
        ("report.live", "from rich.live import Live"),
        ("watchdog.loop", "from fabfile.notify import send"),
        ("notify.send", "from fabfile.model.notice import Notice"),
        ("tasks.main", "from invoke import task\ndef f():\n    from fabfile.workflows.deploy import deploy"),
        ("workflows.deploy", "from fabfile.report import choose\nfrom fabfile.remote import observe"),
        ("", "def __getattr__(name):\n    from fabfile.tasks.namespace import namespace"),
    ],
)
def test_import_faults_good_source_has_none(module: str, source: str) -> None:
    assert import_faults(module, source) == []


def test_size_faults_long_file_is_found() -> None:
    assert size_faults("x.py", "a = 1\n" * LONGEST_FILE) == []
    assert size_faults("x.py", "a = 1\n" * (LONGEST_FILE + 1)) == ["x.py: 321 lines; 320 at most"]


def test_size_faults_long_function_is_found() -> None:
    fits = "class A:\n    def f(self):\n" + "        a = 1\n" * (LONGEST_FUNCTION - 1)

    assert size_faults("x.py", fits) == []
    assert size_faults("x.py", fits + "        a = 1\n") == ["x.py line 2: f has 51 lines; 50 at most"]
