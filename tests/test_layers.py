"""The rules of the layers hold: imports run one way, pure modules stay pure, and functions stay short."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.rendering import ENGINE_MODULES, SITE_MODULES, reachable
from tests.support.layer_rules import (
    FEATURE_IMPORTS,
    HEAVY,
    LONGEST_FUNCTION,
    import_faults,
    imports,
    module_name,
    size_faults,
)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rolling_upgrade"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SIZED = [
    *SOURCES,
    ROOT / "tasks.py",
    *sorted((ROOT / "fabfile").rglob("*.py")),
    *sorted((ROOT / "lab").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]
#: The modules of the zipapps that run on hosts.
PACKED = frozenset(module_name(path, PACKAGE) for path in reachable([*ENGINE_MODULES, *SITE_MODULES]))


def test_layers_every_import_is_allowed() -> None:
    faults = [
        fault
        for path in SOURCES
        for fault in import_faults(module_name(path, PACKAGE), path.read_text("utf-8"), packed=PACKED)
    ]

    assert len(PACKED) > 20
    assert faults == []


def test_layers_feature_imports_match_the_list() -> None:
    used: dict[str, set[str]] = {}
    for path in SOURCES:
        feature = module_name(path, PACKAGE).removeprefix("features.").split(".")[0]
        for found in imports(path.read_text("utf-8")):
            if path.is_relative_to(PACKAGE / "features") and found.module.startswith("rolling_upgrade.features."):
                used.setdefault(feature, set()).add(found.module.split(".")[2])

    assert {feature: tuple(sorted(names - {feature})) for feature, names in used.items() if names - {feature}} == {
        feature: tuple(sorted(names)) for feature, names in FEATURE_IMPORTS.items() if names
    }


def test_layers_every_file_and_function_is_within_the_limits() -> None:
    faults = [fault for path in SIZED for fault in size_faults(str(path.relative_to(ROOT)), path.read_text("utf-8"))]

    assert faults == []


def test_layers_tasks_file_imports_nothing_heavy() -> None:
    eager = {found.package for found in imports((ROOT / "tasks.py").read_text("utf-8")) if found.eager}

    assert eager & HEAVY == set()


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("errors", "from rolling_upgrade.config import load", "errors is below config"),
        ("engine.podman", "from rolling_upgrade.features.deploy.plan import plan_deploy", "engine is below features"),
        ("config.loader", "def f():\n    from rolling_upgrade.ssh import fleet", "config is below ssh"),
        ("engine.rollout", "import rolling_upgrade.features.deploy.workflow", "engine is below features"),
        ("ssh.fleet", "from rolling_upgrade import console", "ssh and console are in the same row"),
        ("console.plan", "from ..ssh import fleet", "console and ssh are in the same row"),
        ("features.deploy.plan", "from rolling_upgrade import config", "it must not import config"),
        ("features.backup.shell", "from rolling_upgrade.ssh.fleet import Fleet", "it must not import ssh.fleet.Fleet"),
        ("features.status.workflow", "from rolling_upgrade.features.deploy import plan", "status must not use deploy"),
        ("engine.executor", "from fabfile import namespace", "fabfile is not in the standard library"),
        ("engine.lock", "from rolling_upgrade import tasks", "engine is below tasks"),
        ("engine.model", "import pydantic", "pydantic is not in the standard library"),
        ("engine.plan", "def f():\n    import yaml", "yaml is not in the standard library"),
        ("features.notify.mail", "import jinja2", "jinja2 is not in the standard library"),
        ("engine.host", "try:\n    import rich\nexcept ImportError:\n    pass", "rich is not in the standard"),
        ("ssh.fabric_host", "import fabric", "fabric belongs inside functions of ssh"),
        ("features.deploy.workflow", "def f():\n    from paramiko import PKey", "paramiko belongs inside functions of"),
        ("features.deploy.tasks", "import yaml", "yaml is heavy: import it in the function that needs it"),
        ("features.deploy.tasks", "if True:\n    from rich.table import Table", "rich.table is heavy"),
        ("tasks", "class Task:\n    import jinja2", "jinja2 is heavy"),
        ("", "from rolling_upgrade.tasks import namespace", "before it is asked"),
        ("unknown", "from rolling_upgrade import errors", "no rule knows the layer of unknown"),
    ],
)
def test_import_faults_forbidden_import_is_found(module: str, source: str, fault: str) -> None:
    (found,) = import_faults(module, source, packed=PACKED)

    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("features.deploy.plan", "from rolling_upgrade.engine import podman\nimport re"),
        ("features.deploy.plan", "from rolling_upgrade.features.prune import plan"),
        ("ssh.fabric_host", "def f():\n    import fabric"),
        ("ssh.fabric_host", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fabric"),
        (
            "console.plan",
            "from rolling_upgrade.engine.plan import Plan\nfrom rolling_upgrade.console import text",
        ),
        ("console.live", "from rich.live import Live"),
        ("features.watchdog.loop", "from rolling_upgrade.features.notify import send"),
        ("features.deploy.tasks", "from invoke import task\ndef f():\n    import yaml"),
        (
            "features.deploy.workflow",
            "from rolling_upgrade.console import plan\nfrom rolling_upgrade.ssh import fleet",
        ),
        ("", "def f():\n    from rolling_upgrade.tasks import namespace"),
    ],
)
def test_import_faults_allowed_source_has_none(module: str, source: str) -> None:
    assert import_faults(module, source, packed=PACKED) == []


def test_size_faults_long_function_is_found() -> None:
    fits = "class A:\n    def f(self):\n" + "        a = 1\n" * (LONGEST_FUNCTION - 1)

    assert size_faults("x.py", fits) == []
    assert size_faults("x.py", fits + "        a = 1\n") == ["x.py line 2: f has 51 lines; 50 at most"]
