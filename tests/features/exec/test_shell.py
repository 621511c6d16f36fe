"""Commands in containers: their input, their status, and their end when the connection ends early."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from rolling_upgrade.engine.model import Recorded
from rolling_upgrade.features.exec import shell as inside
from rolling_upgrade.features.exec.input import READY
from tests.support.sample import application, backend
from tests.support.shell import Programs, moved


def test_execute_disconnected_before_podman_starts_the_command_ends_it(tmp_path: Path, programs: Programs) -> None:
    # As Podman under load: the command begins a second after the call, and the mark is in its environment only then.
    programs.add("podman", 'case "$1" in container) echo true ;; *) sleep 1; exec env "$3" "$5" "$6" ;; esac')
    text = inside.execute(application(), "backend", ["sleep", "61"]).text
    text = text.replace("PATH=/usr", f"PATH={shlex.quote(str(programs.directory))}:/usr", 1)
    program = tmp_path / "exec.sh"
    program.write_text(text)

    done = subprocess.run(
        ["sh", "-c", f"exec sh {shlex.quote(str(program))} 3</dev/null"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 128 + 15, done.stderr
    assert [call[1] for call in programs.calls("podman")] == ["container", "exec"]


class Script:
    """A script of `exec` or `run` in a real `sh`, with the descriptor 3 of a connection."""

    def __init__(self, text: str, programs: Programs, folder: Path) -> None:
        text = text.replace("PATH=/usr", f"PATH={shlex.quote(str(programs.directory))}:/usr", 1)
        program = folder / "script.sh"
        program.write_text(text)
        read, self._write = os.pipe()
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec sh {shlex.quote(str(program))} 3<&0 </dev/null"],
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
            stdin=read,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(read)

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == READY

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            os.write(self._write, b"%d\n%b" % (len(chunk), chunk))

    def disconnect(self) -> None:
        os.close(self._write)

    def end(self) -> tuple[int, bytes, bytes]:
        """Return the status and the rest of both outputs."""
        output, errors = self.process.communicate(timeout=30)
        return self.process.returncode, output, errors


#: `podman exec --interactive --env MARK NAME COMMAND…` runs the command here.
EXEC = 'case "$1" in container) echo true ;; exec) mark=$4; shift 5; exec env "$mark" "$@" ;; esac'
BINARY = bytes(range(256)) * 700


def with_input(programs: Programs, folder: Path, *argv: str) -> Script:
    programs.add("podman", EXEC)
    return Script(inside.execute(application(), "backend", argv, with_input=True).text, programs, folder)


def test_execute_passes_input_byte_for_byte_and_then_its_end(tmp_path: Path, programs: Programs) -> None:
    script = with_input(programs, tmp_path, "cat")
    script.wait_until_ready()
    feeder = Thread(target=script.send, args=(BINARY[:1], BINARY[1:70_000], BINARY[70_000:], b""))
    feeder.start()

    status, output, errors = script.end()
    feeder.join(10)
    script.disconnect()

    assert (status, output == BINARY, errors) == (0, True, b"")
    assert list(tmp_path.glob("tmp.*")) == []


def test_execute_command_that_ends_before_its_input_has_its_status(tmp_path: Path, programs: Programs) -> None:
    script = with_input(programs, tmp_path, "sh", "-c", "read -r line; echo got $line; exit 4")
    script.wait_until_ready()
    script.send(b"first\n", b"rest" * 1000)

    assert script.end() == (4, b"got first\n", b"")
    script.disconnect()


def test_execute_without_any_input_runs_a_command_that_reads_none(tmp_path: Path, programs: Programs) -> None:
    script = with_input(programs, tmp_path, "echo", "done")
    script.wait_until_ready()

    assert script.end() == (0, b"done\n", b"")
    script.disconnect()


def test_execute_disconnected_in_its_input_ends_the_command_before_it_sees_an_end(
    tmp_path: Path, programs: Programs
) -> None:
    seen = tmp_path / "seen"
    script = with_input(programs, tmp_path, "sh", "-c", f"cat >/dev/null; echo all > {seen}")
    script.wait_until_ready()
    script.send(b"half of it")
    script.disconnect()

    assert script.end()[0] == 128 + 15
    assert not seen.exists()


def test_execute_disconnected_after_its_input_ends_the_command(tmp_path: Path, programs: Programs) -> None:
    script = with_input(programs, tmp_path, "sh", "-c", "cat >/dev/null; echo read; exec sleep 61")
    script.wait_until_ready()
    script.send(b"all of it", b"")
    assert script.process.stdout is not None
    assert script.process.stdout.readline() == b"read\n"
    script.disconnect()

    assert script.end()[0] == 128 + 15


#: `podman run … IMAGE COMMAND…` runs the words after the image here, until `podman rm` ends it.
RUN = """\
case "$1" in
  run) while [ "$1" != "IMAGE" ]; do shift; done; shift; echo $$ > "$here/pid"; exec "$@" ;;
  rm) if [ -e "$here/pid" ]; then kill -KILL "$(cat "$here/pid")" 2>/dev/null; fi; : ;;
esac"""


def once(programs: Programs, folder: Path, *argv: str, with_input: bool) -> Script:
    """Run a command in a new container of a recorded release."""
    service = backend(recorded=Recorded("abcd"), mounts=())
    app = application(service)
    programs.add("podman", RUN.replace("IMAGE", service.image.pinned))
    home = folder / "home"
    (home / "config" / "backend-abcd").mkdir(parents=True)
    (home / "config" / "backend-abcd" / "env").touch()
    text = inside.run_once(app, service, argv, release="r1", with_input=with_input)
    return Script(moved(text, app, home), programs, folder)


@pytest.mark.parametrize("with_input", [False, True])
def test_run_once_returns_output_and_status_of_a_new_container(
    with_input: bool, tmp_path: Path, programs: Programs
) -> None:
    script = once(programs, tmp_path, "sh", "-c", "cat; echo said; exit 7", with_input=with_input)
    if with_input:
        script.wait_until_ready()
        script.send(b"in ", b"")

    status, output, errors = script.end()
    script.disconnect()

    assert (status, output, errors) == (7, b"in said\n" if with_input else b"said\n", b"")
    (words,) = (call for call in programs.calls("podman") if call[1] == "run")
    assert words[words.index("--name") + 1].startswith("shop-backend-run-")
    assert ("--interactive" in words, "--rm" in words) == (with_input, True)


@pytest.mark.parametrize("with_input", [False, True])
def test_run_once_disconnected_removes_its_container(with_input: bool, tmp_path: Path, programs: Programs) -> None:
    script = once(programs, tmp_path, "sh", "-c", "echo up; exec sleep 61", with_input=with_input)
    if with_input:
        script.wait_until_ready()
    assert script.process.stdout is not None
    assert script.process.stdout.readline() == b"up\n"
    script.disconnect()

    assert script.end()[0] == 128 + 9
    name = next(call[call.index("--name") + 1] for call in programs.calls("podman") if call[1] == "run")
    assert programs.calls("podman")[-1] == ["podman", "rm", "--force", "--ignore", "--time", "4", name]


def test_run_once_each_container_has_a_name_of_its_own() -> None:
    texts = {inside.run_once(application(), backend(), ["x"], release="r1").text for _ in range(2)}

    assert len(texts) == 2


def test_run_on_terminal_passes_no_secret_of_a_recorded_release_in_its_command_line() -> None:
    service = backend(recorded=Recorded("abcd"))

    text = inside.run_on_terminal(application(service), service, ["sh"], release="r1")

    assert not [value for _, value in service.env if value in text]
