"""The console script `rolling-upgrade`: runs the tasks of `inv` in any directory with a configuration."""

from __future__ import annotations

import difflib
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from rolling_upgrade import __version__
from rolling_upgrade.console.task import print_json_error
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.tasks import GROUPS, namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from invoke.parser.argument import Argument
    from invoke.parser.context import ParserContext

NAME = "rolling-upgrade"
#: Errors of Invoke that are translated; other errors are shown unchanged. Source: Invoke 2.2, invoke/parser/parser.py.
_UNKNOWN = re.compile(r"No idea what '(.*)' is!")
_NO_VALUE = re.compile(r"Flag <Argument: ([^ >]+)(?: \((\w)\))?.*> needed value and was not given one!")
_NO_ARGUMENT = re.compile(r"'(.+)' did not receive required positional arguments: (.+)")

#: Options of Invoke that print something instead of running a task.
_PRINTING = ("help", "list", "complete")
#: The options of tasks that replace an option of Invoke.
_REPLACEMENTS = {"dry": ("--dry-run",), "config": ("--force", "--follow")}  # --config is -f
#: The tasks that accept arguments after `--`.
_WITH_REMAINDER = ("exec", "run", "accessory.exec")


def main() -> None:
    """Run the task on the command line. Raises SystemExit."""
    Tasks(name=NAME, binary=NAME, binary_names=[NAME], namespace=namespace, version=__version__).run()


class Tasks(Program):
    """Invoke's program with this product's overview, help and errors."""

    def parse_core(self, argv: list[str] | None) -> None:
        """Read the options before the first task. Raises Exit after printing help or the version."""
        before = sys.dont_write_bytecode
        super().parse_core(_with_help_first(list(sys.argv if argv is None else argv)))
        # Invoke sets it. After an installer that compiles nothing (uv), each start would compile every module again.
        sys.dont_write_bytecode = before

    def parse_tasks(self) -> None:
        """Read the tasks and their options. Raises Exit for a usage error, or after printing the version."""
        with _translated_errors(self.argv):
            super().parse_tasks()
        if self.args.version.value:
            self.print_version()
            raise Exit
        if self.tasks and not any(self.args[name].value for name in _PRINTING):
            self._check_unused_options()

    def _check_unused_options(self) -> None:
        """Raise Exit for options of Invoke, and for arguments after `--`, that the task would ignore."""
        context = self.tasks[0]
        if argument := next((argument for argument in self.args.values() if argument.got_value), None):
            typed = _typed(argument, context, self.argv)
            hint = _replacement(argument.names[0], context)
            raise _exit(_usage_error(f"{context.name} has no option {typed}{hint}", context), self.argv)
        if self.core.remainder and context.name not in _WITH_REMAINDER:
            raise _exit(_usage_error(f"{context.name} takes no arguments after --", context), self.argv)

    def parse_cleanup(self) -> None:
        """Print help on request. Raises Exit."""
        with _translated_errors(self.argv):
            super().parse_cleanup()

    def print_help(self) -> None:
        """Print the tasks by purpose."""
        print(f"Usage: {NAME} TASK --env ENVIRONMENT [options]\n")
        for title, names in GROUPS.items():
            print(f"{title}:")
            self.print_columns([(name, re.split("[;:]", _summary(name))[0].rstrip(".")) for name in names])
        print(f"{NAME} TASK --help shows the options of a task, {NAME} --version the version.")

    def list_tasks(self) -> None:
        """Print the tasks by purpose; `--list-format json` prints Invoke's list for programs."""
        if self.list_format == "flat" and not self.list_root:
            self.print_help()
        else:
            super().list_tasks()

    def print_task_help(self, name: str) -> None:
        """Print a task's summary and options."""
        context = self.parser.contexts[name]
        print(f"Usage: {_usage(context)}\n\n{_summary(name)}\n\nOptions:")
        self.print_columns(context.help_tuples())


