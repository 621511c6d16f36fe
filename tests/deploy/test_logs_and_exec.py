"""Logs, exec, shell and inspect on real hosts: their output, their usage errors, and that no process stays behind."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from lab.host import Host
from tests.deploy.conftest import PROJECT, Site, interrupt, wait_until
from tests.support.shell import HOSTILE

ECHO = ("python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))")


def leftover_processes(host: Host) -> str:
    """Return the processes of followed logs and of commands in containers that still run on the host."""
    return host.sh("ps -eo args | grep -E '^(podman (logs|exec)|sed -u|sh -s|python3 -c import time)' || :").stdout


def task(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a task with separate standard output and standard error."""
    command = [sys.executable, "-m", "invoke", words[0], "--env", site.lab.name, *words[1:]]
    return subprocess.run(
        command, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.hosts(2)
def test_logs_of_all_hosts_are_sorted_by_time(site: Site) -> None:
    done = task(site, "logs", "--json", "--grep", "starts$")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert {(line["host"], line["source"]) for line in lines} == {
        (host, service) for host in ("web1", "web2") for service in ("backend", "frontend")
    }
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_logs_without_permission_name_the_command_that_grants_it(site: Site) -> None:
    code, output = site.run("logs", "--service", "nginx", "--host", "web1")
    assert (code, "usermod --append --groups adm deploy" in output) == (1, True), output


def test_logs_follow_survives_a_cutover_and_a_dropped_connection_and_leaves_no_process(
    site: Site, tmp_path: Path
) -> None:
    host, path = site.lab.hosts[0], tmp_path / "followed"
    command = [sys.executable, "-m", "invoke", "logs", "--env", site.lab.name, "--host", "web1", "--follow"]
    with path.open("wb") as file:
        process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_until(lambda: "backend v1 starts" in path.read_text(), "the lines that are there")
        blue = "podman logs memoryark-backend-blue 2>&1 | grep -c 'backend v1 starts'"
        starts = int(host.sh(blue, user="deploy").stdout)
        site.deploy_ok("v2", "--hosts", "web1")
        wait_until(lambda: "backend v2 starts" in path.read_text(), "the new color's lines")
        wait_until(lambda: path.read_text().count("stopped") == 2, "the old colors' end")
        host.sh("pkill -KILL -u deploy -x sshd-session || pkill -KILL -u deploy -x sshd")
        wait_until(lambda: path.read_text().count("reconnected") == 2, "the connection")
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
    text = path.read_text()
    assert (code, text.count("backend v2 starts"), text.count("backend v1 starts")) == (0, 1, starts), text
    assert text.count("serves now") == 2
    wait_until(lambda: not leftover_processes(host), "the end of the followers")


def test_exec_passes_arguments_byte_for_byte_and_returns_the_exit_code(site: Site) -> None:
    done = task(site, "exec", "--host", "web1", "--", *ECHO, *HOSTILE, "--", "--env")
    assert (done.returncode, json.loads(done.stdout)) == (0, [*HOSTILE, "--", "--env"]), done.stderr
    failing = task(
        site, "exec", "--host", "web1", "--service", "frontend", "--", "sh", "-c", "echo out; echo err >&2; exit 7"
    )
    assert (failing.returncode, failing.stdout, failing.stderr) == (7, "out\n", "err\n")


@pytest.mark.hosts(2)
def test_exec_on_several_hosts_prefixes_lines_and_hides_secrets(site: Site) -> None:
    done = task(site, "exec", "--", "sh", "-c", 'echo "key $JWT_SECRET_KEY"; [ "$(hostname)" = none ]')
    assert (done.returncode, sorted(done.stdout.splitlines())) == (1, ["web1 | key ••••••", "web2 | key ••••••"])
    assert done.stderr.count("exited with 1") == 2


def test_exec_interrupted_stops_the_command_in_the_container(site: Site) -> None:
    host = site.lab.hosts[0]
    words = ("exec", "--host", "web1", "--", "python3", "-c", "import time; time.sleep(600)")
    process = site.start(*words)
    wait_until(lambda: "time.sleep(600)" in leftover_processes(host), "the command")
    code, output = interrupt(process, signal.SIGINT)
    assert code == 130, output
    wait_until(lambda: not leftover_processes(host), "the end of the command")


def test_exec_passes_20_mb_of_standard_input_unchanged(site: Site, tmp_path: Path) -> None:
    content = os.urandom(20_000_000)
    (tmp_path / "input").write_bytes(content)
    program = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    command = [sys.executable, "-m", "invoke", "exec", "--env", site.lab.name, "--host", "web1"]
    with (tmp_path / "input").open("rb") as file:
        done = subprocess.run(
            [*command, "--", "python3", "-c", program],
            cwd=PROJECT,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stdout.strip()) == (0, hashlib.sha256(content).hexdigest()), done.stderr


def one_offs(site: Site) -> list[str]:
    """Return the new containers of `run` on the first host."""
    return [name for name in site.containers(site.lab.hosts[0]) if "-run-" in name]


def test_run_uses_the_current_release_in_a_new_container_and_removes_it(site: Site) -> None:
    site.edit_env(ADMIN_EMAIL="changed@example.org")
    program = (
        "import os, sys; print(os.environ['VERSION'], os.environ.get('ADMIN_EMAIL', 'none')); "
        "print(os.path.exists('/app/data'), sys.stdin.read().upper()); sys.exit(7)"
    )
    command = [sys.executable, "-m", "invoke", "run", "--env", site.lab.name, "--entrypoint", ""]
    done = subprocess.run(
        [*command, "--", "python3", "-c", program],
        cwd=PROJECT,
        input="typed",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[2:]) == (7, ["True", "TYPED"]), done.stderr
    assert (done.stdout.split()[0], "changed@example.org" in done.stdout) == ("v1", False)
    assert one_offs(site) == []


def on_terminal(site: Site, *words: str) -> tuple[int, int]:
    """Start a task on a terminal of 101 columns; return its process and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(PROJECT)
        os.environ["TERM"] = "xterm"
        command = [sys.executable, "-m", "invoke", words[0], "--env", site.lab.name, "--host", "web1", *words[1:]]
        os.execv(sys.executable, command)  # noqa: S606 - the test's own Python
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    return pid, terminal


def test_run_on_a_terminal_is_interactive_and_removes_its_container(site: Site) -> None:
    pid, terminal = on_terminal(site, "run", "--entrypoint", "", "--", "sh")
    size = "python3 -c 'import os; print(*os.get_terminal_size())'"
    os.write(terminal, f"{size}; trap 'echo caught-$((1 + 1))' INT; echo up-$((40 + 2))\n".encode())
    output = read_until(terminal, "up-42")
    os.write(terminal, b"\x03\nexit 9\n")
    output += read_until_end(terminal)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert ("101 33" in output, "caught-2" in output, os.waitstatus_to_exitcode(status)) == (True, True, 9), output
    wait_until(lambda: one_offs(site) == [], "the end of the container")


@pytest.mark.parametrize("terminal", [True, pytest.param(False, marks=pytest.mark.extended)])
def test_run_whose_connection_drops_leaves_no_container(site: Site, terminal: bool) -> None:
    words = ("run", "--entrypoint", "", "--", "sh", "-c", "trap '' HUP TERM; echo up; while :; do sleep 1; done")
    if terminal:
        pid, descriptor = on_terminal(site, *words)
        read_until(descriptor, "up")
    else:
        process = site.start(*words)
        wait_until(lambda: one_offs(site) != [], "the container")
    site.lab.hosts[0].sh("pkill -KILL -u deploy -x sshd-session || pkill -KILL -u deploy -x sshd")
    if terminal:
        output = read_until_end(descriptor)
        _, status = os.waitpid(pid, 0)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(status)
    else:
        output, _ = process.communicate(timeout=60)
        code = process.returncode
    assert (code, "the connection dropped" in output) == (3, True), output
    wait_until(lambda: one_offs(site) == [], "the end of the container")


def read_until(terminal: int, text: str) -> str:
    """Read until the other side has written a text, for up to a minute."""
    output, deadline = "", time.monotonic() + 60
    while text not in output and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            output += os.read(terminal, 65536).decode(errors="replace")
    return output


def test_shell_on_a_terminal_runs_in_the_container_and_has_its_size(site: Site) -> None:
    pid, terminal = on_terminal(site, "shell")
    size = "python3 -c 'import os; print(*os.get_terminal_size())'"
    os.write(terminal, f"{size}; echo $((40 + 2))-done; exit 9\n".encode())
    output = read_until_end(terminal)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert ("101 33" in output, "42-done" in output, os.waitstatus_to_exitcode(status)) == (True, True, 9), output
    wait_until(lambda: not leftover_processes(site.lab.hosts[0]), "the end of the shell")


def read_until_end(terminal: int) -> str:
    """Read until the other side closes the terminal, for up to a minute."""
    output, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:
                break
            if not chunk:
                break
            output += chunk
    return output.decode(errors="replace")


def test_inspect_shows_every_part_and_survives_a_missing_tool(site: Site) -> None:
    host = site.lab.hosts[0]
    host.sh("mv /usr/bin/free /usr/bin/free.away")
    try:
        done = task(site, "inspect", "--host", "web1", "--json")
    finally:
        host.sh("mv /usr/bin/free.away /usr/bin/free")
    [page] = json.loads(done.stdout)["hosts"]
    assert (done.returncode, page["problems"]) == (0, []), done.stderr
    assert [port for port in page["ports"] if port["expected"] != port["found"]] == []
    assert page["site"]["live"] == page["site"]["file"] != ""
    assert page["facts"]["podman"][:2] in {"4.", "5."}
    assert [title for title, lines in page["parts"].items() if not lines] == ["volumes"]  # the application has none
    assert any("not found" in line for line in page["parts"]["memory and load of the host"])


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "--grep", "["),
        ("logs", "--since", "yesterday"),
        ("logs", "--lines", "-1"),
        ("logs", "--service", "nope"),
        ("logs", "--color", "red"),
        ("logs", "--host", "nope"),
        ("exec",),
        ("exec", "--service", "nope", "--", "ls"),
        ("run",),
        ("run", "--service", "nope", "--", "ls"),
        ("run", "--entrypoint", "'", "--", "ls"),
        ("shell",),
        ("shell", "--host", "web1"),
        ("inspect", "--service", "nope"),
    ],
)
@pytest.mark.extended
def test_logs_exec_shell_inspect_with_invalid_options_exit_with_2(words: tuple[str, ...], site: Site) -> None:
    assert task(site, *words).returncode == 2
