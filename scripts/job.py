"""Runs one task as a CI job: `scripts/job.py TASK WORDS…`, with the task's own exit code.

It owns what a CI system wants besides: a summary of the run, an annotation for each failure, masked keys, and an SSH
agent that holds DEPLOY_SSH_KEY for as long as the task runs and writes it nowhere. A signal that ends the job ends the
task, which undoes what it began. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Tasks that print one JSON object per line.
IN_LINES = frozenset({"deploy", "rollback", "restore", "promote", "setup", "teardown"})
#: What must never stand in a job's log, whatever prints it.
SECRETS = ("DEPLOY_SSH_KEY", "ROLLING_AGE_KEY", "REGISTRY_PASSWORD")
_SHORTEST_SECRET = 8
_REPORT = "report: "
INVOKE = (sys.executable, "-m", "invoke")
#: The key is as it is, or one line of base64: GitLab masks a variable of one line alone.
_WITH_AGENT = """
case $DEPLOY_SSH_KEY in
-----BEGIN*) printf '%s\\n' "$DEPLOY_SSH_KEY" ;;
*) printf '%s' "$DEPLOY_SSH_KEY" | base64 --decode ;;
esac | tr -d '\\r' | ssh-add -q -
unset DEPLOY_SSH_KEY
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
    for line in masks(os.environ):
        print(line, flush=True)
    task, in_lines = words[0], words[0] in IN_LINES
    command = [*INVOKE, *words, *(["--json"] if in_lines and "--json" not in words else [])]
    if os.environ.get("DEPLOY_SSH_KEY"):
        command = ["ssh-agent", "sh", "-ec", _WITH_AGENT, "sh", *command]
    started: list[subprocess.Popen[str]] = []
    _hand_on_signals(started)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
    started.append(process)
    summary = _listen(process, task)
    code = process.wait()
    _finish(task, code, summary)
    return code if code >= 0 else 128 - code


def _listen(process: subprocess.Popen[str], task: str) -> Mapping[str, Any]:
    """Print what the task says, its objects as lines; its summary, empty without one."""
    summary: Mapping[str, Any] = {}
    assert process.stdout is not None
    for row in process.stdout:
        if task == "full" and row.startswith(_REPORT):
            summary = _of_report(ROOT / row.removeprefix(_REPORT).rstrip("\n"))
        told = _object(row) if task in IN_LINES else None
        if told is None:
            print(row, end="", flush=True)
            continue
        summary = told if told.get("type") == "summary" else summary
        for line in lines(told):
            print(line, flush=True)
    return summary


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
                    yield f"::add-mask::{line.strip()}"


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
    back = f"\nTo go back: `{summary['undo_command']}`\n" if summary["undo_command"] else ""
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


def _of_report(path: Path) -> Mapping[str, Any]:
    """The report that `inv full` left, in the form of a summary; empty where it cannot be read."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        failed = next((one for one in report["stages"] if one["exit_code"]), None)
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    causes = [{"host": one["host"], "cause": one["cause"]} for one in report["deploy"]]
    message = f"{failed['stage']} {failed['result']}: {failed['detail']}" if failed else report["outcome"]
    return {**report, "message": message, "hosts": causes}


def annotation(title: str, text: str) -> str:
    """An error as GitHub shows it at the top of a run."""
    # Source: GitHub's workflow commands: these characters end a command or a property.
    for char, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        title, text = title.replace(char, code), text.replace(char, code)
    title = title.replace(":", "%3A").replace(",", "%2C")
    return f"::error title={title}::{text}"


def _finish(task: str, code: int, summary: Mapping[str, Any]) -> None:
    github = bool(os.environ.get("GITHUB_ACTIONS"))
    if code and github:
        causes = [f"{host['host']}: {host['cause']}" for host in summary.get("hosts", ()) if host["cause"]]
        text = "\n".join([summary.get("message") or f"exit code {code}; the job's log says why", *causes])
        print(annotation(f"inv {task} failed", text), flush=True)
    path = os.environ.get("GITHUB_STEP_SUMMARY") or os.environ.get("JOB_SUMMARY")
    if path:
        shown = (
            markdown(summary) if summary else f"### inv {task}: {'done' if not code else f'failed, exit code {code}'}\n"
        )
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(shown + "\n")


def _object(row: str) -> Mapping[str, Any] | None:
    try:
        told = json.loads(row)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "type" in told else None


def _cell(text: str) -> str:
    """A text that ends no cell and begins no markup."""
    for char in "\\`*_<>[]|#":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
