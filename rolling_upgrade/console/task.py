"""What tasks share: options, and how a task ends: exit code, error on stderr, interrupts. It runs no workflow."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from invoke.exceptions import Exit
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from rolling_upgrade.errors import ConfigError, ExitCode, RollingError

if TYPE_CHECKING:
    from invoke.parser.argument import Argument

P = ParamSpec("P")

#: The help of each option that means the same in every task. A task's own help for it wins.
OPTIONS = {
    "env": "environment in hosts.yaml; there is no default",
    "hosts": "only these hosts, groups or roles, separated by commas; may be repeated",
    "dry-run": "show the plan with every command; change nothing",
    "force": "skip the confirmation",
    "json": "print one JSON object per line on stdout",
}
#: The help of --json in a task that prints one object for all hosts.
ONE_OBJECT = {"json": "print one JSON object on stdout"}

#: The second name of an option, and its one letter. No letter may delete data.
SECOND_NAMES = {"env": "environment", "hosts": "host", "lines": "tail", "suite": "test-suite"}
LETTERS = {"env": "e", "dry-run": "d", "follow": "f", "force": "f", "json": "j"}

#: Options of Invoke and Fabric by the key that holds their value.
_RUN_OPTIONS = {"warn": "warn-only", "pty": "pty", "hide": "hide", "echo": "echo"}
_CONNECT_OPTIONS = {
    "key_filename": "identity",
    "timeout": "connect-timeout",
    "password": "prompt-for-login-password",
    "passphrase": "prompt-for-passphrase",
}

#: The variable that names the open file with secrets: a JSON object of names and values.
SECRETS_FD = "ROLLING_SECRETS_FD"

#: How an interrupted task ends, where it acts on hosts and where it acts on files of this machine alone.
ON_HOSTS = "what a host had begun was let end. Next: inv status, or the same command again"
ON_FILES = "no file was changed; a text that was being edited is gone. Next: the same command again"


def end_with(work: Callable[[], int], *, interrupted: str = ON_HOSTS) -> None:
    """Do the work; leave through invoke's Exit with its code, the error's text on stderr.

    SIGTERM counts as Ctrl-C, so that a cancelled CI job undoes what it began; so does SIGINT where a shell ignores it.
    """
    take_secrets()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        code = work()
    except RollingError as error:
        _say(str(error))
        raise Exit(code=int(error.exit_code)) from None
    except KeyboardInterrupt:
        _say(f"interrupted; {interrupted}")
        raise Exit(code=int(ExitCode.INTERRUPTED)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(code=int(ExitCode.FAILED)) from None
    except Exit:
        raise
    except Exception:  # noqa: BLE001 - Python would print what is in it as it is
        _say(traceback.format_exc())
        raise Exit(code=int(ExitCode.FAILED)) from None
    if code:
        raise Exit(code=int(code))


def _say(text: str) -> None:
    """Write to stderr, with the secrets of every configuration that was read masked: a host may have written it."""
    from rolling_upgrade.console.output import print_lines
    from rolling_upgrade.engine import masking

    print_lines([text.rstrip("\n")], sys.stderr, masking.kept())


def take_secrets() -> None:
    """Take over the secrets that `scripts/job.py` holds: they are in no environment that /proc shows."""
    named = os.environ.pop(SECRETS_FD, "")
    if named.isdecimal():
        from rolling_upgrade.engine import masking

        with os.fdopen(int(named), encoding="utf-8") as file:
            secrets: dict[str, str] = json.load(file)
        os.environ.update(secrets)
        masking.keep(value for name, value in secrets.items() if not name.endswith("_FILE"))


def root() -> Path:
    """Return the directory that the configuration is read from: the nearest one upwards that holds hosts.yaml.

    Raises:
        ConfigError: No directory from the current one upwards holds it.
    """
    here = Path.cwd()
    found = root_or_here()
    if (found / "hosts.yaml").exists():
        return found
    raise ConfigError(
        f"{here} has no hosts.yaml, and no directory above it has one. Nothing was contacted.",
        next_step="change to the directory of your configuration, or write one here: rolling-upgrade init",
    )


def root_or_here() -> Path:
    """Return the directory that `root` returns, or the current one where there is no configuration yet."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "hosts.yaml").exists()), here)