def _with_help_first(argv: list[str]) -> list[str]:
    """Rewrite `TASK --help` as `--help TASK`: Invoke takes `--help` for a missing positional argument."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    position = next((at for at, word in enumerate(words) if word in {"-h", "--help"}), 0)
    task = next((word for word in reversed(words[1:position]) if word in namespace.task_names), None)
    return [argv[0], "--help", task] if task else argv


def translated(text: str, context: ParserContext | None, argv: Sequence[str] = ()) -> ConfigError:
    """Translate a usage error of Invoke, and add the usage of the task.

    Args:
        text: The text of Invoke's error.
        context: The current task; None, or without a name, before the first task.
        argv: The command line.
    """
    if match := _NO_VALUE.fullmatch(text):
        name, letter = match.groups()
        name = name.rstrip("_")  # --from is the argument from_
        if context is not None and context.name and f"--{name}" not in context.flags:
            typed = f"--{name} (-{letter})" if letter else f"--{name}"
            problem = f"{context.name} has no option {typed}{_replacement(name, context)}"
        else:
            problem = f"--{name} needs a value"
    elif match := _UNKNOWN.fullmatch(text):
        problem = _unknown_word(match[1], context, argv)
    elif match := _NO_ARGUMENT.fullmatch(text):
        problem = f"{match[1]} needs {match[2].replace(chr(39), '').upper()}"
    else:
        problem = text.rstrip(".!")
    return _usage_error(problem, context)


def _usage_error(problem: str, context: ParserContext | None) -> ConfigError:
    named = context is not None and context.name
    usage = f"{_usage(context)}; --help lists the options" if named else f"{NAME} --help lists the tasks"
    return ConfigError(f"{problem}. Nothing was contacted.", next_step=usage)


def _exit(error: ConfigError, argv: Sequence[str]) -> Exit:
    """Return the exit with the error; a command line with --json also gets it on stdout."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    if "--json" in words or "-j" in words:
        print_json_error(error)
    return Exit(str(error), code=int(error.exit_code))


def _typed(argument: Argument, context: ParserContext, argv: Sequence[str]) -> str:
    """Return the option as typed, or its long name when it is one of several letters in a word."""
    spellings = [f"--{name}" if len(name) > 1 else f"-{name}" for name in argument.names]
    words = [word.partition("=")[0] for word in argv]
    return next((word for word in words if word in spellings and word not in context.flags), max(spellings, key=len))


def _replacement(name: str, context: ParserContext) -> str:
    option = next((option for option in _REPLACEMENTS.get(name, ()) if option in context.flags), "")
    return f"; use {option}" if option else ""


def _unknown_word(word: str, context: ParserContext | None, argv: Sequence[str]) -> str:
    """Describe a word that is neither a task nor an option."""
    task, options = (context.name, context.flags) if context is not None else (None, {})
    if word.startswith("-"):
        return f"{task or NAME} has no option {word}{_nearest(word, options)}"
    option = argv[argv.index(word) - 1] if word in argv else ""
    if option in options and options[option].takes_value:
        return f"{option} was given more than once"
    if not task and word in {"help", "version"}:
        return f"there is no task {word!r}; did you mean: {NAME} --{word}"
    hint = _nearest(word, [name for names in GROUPS.values() for name in names])
    if not hint and "--env" in options and not options["--env"].got_value:
        hint = f"; did you mean: {NAME} {task} --env {word}"
    return f"there is no task {word!r}{hint}"


def _nearest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = [name for name in names if name.startswith(f"{word}.")] or difflib.get_close_matches(word, names, n=1)
    return f"; did you mean: {', '.join(close)}" if close else ""


@contextmanager
def _translated_errors(argv: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except ParseError as error:
        raise _exit(translated(str(error), error.context, argv), argv) from None


def _summary(name: str) -> str:
    return (namespace[name].__doc__ or "").strip().partition("\n")[0]


def _usage(context: Any) -> str:
    group, _, name = context.name.partition(".")
    words = [argument.name.upper() for argument in context.positional_args]
    command = ["-- COMMAND"] if context.name in _WITH_REMAINDER else []
    return " ".join([NAME, group if name in {"", group} else context.name, *words, "[options]", *command])
