"""Runs one task as a CI job: `scripts/job.py TASK WORDS…`, with the task's own exit code.

It owns what a CI system wants besides: a summary of the run, an annotation for each failure, masked keys, and an SSH
agent that holds DEPLOY_SSH_KEY for as long as the task runs and writes it nowhere. A signal that ends the job ends the
task, which undoes what it began. No line of a task is read as a command of the CI system.

Secrets go from here to the task through a file without a name, so that no environment in /proc shows them to code of
the application. For the tasks that run such code there is no agent meanwhile: `full` starts one when that code has
ended. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
#: Tasks that print one JSON object per line.
IN_LINES = frozenset({"deploy", "rollback", "restore", "promote", "setup", "teardown"})
#: Tasks that run code of the application.
RUN_ITS_CODE = frozenset({"build", "test", "full"})
#: What must never stand in a job's log, whatever prints it.
SECRETS = ("DEPLOY_SSH_KEY", "ROLLING_AGE_KEY", "REGISTRY_PASSWORD")
#: Variables whose values leave the environment of this process, judged by their names.
_SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|CREDENTIAL|(?:^|_)(?:KEY|JWT)(?:_|$)", re.IGNORECASE)
#: The variable that names the open file with the secrets: a JSON object of names and values.
SECRETS_FD = "ROLLING_SECRETS_FD"
_SHORTEST_SECRET = 8
#: Who prints, of the two that listen to the task.
_SPEAKS = Lock()
_REPORT = "report: "
#: How `inv full` names its reports, and the most that one is.
_REPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\.json")
_REPORT_BYTES = 1 << 20
_LARGEST = 1e12
_PR_SET_DUMPABLE = 4  # Source: prctl(2)
_WARNING = (
    "warning: this job holds DEPLOY_SSH_KEY and runs code of the application, which can read it from the environment "
    "of make and of the runner, and can write what runs later in this job. Build and test in a job without secrets."
)
INVOKE = (sys.executable, "-m", "invoke")
#: The key is as it is, or one line of base64: GitLab masks a variable of one line alone. It is in no environment here.
_WITH_AGENT = """
key=$(cat "/dev/fd/$1")
shift
case $key in
-----BEGIN*) printf '%s\\n' "$key" ;;
*) printf '%s' "$key" | base64 --decode ;;
esac | tr -d '\\r' | ssh-add -q -
unset key
exec "$@"
"""


def main(words: list[str]) -> int:
    """Run the task; its exit code, 2 without one."""
    if not words or words[0].startswith("-"):
        print(
            "usage: scripts/job.py TASK WORDS…, such as: scripts/job.py deploy --env production --force",
            file=sys.stderr,
        )
        return 2
    secrets = _take_secrets()
    _close_to_others()
    for line in masks({**os.environ, **secrets}):
        print(line, flush=True)
    if words[0] in RUN_ITS_CODE and secrets.get("DEPLOY_SSH_KEY"):
        _say(_WARNING, sys.stderr)
    started: list[subprocess.Popen[str]] = []
    _hand_on_signals(started)
    process = _start(words, secrets)
    started.append(process)
    listener = _listen_aside(process.stderr)
    summary = _listen(process, words[0])
    code = process.wait()
    if listener is not None:
        listener.join()
    _finish(words[0], code, summary)
    return code if code >= 0 else 128 - code


def _start(words: list[str], secrets: Mapping[str, str]) -> subprocess.Popen[str]:
    task = words[0]
    command = [*INVOKE, *words, *(["--json"] if task in IN_LINES and "--json" not in words else [])]
    key = secrets.get("DEPLOY_SSH_KEY", "")
    # `full` starts its agent itself, and late; `build` and `test` contact no host.
    given = {name: value for name, value in secrets.items() if name != "DEPLOY_SSH_KEY" or task == "full"}
    environment, files = dict(os.environ), []
    if given:
        files.append(_file_of(json.dumps(given)))
        environment[SECRETS_FD] = str(files[-1])
    if key and task not in RUN_ITS_CODE:
        files.append(_file_of(key))
        command = ["ssh-agent", "sh", "-ec", _WITH_AGENT, "sh", str(files[-1]), *command]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        # A person at a terminal is asked there; everything else is for a CI system.
        stderr=None if sys.stderr.isatty() else subprocess.PIPE,
        pass_fds=files,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    for file in files:
        os.close(file)
    return process


def _take_secrets() -> dict[str, str]:
    """The secrets of the environment, which then is without them: this program starts once more.

    What a process was started with stays in /proc/PID/environ, whatever it does later.
    """
    named = os.environ.pop(SECRETS_FD, "")
    if named.isdecimal():
        with os.fdopen(int(named), encoding="utf-8") as held:
            found: dict[str, str] = json.load(held)
        return found
    secrets = {name: value for name, value in os.environ.items() if name in SECRETS or _SECRET_NAME.search(name)}
    if secrets:
        file = _file_of(json.dumps(secrets))
        os.set_inheritable(file, True)
        rest = {name: value for name, value in os.environ.items() if name not in secrets}
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(command[0], command, {**rest, SECRETS_FD: str(file)})  # noqa: S606 - this very program
    return {}


def _file_of(text: str) -> int:
    """An open file without a name that holds this text, read from its beginning."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("job")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, text.encode("utf-8", "surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _close_to_others() -> None:
    """Refuse other processes of this user this one's memory and its open files, in /proc and by ptrace."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _listen(process: subprocess.Popen[str], task: str) -> Mapping[str, Any]:
    """Print what the task says, its objects as lines; its summary, empty without one."""
    summary: Mapping[str, Any] = {}
    assert process.stdout is not None
    row = ""
    for row in process.stdout:
        told = _object(row) if task in IN_LINES else None
        if told is None:
            _say(row.removesuffix("\n"))
            continue
        summary = told if told.get("type") == "summary" else summary
        for line in lines(told):
            _say(line)
    # Lines before the last one may be anybody's.
    return _of_report(row) if task == "full" else summary


def _listen_aside(stream: IO[str] | None) -> Thread | None:
    """Print what the task says on its standard error; None where that is not read here."""
    if stream is None:
        return None

    def listen(stream: IO[str] = stream) -> None:
        for row in stream:
            _say(row.removesuffix("\n"), sys.stderr)

    listener = Thread(target=listen, daemon=True)
    listener.start()
    return listener


def _say(text: str, stream: IO[str] | None = None) -> None:
    """Print a text of which the CI system reads no line as a command.

    One line at a time: where both outputs are one, the middle of a long line would otherwise stand at a line's start.
    """
    for line in re.split(r"\r\n|\r|\n", text):
        with _SPEAKS:
            print(harmless(line), file=stream, flush=True)


def harmless(line: str) -> str:
    """A line that neither GitHub nor GitLab reads as a command; colors and everything else stay as they are.

    Source: GitHub's runner, ActionCommand.cs: `::` after white space, `##[` anywhere. GitLab: `section_start:` and
    `section_end:` with a carriage return and an escape sequence.
    """
    kept = "".join(piece if _COLOR.fullmatch(piece) else _visible(piece) for piece in _COLOR.split(line))
    kept = _SECTION.sub(r"\1 :", kept).replace("##[", "# #[").replace("##vso[", "# #vso[")
    return _COMMAND.sub(r"\1: :", kept)


def _visible(text: str) -> str:
    """The text with every character written out that has no width or moves the cursor."""
    return "".join(char if char.isprintable() or char in _SPACES else ascii(char)[1:-1] for char in text)


#: How a terminal's colors are set; it is all that is left of escape sequences.
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_SPACES = "\t\u00a0\u3000"
_COMMAND = re.compile(r"^((?:\s|\x1b\[[0-9;]*m)*):(?=:)")
_SECTION = re.compile(r"(section_(?:start|end)):")


def _hand_on_signals(started: list[subprocess.Popen[str]]) -> None:
    """A runner signals the job alone, as `make` does; Ctrl-C on a terminal reaches the task by itself.

    Before the task starts: what this process handles is not ignored there, though whoever began the job may ignore it.
    """

    def hand_on(number: int, _frame: object) -> None:
        if not started:
            sys.exit(128 + number)
        if number != signal.SIGINT or not sys.stdin.isatty():
            started[0].send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, hand_on)


def masks(environment: Mapping[str, str]) -> Iterator[str]:
    """What tells GitHub to hide each line of each secret, which it hides as a whole alone."""
    if environment.get("GITHUB_ACTIONS"):
        for name in SECRETS:
            for line in environment.get(name, "").splitlines():
                if len(line.strip()) >= _SHORTEST_SECRET:
                    yield f"::add-mask::{_escaped(line.strip())}"


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """One object of a task's output as lines of the job's log."""
    kind = told.get("type")
    if kind == "plan":
        changes = [f"{one['service']} {one['change']}" for one in told["services"]]
        yield f"plan  {told['host']}: {', '.join(changes) or 'nothing to do'}"
    elif kind == "event" and told["phase"] != "progress":
        took = f" {told['seconds']:.1f}s" if told["seconds"] else ""
        yield " ".join(word for word in (told["host"], told["step"], told["phase"] + took, told["title"]) if word)
        yield from (f"    | {line}" for line in told["detail"].splitlines())
    elif kind == "summary":
        yield f"{told['action']} {told['release']} on {told['environment']}: {told['message']}"
        if told["undo_command"]:
            yield f"To go back: {told['undo_command']}"


def markdown(summary: Mapping[str, Any]) -> str:
    """The end of a run as a table."""
    if "stages" in summary:
        return _stages(summary)
    heading = f"### {_cell(summary['action'])} on {_cell(summary['environment'])}: {_cell(summary['message'])}"
    rows = [
        f"| {_cell(host['host'])} | {_cell(host['result'])} | {host['seconds']:.1f} s | "
        f"{_cell(', '.join(host['images'].values()) or host['cause'])} |"
        for host in summary["hosts"]
    ]
    back = f"\nTo go back: {_code(summary['undo_command'])}\n" if summary["undo_command"] else ""
    table = ["| host | result | took | images or cause |", "|---|---|---|---|", *rows]
    return "\n".join([heading, "", *table, ""]) + back


def _stages(summary: Mapping[str, Any]) -> str:
    """The end of a whole pipeline as a table of its stages."""
    rows = [
        f"| {_cell(one['stage'])} | {_cell(one['result'])} | {one['seconds']:.1f} s | {_cell(one['detail'])} |"
        for one in summary["stages"]
    ]
    heading = f"### full {_cell(summary['tag'])} on {_cell(summary['environment'])}: {_cell(summary['message'])}"
    return "\n".join([heading, "", "| stage | result | took | detail |", "|---|---|---|---|", *rows, ""])


def _of_report(row: str) -> Mapping[str, Any]:
    """The report that the last line of `inv full` names, in the form of a summary; empty where there is none.

    Code of the application ran in this job, and can write files there: each value is checked before it is shown.
    """
    path = Path(row.removeprefix(_REPORT).rstrip("\n"))
    if not row.startswith(_REPORT) or not _REPORT_NAME.fullmatch(path.name):
        return {}
    try:
        report = json.loads(_content(path))
        stages, hosts = report["stages"], report["deploy"]
        texts = [report[name] for name in ("environment", "tag", "outcome")]
        texts += [one[name] for one in stages for name in ("stage", "result", "detail")]
        texts += [one[name] for one in hosts for name in ("host", "cause")]
        numbers = [one[name] for one in stages for name in ("seconds", "exit_code")]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    if not all(isinstance(one, str) for one in texts) or not all(map(_is_number, numbers)):
        return {}
    failed = next((one for one in stages if one["exit_code"]), None)
    message = f"{failed['stage']} {failed['result']}: {failed['detail']}" if failed else report["outcome"]
    causes = [{"host": one["host"], "cause": one["cause"]} for one in hosts]
    return {**report, "message": message, "hosts": causes}


def _content(path: Path) -> str:
    """What a file of the clone's folder of reports holds. Raises OSError for any other file, and ValueError."""
    folder = ROOT / "reports"
    if os.path.realpath(path.parent) != os.path.realpath(folder):
        raise OSError(f"{path} is not in {folder}")
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # A pipe is not waited for.
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    finally:
        os.close(place)
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is no file")
        content = stream.read(_REPORT_BYTES + 1)
    if len(content) > _REPORT_BYTES:
        raise ValueError(f"{path} is too long for a report")
    return content.decode("utf-8")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def annotation(title: str, text: str) -> str:
    """An error as GitHub shows it at the top of a run."""
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::error title={title}::{_escaped(text)}"