def chosen_hosts(context: Any, hosts: Sequence[str] | None) -> tuple[str, ...]:
    """Hosts named by `--hosts a,b`, or the one host that `fab -H` gave this call.

    An option that names none (`--hosts "$EMPTY"`) is kept as a word that no inventory knows: it must not mean all.
    """
    if hosts:
        return words_of(hosts) or tuple(hosts)
    single = getattr(context, "original_host", None) or getattr(context, "host", None)
    return (single,) if isinstance(single, str) else ()


def words_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """What an option that may repeat and takes commas was given, one after the other."""
    return tuple(word.strip() for value in given or () for word in value.split(",") if word.strip())


def isolated(run: Callable[P, int]) -> Callable[P, int]:
    """Return the workflow, after closing this process to the application's own code, which runs as the same user."""
    from rolling_upgrade.engine import processes

    processes.close_to_others()
    return run


class NamedTask(Task):  # type: ignore[type-arg]
    """A task whose shared options have the same help, second name and letter as in every other task.

    Args:
        long_only: Options without a letter in this task, because they delete data here.
    """

    def __init__(self, body: Callable[..., None], *, long_only: Sequence[str] = (), **settings: Any) -> None:
        settings["iterable"] = [*(settings.get("iterable") or ()), *_repeatable(body)]
        super().__init__(body, auto_shortflags=False, **settings)
        self._long_only = tuple(long_only)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task. Raises Exit for options of Invoke and Fabric that it would ignore."""
        if given := _ignored(args[0].config):
            problem = f"{given} is an option of Invoke or Fabric, which the tasks here do not act on"
            hint = "; use --dry-run" if given == "--dry" else ""
            raise Exit(f"{problem}{hint}. Nothing was contacted.", code=int(ExitCode.USAGE))
        return super().__call__(*args, **kwargs)

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the options of the task's signature, each under all its names."""
        texts = dict(self.help)
        found = super().get_arguments(ignore_unknown_help)
        self.help = texts  # Invoke takes each text out as it uses it
        for argument in found:
            name = argument.names[0]
            letter = None if name in self._long_only else LETTERS.get(name)
            argument.names = (name, *filter(None, (SECOND_NAMES.get(name), letter)))
            argument.help = argument.help or OPTIONS.get(name)
        return found


def _ignored(config: Any) -> str:
    """The first option of Invoke or Fabric that the command line, or for --dry any configuration, sets in vain.

    Source: Invoke 2.2, Program.update_config, and Fabric 3.2, Fab.update_config: the options become overrides.
    """
    given = config._overrides  # the other levels of the configuration may set the same values for other programs
    ssh_config = getattr(config, "_runtime_ssh_path", None)
    found = {
        "--dry": config.run.dry,
        "--config": config._runtime_path and "INVOKE_RUNTIME_CONFIG" not in os.environ,
        "--ssh-config": ssh_config and ssh_config != config.get("ssh_config_path"),
        **{f"--{name}": given.get("run", {}).get(key) for key, name in _RUN_OPTIONS.items()},
        "--prompt-for-sudo-password": given.get("sudo"),
        "--command-timeout": given.get("timeouts"),
        **{f"--{name}": given.get("connect_kwargs", {}).get(key) for key, name in _CONNECT_OPTIONS.items()},
    }
    return next((option for option, value in found.items() if value), "")


def _repeatable(body: Callable[..., None]) -> list[str]:
    hosts = inspect.signature(body).parameters.get("hosts")
    return ["hosts"] if hosts and hosts.default is None else []


task = partial(invoke_task, klass=NamedTask)
