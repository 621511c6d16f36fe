"""Zero-downtime rolling upgrades of containerised web applications over SSH.

    errors     the error tree and the exit codes
    engine     the core that every feature builds on; standard library, and Jinja2 for the site
    config     hosts.yaml, services.yaml and env files, checked and joined into one Environment
    rendering  Jinja2 templates, and the programs for hosts
    ssh        connections over Fabric and Paramiko
    console    everything that prints and asks
    features   one package per operator task; `operation` and `apply` are shared
    tasks      the collection of tasks that `inv` and `fab` show
    api        what Python programs import from here
    cli        the console script `rolling-upgrade`

Imports run one way: errors <- engine <- config <- rendering <- ssh, console <- features <- tasks <- cli, fabfile.
tests/test_layers.py enforces it. The names of the public API are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rolling_upgrade.api import Environment, RunFailed, deploy, health, plan, rollback, status
    from rolling_upgrade.errors import RollingError

__version__ = "0.2.0"

__all__ = ["Environment", "RollingError", "RunFailed", "deploy", "health", "plan", "rollback", "status"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not an import statement: the programs for hosts contain what they import.
    return getattr(import_module(f"{__name__}.api"), name)
