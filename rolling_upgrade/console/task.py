"""The `task` decorator: shared options, running a workflow, exit code, error on stderr, interrupts."""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit, ParseError
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue, ExitCode, RollingError

if TYPE_CHECKING:
    from invoke.parser.argument import Argument

#: The help of options with the same meaning in every task. The help in a task overrides it.
OPTIONS = {
    "env": "environment in hosts.yaml; there is no default",
    "hosts": "only these hosts, groups or roles, separated by commas; may be repeated",
    "dry-run": "show the plan with every command; change nothing",
    "force": "skip the confirmation",
    "json": "print one JSON object per line on stdout",
}
#: The help of --json in a task that prints one object for all hosts.
ONE_OBJECT = {"json": "print one JSON object on stdout"}

#: The second name and the letter of an option. An option that deletes data has no letter.
SECOND_NAMES = {"env": "environment", "hosts": "host", "lines": "tail", "suite": "test-suite"}
LETTERS = {"env": "e", "dry-run": "d", "force": "f", "json": "j"}

#: Options of Invoke and Fabric by the key that holds their value.
_RUN_OPTIONS = {"warn": "warn-only", "pty": "pty", "hide": "hide", "echo": "echo"}
_CONNECT_OPTIONS = {
    "key_filename": "identity",
    "timeout": "connect-timeout",
    "password": "prompt-for-login-password",
    "passphrase": "prompt-for-passphrase",
}

#: The variable with the file descriptor of a JSON object with secret variables.
SECRETS_FD = "ROLLING_SECRETS_FD"

#: The message of an interrupted task: one that acts on hosts, on local processes only, and on local files only.
ON_HOSTS = f"changes that had started on a host were finished. Next: {PROGRAM} status, or the same command again"
ON_PROCESSES = "the local processes were stopped; no host was contacted. Next: the same command again"
ON_FILES = "no file was changed; unsaved edits are lost. Next: the same command again"


