"""Runs one task as a CI job: `scripts/job.py TASK OPTIONS…`, with the task's exit code.

It adds a summary of the run, an annotation for each failure, masked secrets, and an SSH agent that has DEPLOY_SSH_KEY
while the task runs. A signal to the job is passed to the task, which undoes its changes. The CI system executes no line
of the task's output as a command.

The task receives secrets through an unnamed file, so that the application's code cannot read them from an environment
in /proc. Tasks that run such code have no agent; `full` starts one after that code has ended. Standard library only.
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
RUN_APPLICATION_CODE = frozenset({"build", "test", "full"})
#: Secrets that the CI system has to mask in every log.
SECRETS = ("DEPLOY_SSH_KEY", "ROLLING_AGE_KEY", "REGISTRY_PASSWORD")
#: Names of variables that are removed from the environment of this process.
_SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|CREDENTIAL|(?:^|_)(?:KEY|JWT)(?:_|$)", re.IGNORECASE)
#: The variable that names the open file with the secrets: a JSON object of names and values.
SECRETS_FD = "ROLLING_SECRETS_FD"
_SHORTEST_SECRET = 8
#: Serializes the two threads that print the task's output.
_PRINT_LOCK = Lock()
_REPORT = "report: "
#: The file names of the reports of `inv full`, and their maximum size.
_REPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\.json")
_REPORT_BYTES = 1 << 20
_LARGEST = 1e12
_PR_SET_DUMPABLE = 4  # Source: prctl(2)
_WARNING = (
    "warning: this job holds DEPLOY_SSH_KEY and runs code of the application, which can read it from the environment "
    "of make and of the runner, and can write what runs later in this job. Build and test in a job without secrets."
)
INVOKE = (sys.executable, "-m", "invoke")
#: The key is plain or one line of base64, because GitLab masks only one-line variables. It is in no environment here.
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
    """Run the task. Return its exit code, or 2 without a task."""
    if not words or words[0].startswith("-"):
        print(
            "usage: scripts/job.py TASK OPTIONS…, such as: scripts/job.py deploy --env production --force",
            file=sys.stderr,
        )
        return 2
    secrets = _take_secrets()
    _refuse_inspection()
    for line in masks({**os.environ, **secrets}):
        print(line, flush=True)
    if words[0] in RUN_APPLICATION_CODE and secrets.get("DEPLOY_SSH_KEY"):
        _print(_WARNING, sys.stderr)
    started: list[subprocess.Popen[str]] = []
    _forward_signals(started)
    process = _start(words, secrets)
    started.append(process)
    listener = _print_errors(process.stderr)
    summary = _print_output(process, words[0])
    code = process.wait()
    if listener is not None:
        listener.join()
    _finish(words[0], code, summary)
    return code if code >= 0 else 128 - code


def _start(words: list[str], secrets: Mapping[str, str]) -> subprocess.Popen[str]:
    task = words[0]
    command = [*INVOKE, *words, *(["--json"] if task in IN_LINES and "--json" not in words else [])]
    key = secrets.get("DEPLOY_SSH_KEY", "")
    # `full` starts its agent itself, after the application's code; `build` and `test` contact no host.
    passed = {name: value for name, value in secrets.items() if name != "DEPLOY_SSH_KEY" or task == "full"}
    environment, files = dict(os.environ), []
    if passed:
        files.append(_file_of(json.dumps(passed)))
        environment[SECRETS_FD] = str(files[-1])
    if key and task not in RUN_APPLICATION_CODE:
        files.append(_file_of(key))
        command = ["ssh-agent", "sh", "-ec", _WITH_AGENT, "sh", str(files[-1]), *command]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        # On a terminal, the task prompts the operator itself.
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
    """Return the secrets of the environment, after this program has restarted itself without them.

    /proc/PID/environ always shows the environment with which a process was started.
    """
    named = os.environ.pop(SECRETS_FD, "")
    if named.isdecimal():
        with os.fdopen(int(named), encoding="utf-8") as file_of_secrets:
            content: dict[str, str] = json.load(file_of_secrets)
        return content
    secrets = {name: value for name, value in os.environ.items() if name in SECRETS or _SECRET_NAME.search(name)}
    if secrets:
        file = _file_of(json.dumps(secrets))
        os.set_inheritable(file, True)
        rest = {name: value for name, value in os.environ.items() if name not in secrets}
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(command[0], command, {**rest, SECRETS_FD: str(file)})  # noqa: S606 - this very program
    return {}


def _file_of(text: str) -> int:
    """Return the descriptor of an unnamed file with this text, positioned at its start."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("job")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, text.encode("utf-8", "surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _refuse_inspection() -> None:
    """Deny other processes of this user access to this one's memory and files, by /proc and by ptrace."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _print_output(process: subprocess.Popen[str], task: str) -> Mapping[str, Any]:
    """Print the task's output, with JSON objects as text. Return its summary, empty without one."""
    summary: Mapping[str, Any] = {}
    assert process.stdout is not None
    row = ""
    for row in process.stdout:
        message = _object(row) if task in IN_LINES else None
        if message is None:
            _print(row.removesuffix("\n"))
            continue
        summary = message if message.get("type") in {"summary", "error"} else summary
        for line in lines(message):
            _print(line)
    # Only the last line is certainly not written by the application's code.
    return _read_report(row) if task == "full" else summary


