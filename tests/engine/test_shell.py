"""Quoting, writing files, joining scripts: hostile values through a real `sh`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolling_upgrade.engine import shell
from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.engine.shell import Script
from tests.support.shell import HOSTILE, sh

ANY_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=80)


@pytest.mark.parametrize("value", HOSTILE)
def test_quote_hostile_value_arrives_byte_for_byte(value: str, tmp_path: Path) -> None:
    done = sh(f"printf %s {shell.quote(value)}", cwd=tmp_path)

    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, value, [])


@settings(max_examples=30)
@given(st.lists(ANY_TEXT, min_size=1, max_size=8))
def test_shell_join_keeps_each_argument_one_word(values: list[str]) -> None:
    done = sh(f"printf '%s\\0' {shell.shell_join(*values)}")

    assert done.stdout.split("\0")[:-1] == values


def test_shell_join_numbers_are_words_too() -> None:
    assert sh(shell.shell_join("echo", 3, 1.5)).stdout == "3 1.5\n"


def test_quote_nul_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell.quote("a\0b")


@pytest.mark.parametrize("content", HOSTILE)
def test_write_file_writes_hostile_content_unchanged(content: str, tmp_path: Path) -> None:
    target = tmp_path / "target"

    done = sh(shell.write_file(str(target), content), cwd=tmp_path)

    assert (done.returncode, target.read_bytes(), list(tmp_path.iterdir())) == (0, content.encode(), [target])


@pytest.mark.parametrize("name", ["it's $(touch pwned)", ' spaces and "quotes"', "繁體", "-rf", "two\nlines"])
def test_write_file_hostile_path_is_one_path(name: str, tmp_path: Path) -> None:
    sh(shell.write_file(f"{tmp_path}/{name}", "text"), cwd=tmp_path)

    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("mode", ["0600", "0644", "0755"])
def test_write_file_sets_the_exact_mode(mode: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    target.chmod(0o666)

    sh("umask 000\n" + shell.write_file(str(target), "new", mode=mode).text)

    assert (stat.S_IMODE(target.stat().st_mode), target.read_text()) == (int(mode, 8), "new")


def test_write_file_in_a_missing_directory_fails_the_script(tmp_path: Path) -> None:
    done = sh(shell.script(shell.write_file(f"{tmp_path}/none/target", "x"), "echo went on"))

    assert done.returncode != 0
    assert "went on" not in done.stdout


def test_write_file_megabyte_arrives_complete(tmp_path: Path) -> None:
    content = "0123456789abcdé\n" * 64_000

    sh(shell.write_file(f"{tmp_path}/large", content))

    assert (tmp_path / "large").read_text("utf-8") == content


def test_masked_write_file_hides_the_value_and_its_base64() -> None:
    written = shell.write_file("/etc/env", "TOKEN=hunter2", secret=True)

    assert MASK in written.masked
    assert all(secret not in written.masked for secret in ("hunter2", *written.secrets))


def test_write_file_without_content_has_no_secret_to_mask() -> None:
    assert shell.write_file("/etc/env", "", secret=True).secrets == ()


def test_script_keeps_the_secrets_of_its_parts_once() -> None:
    part = Script("set -eu\necho s\n", ("s",))

    joined = shell.script(part, "", part, Script("echo t", ("t",)))

    assert joined.secrets == ("s", "t")
    assert joined.text.count("set -eu") == 1


def test_script_failing_command_stops_it() -> None:
    done = sh(shell.script("echo one", "false", "echo two"))

    assert (done.returncode, done.stdout) == (1, "one\n")


def test_script_secrets_stay_out_of_repr() -> None:
    assert "hunter2" not in repr(Script("text", ("hunter2",)))


def test_lines_skips_empty_items() -> None:
    assert shell.lines(["a", "", "b"]) == "a\nb"