def _escaped(text: str) -> str:
    # Source: GitHub's workflow commands: these characters end a command.
    for char, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(char, code)
    return "".join(char if char.isprintable() else " " for char in text)


def _finish(task: str, code: int, summary: Mapping[str, Any]) -> None:
    github = bool(os.environ.get("GITHUB_ACTIONS"))
    if code and github:
        causes = [f"{host['host']}: {host['cause']}" for host in summary.get("hosts", ()) if host["cause"]]
        text = "\n".join([summary.get("message") or f"exit code {code}; the job's log says why", *causes])
        print(annotation(f"inv {task} failed", text), flush=True)
    path = os.environ.get("GITHUB_STEP_SUMMARY") or os.environ.get("JOB_SUMMARY")
    if path:
        shown = (
            markdown(summary)
            if summary
            else f"### inv {_cell(task)}: {'done' if not code else f'failed, exit code {code}'}\n"
        )
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(shown + "\n")


def _object(row: str) -> Mapping[str, Any] | None:
    try:
        told = json.loads(row)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and "type" in told else None


def _cell(text: str) -> str:
    """A text that ends no cell and begins no markup."""
    for char in "\\`*_<>[]|#~&!":
        text = text.replace(char, f"\\{char}")
    # No link either, though one is only written and not marked up.
    text = text.replace("://", r":\//").replace("www.", r"www\.")
    return _printable(text)


def _code(text: str) -> str:
    """A text as code, which ends no code."""
    return f"`{_printable(text.replace('`', chr(39)))}`"


def _printable(text: str) -> str:
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
