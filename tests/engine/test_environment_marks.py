"""Detection of changed environment keys: the host's program on real files, and marks that reveal no value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade.engine import observation, sqlite
from rolling_upgrade.engine.model import SecretFile
from tests.support.sample import backend
from tests.support.shell import sh

SPEC = "0123456789abcdef"


def kept(home: Path, content: bytes, name: str = f"backend-{SPEC}") -> None:
    place = home / "config" / name
    place.mkdir(parents=True)
    (place / "env").write_bytes(content)


def seen(home: Path) -> dict[str, dict[str, str]]:
    done = sh(observation.ask_python(str(home)))
    assert (done.returncode, done.stdout.splitlines()[:2]) == (0, [sqlite.RECENT, sqlite.USABLE])
    return {name: dict(marks) for name, marks in observation.parse_environment_marks(done.stdout.splitlines())}


def test_marks_are_equal_for_equal_values(tmp_path: Path) -> None:
    kept(tmp_path, b"LEVEL=info\nPIN=1234\nTEXT=a=b 'c' \xc3\xbc\n")
    service = backend(env=(("LEVEL", "info"), ("PIN", "1235"), ("TEXT", "a=b 'c' ü")))

    host, here = seen(tmp_path)[f"backend-{SPEC}"], observation.environment_marks(service)

    assert host.keys() == here.keys()
    assert {key for key in host if host[key] != here[key]} == {"PIN"}


def test_marks_include_values_of_several_lines_and_secret_files(tmp_path: Path) -> None:
    kept(tmp_path, b"LEVEL=info\n")
    for name, value in (("multiline/TLS_KEY", "a\nb\n"), ("secrets/CERT", "c\n")):
        path = tmp_path / "config" / f"backend-{SPEC}" / name
        path.parent.mkdir()
        path.write_text(value)
    service = backend(
        env=(("LEVEL", "info"), ("TLS_KEY", "a\nb\n")), secret_files=(SecretFile("CERT", "/c", "changed"),)
    )

    host, here = seen(tmp_path)[f"backend-{SPEC}"], observation.environment_marks(service)

    assert host.keys() == here.keys() == {"LEVEL", "TLS_KEY", "CERT"}
    assert {key for key in host if host[key] != here[key]} == {"CERT"}


def test_marks_differ_between_processes(tmp_path: Path) -> None:
    service = backend(env=(("PIN", "1234"),))
    text = "from rolling_upgrade.engine import observation as e; from tests.support.sample import backend as b; "
    text += "print(e.environment_marks(b(env=(('PIN', '1234'),)))['PIN'])"

    other = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True)

    assert other.stdout.strip() not in ("", observation.environment_marks(service)["PIN"])


def test_read_marks_without_files_or_python_prints_nothing(tmp_path: Path) -> None:
    assert seen(tmp_path) == {}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    assert sh(observation.ask_python(str(tmp_path)), path=str(tmp_path / "bin")).stdout == ""


def test_read_marks_of_unusual_files_prints_the_valid_keys(tmp_path: Path) -> None:
    kept(tmp_path, b"", f"backend-{SPEC}")
    kept(tmp_path, b"no equal sign\n\xff\n", "other-1234")

    assert seen(tmp_path) == {f"backend-{SPEC}": {}}


@pytest.mark.parametrize(
    "row", ["", "backend-0123 A:1", "backend-0123 A:" + "g" * 16, "../x-0123 A:" + "0" * 16, "²-0123"]
)
def test_parse_skips_malformed_rows(row: str) -> None:
    assert observation.parse_environment_marks([row]) == ()