def _print_errors(stream: IO[str] | None) -> Thread | None:
    """Print the task's standard error in a thread. Return None where the task writes to the terminal itself."""
    if stream is None:
        return None

    def listen(stream: IO[str] = stream) -> None:
        for row in stream:
            _print(row.removesuffix("\n"), sys.stderr)

    listener = Thread(target=listen, daemon=True)
    listener.start()
    return listener


def _print(text: str, stream: IO[str] | None = None) -> None:
    """Print a text, with CI commands neutralized.

    Lines are printed one at a time. Otherwise, where both outputs share a file, part of a line could start a new line.
    """
    for line in re.split(r"\r\n|\r|\n", text):
        with _PRINT_LOCK:
            print(harmless(line), file=stream, flush=True)


def harmless(line: str) -> str:
    """Return the line with the commands of GitHub and GitLab neutralized; colors and other text are unchanged.

    Source: GitHub's runner, ActionCommand.cs: `::` after white space, `##[` anywhere. GitLab: `section_start:` and
    `section_end:` with a carriage return and an escape sequence.
    """
    text = "".join(part if _COLOR.fullmatch(part) else _visible(part) for part in _COLOR.split(line))
    text = _SECTION.sub(r"\1 :", text).replace("##[", "# #[").replace("##vso[", "# #vso[")
    return _COMMAND.sub(r"\1: :", text)


def _visible(text: str) -> str:
    """Escape every character that is invisible or moves the cursor."""
    return "".join(char if char.isprintable() or char in _SPACES else ascii(char)[1:-1] for char in text)


#: The only escape sequences that stay: they set colors.
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_SPACES = "\t\u00a0\u3000"
_COMMAND = re.compile(r"^((?:\s|\x1b\[[0-9;]*m)*):(?=:)")
_SECTION = re.compile(r"(section_(?:start|end)):")


def _forward_signals(started: list[subprocess.Popen[str]]) -> None:
    """Forward signals, because runners and `make` signal only the job. Ctrl-C on a terminal also reaches the task.

    The handlers are set before the task starts, so that the task does not inherit ignored signals of the parent.
    """

    def forward(number: int, _frame: object) -> None:
        if not started:
            sys.exit(128 + number)
        if number != signal.SIGINT or not sys.stdin.isatty():
            started[0].send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, forward)


