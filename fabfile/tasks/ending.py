"""What tasks share: options, and how a task ends: exit code, error on stderr, interrupts. It runs no workflow."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.exceptions import Exit

from fabfile.errors import ExitCode, RollingError

#: The project's own folder: configuration is read from here, wherever the task is called from.
ROOT = Path(__file__).resolve().parent.parent.parent

#: Options that mean the same in every task, and their help: those of tasks without --json, and of those with it.
WHERE = {
    "env": "the environment in hosts.yaml to act on (there is no default)",
    "hosts": "only these hosts, groups or roles, separated by commas",
}
COMMON = WHERE | {"json": "one JSON object per line on stdout"}


#: How an interrupted task ends, where it acts on hosts and where it acts on files of this machine alone.
ON_HOSTS = "what a host had begun was let end. Next: inv status, or the same command again"
ON_FILES = "no file was changed; a text that was being edited is gone. Next: the same command again"


def end_with(work: Callable[[], int], *, interrupted: str = ON_HOSTS) -> None:
    """Do the work; leave through invoke's Exit with its code, the error's text on stderr.

    SIGTERM counts as Ctrl-C, so that a cancelled CI job undoes what it began; so does SIGINT where a shell ignores it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        code = work()
    except RollingError as error:
        print(error, file=sys.stderr)
        raise Exit(code=int(error.exit_code)) from None
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        raise Exit(code=int(ExitCode.INTERRUPTED)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(code=int(ExitCode.FAILED)) from None
    if code:
        raise Exit(code=int(code))


def chosen_hosts(context: Any, hosts: str | None) -> tuple[str, ...]:
    """Hosts named by `--hosts a,b`, or the one host that `fab -H` gave this call.

    An option that names none (`--hosts "$EMPTY"`) is kept as a word that no inventory knows: it must not mean all.
    """
    if hosts is not None:
        return tuple(name.strip() for name in hosts.split(",") if name.strip()) or (hosts,)
    single = getattr(context, "original_host", None) or getattr(context, "host", None)
    return (single,) if isinstance(single, str) else ()