def exit_with(work: Callable[[], int | None], *, interrupted: str = ON_HOSTS, as_json: bool = False) -> None:
    """Run the task. Print its error to stderr and raise Invoke's Exit with the exit code; None counts as 0.

    With `as_json`, also print the error to stdout, as the last JSON object there.

    SIGTERM and SIGHUP act as Ctrl-C, so that a cancelled CI job undoes its changes. SIGINT is handled even if the shell
    started this process with SIGINT ignored.
    """
    load_secrets()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        code = work()
    except RollingError as error:
        _print_error(str(error))
        if as_json:
            print_json_error(error)
        raise Exit(code=int(error.exit_code)) from None
    except KeyboardInterrupt:
        _print_error(f"interrupted; {interrupted}")
        if as_json:
            what, _, next_step = interrupted.partition(". Next: ")
            _print_json(ExitCode.INTERRUPTED, f"interrupted; {what}", next_step=next_step)
        raise Exit(code=int(ExitCode.INTERRUPTED)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(code=int(ExitCode.FAILED)) from None
    except Exit:
        raise
    except Exception as error:  # noqa: BLE001 - Python would print its text unmasked
        _print_error(traceback.format_exc())
        if as_json:
            _print_json(ExitCode.FAILED, f"unexpected error: {error!r}", next_step="please report the error")
        raise Exit(code=int(ExitCode.FAILED)) from None
    finally:
        # Otherwise the interpreter examines every object once more before it exits, which takes longer than the rest.
        gc.freeze()
    if code:
        raise Exit(code=int(code))


def _print_error(text: str) -> None:
    """Print a text to stderr with all known secrets masked: it may contain output of a host."""
    from rolling_upgrade.console.output import print_lines
    from rolling_upgrade.engine import masking

    print_lines([text.rstrip("\n")], masking.remembered(), stream=sys.stderr)


def print_json_error(error: RollingError) -> None:
    """Print an error to stdout as a JSON object, with all known secrets masked."""
    issues = error.issues if isinstance(error, ConfigError) else ()
    _print_json(error.exit_code, error.message, issues, next_step=error.next_step)


def _print_json(code: ExitCode, error: str, issues: Sequence[ConfigIssue] = (), *, next_step: str) -> None:
    from rolling_upgrade.console.output import Output, issues_json
    from rolling_upgrade.engine import masking

    shown = {"type": "error", "exit_code": int(code), "error": error}
    shown |= {"issues": issues_json(issues), "next_step": next_step}
    Output(sys.stdout, masking.remembered()).write_json(shown)


def load_secrets() -> None:
    """Read the secrets that `scripts/job.py` passes in an open file, so that /proc shows none of them."""
    named = os.environ.pop(SECRETS_FD, "")
    if named.isdecimal():
        from rolling_upgrade.engine import masking

        with os.fdopen(int(named), encoding="utf-8") as file:
            secrets: dict[str, str] = json.load(file)
        os.environ.update(secrets)
        masking.remember(value for name, value in secrets.items() if not name.endswith("_FILE"))


def root() -> Path:
    """Return the nearest directory with hosts.yaml, from the current one upwards. Raises ConfigError without one."""
    here = Path.cwd()
    directory = root_or_here()
    if (directory / "hosts.yaml").exists():
        return directory
    raise ConfigError(
        f"{here} has no hosts.yaml, and no directory above it has one. Nothing was contacted.",
        next_step=f"change to the directory of your configuration, or write one here: {PROGRAM} init",
    )


def root_or_here() -> Path:
    """Return the nearest directory with hosts.yaml, or the current directory without one."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / "hosts.yaml").exists()), here)


def selected_hosts(context: Any, hosts: Sequence[str] | None) -> tuple[str, ...]:
    """Return the hosts of `--hosts a,b`, or the host of this call by `fab -H`."""
    if hosts:
        return split_words(hosts)
    single = getattr(context, "original_host", None) or getattr(context, "host", None)
    return (single,) if isinstance(single, str) else ()


def split_words(given: Sequence[str] | None) -> tuple[str, ...]:
    """Split the values of a repeatable option at commas.

    An empty option (`--hosts "$EMPTY"`) is returned as it is, so that it selects an unknown host and not all hosts.
    """
    values = tuple(given or ())
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip()) or values


class FeatureTask(Task):  # type: ignore[type-arg]
    """A task with the shared options of all tasks. With a `workflow`, it calls that; its own function has no body.

    The workflow gets by name: `root`, and every option of the task's function under the same name. `hosts` are the
    selected hosts, and a repeatable option is a tuple. The workflow returns the exit code.

    Args:
        workflow: The name of a function in `workflow.py` beside `tasks.py`, or `MODULE:FUNCTION`. The module is
            imported when the task runs, so that `--list` stays fast.
        needs_configuration: Fail in a directory without a configuration. If false, `root` is the current directory.
        interrupted: The end of the message after Ctrl-C.
        isolated: Deny other processes of this user, such as test suites, access to this process.
        long_only: Options without a letter in this task, because they delete data.
    """

    def __init__(
        self,
        body: Callable[..., None],
        *,
        workflow: str = "",
        needs_configuration: bool = True,
        interrupted: str = ON_HOSTS,
        isolated: bool = False,
        long_only: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(body, auto_shortflags=False, iterable=_repeatable(body), **settings)
        self.workflow = workflow
        self._find_root = root if needs_configuration else root_or_here
        self._interrupted = interrupted
        self._isolated = isolated
        self._long_only = tuple(long_only)

    def __call__(self, context: Any, *args: Any, **options: Any) -> Any:
        """Run the task. Raises Exit for options of Invoke and Fabric that have no effect here."""
        if given := _ignored(context.config):
            problem = f"{given} is an option of Invoke or Fabric, which the tasks here do not act on"
            problem += "; use --dry-run" if given == "--dry" else ""
            error = ConfigError(f"{problem}. Nothing was contacted.")
            if options.get("json"):
                print_json_error(error)
            raise Exit(str(error), code=int(error.exit_code))
        if not self.workflow:
            return super().__call__(context, *args, **options)
        given_options = self.argspec(self.body).bind(*args, **options)
        given_options.apply_defaults()
        return exit_with(
            lambda: self._run_workflow(context, given_options.arguments),
            interrupted=self._interrupted,
            as_json=bool(given_options.arguments.get("json")),
        )

    def _run_workflow(self, context: Any, options: Mapping[str, Any]) -> int:
        if self._isolated:
            from rolling_upgrade.engine import local_command

            local_command.forbid_inspection()
        # The imports create many objects and no garbage.
        gc.disable()
        run = self.load_workflow()
        gc.enable()
        values = {name: tuple(value or ()) if name in self.iterable else value for name, value in options.items()}
        if "hosts" in values:
            values["hosts"] = selected_hosts(context, values["hosts"])
        return run(root=self._find_root(), **values)

    def load_workflow(self) -> Callable[..., int]:
        """Import the workflow."""
        module, _, function = self.workflow.rpartition(":")
        package = self.body.__module__.rpartition(".")[0]
        workflow: Callable[..., int] = getattr(importlib.import_module(f"{package}.{module or 'workflow'}"), function)
        return workflow

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the options of the task, each with all its names."""
        texts = dict(self.help)
        arguments = super().get_arguments(ignore_unknown_help)
        self.help = texts  # Invoke removes each text when it uses it
        for argument in arguments:
            name = argument.names[0]
            letter = None if name in self._long_only else LETTERS.get(name)
            argument.names = (name, *filter(None, (SECOND_NAMES.get(name), letter)))
            argument.help = argument.help or OPTIONS.get(name)
            if argument.kind is int:
                argument.kind = _number(name)
        return arguments


def _ignored(config: Any) -> str:
    """Return the first option of Invoke or Fabric on the command line; --dry also counts in their configuration files.

    Source: Invoke 2.2, Program.update_config, and Fabric 3.2, Fab.update_config: the options become overrides.
    """
    given = config._overrides  # the other levels of the configuration may set the same values for other programs
    ssh_config = getattr(config, "_runtime_ssh_path", None)
    options = {
        "--dry": config.run.dry,
        "--config": config._runtime_path and "INVOKE_RUNTIME_CONFIG" not in os.environ,
        "--ssh-config": ssh_config and ssh_config != config.get("ssh_config_path"),
        **{f"--{name}": given.get("run", {}).get(key) for key, name in _RUN_OPTIONS.items()},
        "--prompt-for-sudo-password": given.get("sudo"),
        "--command-timeout": given.get("timeouts"),
        **{f"--{name}": given.get("connect_kwargs", {}).get(key) for key, name in _CONNECT_OPTIONS.items()},
    }
    return next((option for option, value in options.items() if value), "")


def _number(option: str) -> Callable[[str], int]:
    """Return int() for an option: Invoke shows its ValueError as a traceback."""

    def number(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise ParseError(f"--{option} needs a whole number, not {text!r}") from None

    return number


def _repeatable(body: Callable[..., None]) -> list[str]:
    """Return the options of type list."""
    return [name for name, annotation in inspect.get_annotations(body).items() if annotation.startswith("list[")]


task = partial(invoke_task, klass=FeatureTask)