def masks(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield commands that mask each line of each secret, because GitHub masks only complete values."""
    if environment.get("GITHUB_ACTIONS"):
        for name in SECRETS:
            for line in environment.get(name, "").splitlines():
                if len(line.strip()) >= _SHORTEST_SECRET:
                    yield f"::add-mask::{_escaped(line.strip())}"


def lines(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield one JSON object of a task's output as lines of the job's log."""
    kind = message.get("type")
    if kind == "plan":
        changes = [f"{service['service']} {service['change']}" for service in message["services"]]
        yield f"plan  {message['host']}: {', '.join(changes) or 'nothing to do'}"
    elif kind == "event" and message["phase"] != "progress":
        took = f" {message['seconds']:.1f}s" if message["seconds"] else ""
        yield " ".join(
            word for word in (message["host"], message["step"], message["phase"] + took, message["title"]) if word
        )
        yield from (f"    | {line}" for line in message["detail"].splitlines())
    elif kind == "summary":
        yield f"{message['action']} {message['release']} on {message['environment']}: {message['message']}"
        if message["undo_command"]:
            yield f"To go back: {message['undo_command']}"


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of a run as a table."""
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
    """Return the summary of `full` as a table of its stages."""
    rows = [
        f"| {_cell(stage['stage'])} | {_cell(stage['result'])} | {stage['seconds']:.1f} s | {_cell(stage['detail'])} |"
        for stage in summary["stages"]
    ]
    heading = f"### full {_cell(summary['tag'])} on {_cell(summary['environment'])}: {_cell(summary['message'])}"
    return "\n".join([heading, "", "| stage | result | took | detail |", "|---|---|---|---|", *rows, ""])


def _read_report(row: str) -> Mapping[str, Any]:
    """Return the report that the last line of `inv full` names, as a summary, or nothing without one.

    The application's code ran in this job and can write files, so every value is checked before it is shown.
    """
    path = Path(row.removeprefix(_REPORT).rstrip("\n"))
    if not row.startswith(_REPORT) or not _REPORT_NAME.fullmatch(path.name):
        return {}
    try:
        report = json.loads(_content(path))
        stages, hosts = report["stages"], report["deploy"]
        texts = [report[name] for name in ("environment", "tag", "outcome")]
        texts += [stage[name] for stage in stages for name in ("stage", "result", "detail")]
        texts += [host[name] for host in hosts for name in ("host", "cause")]
        numbers = [stage[name] for stage in stages for name in ("seconds", "exit_code")]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    if not all(isinstance(text, str) for text in texts) or not all(map(_is_number, numbers)):
        return {}
    failed = next((stage for stage in stages if stage["exit_code"]), None)
    message = f"{failed['stage']} {failed['result']}: {failed['detail']}" if failed else report["outcome"]
    causes = [{"host": host["host"], "cause": host["cause"]} for host in hosts]
    return {**report, "message": message, "hosts": causes}


def _content(path: Path) -> str:
    """Read a file of the clone's directory of reports. Raises OSError for any other file, and ValueError."""
    reports = ROOT / "reports"
    if os.path.realpath(path.parent) != os.path.realpath(reports):
        raise OSError(f"{path} is not in {reports}")
    directory = os.open(reports, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # O_NONBLOCK: opening a pipe must not block.
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is not a regular file")
        content = stream.read(_REPORT_BYTES + 1)
    if len(content) > _REPORT_BYTES:
        raise ValueError(f"{path} is too long for a report")
    return content.decode("utf-8")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def annotation(title: str, text: str) -> str:
    """Return the command that makes GitHub show an error at the top of a run."""
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
        message = summary.get("message") or summary.get("error")
        text = "\n".join([message or f"exit code {code}; the job's log says why", *causes])
        print(annotation(f"inv {task} failed", text), flush=True)
    path = os.environ.get("GITHUB_STEP_SUMMARY") or os.environ.get("JOB_SUMMARY")
    if path:
        shown = (
            markdown(summary)
            if "hosts" in summary
            else f"### inv {_cell(task)}: {'done' if not code else f'failed, exit code {code}'}\n"
        )
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(shown + "\n")


def _object(row: str) -> Mapping[str, Any] | None:
    try:
        message = json.loads(row)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and "type" in message else None


def _cell(text: str) -> str:
    """Escape a text for a table cell."""
    for char in "\\`*_<>[]|#~&!":
        text = text.replace(char, f"\\{char}")
    # GitHub also turns plain URLs into links.
    text = text.replace("://", r":\//").replace("www.", r"www\.")
    return _printable(text)


def _code(text: str) -> str:
    """Return a text as inline code."""
    return f"`{_printable(text.replace('`', chr(39)))}`"


def _printable(text: str) -> str:
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
