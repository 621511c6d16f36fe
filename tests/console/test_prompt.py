"""Confirmations on the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from rolling_upgrade.console import prompt
from rolling_upgrade.errors import ConfigError, Interrupted


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y\n", "Yes\n", " YES \n"])
def test_confirm_yes_returns_after_one_prompt(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}n\n"))

    prompt.confirm("Deploy?", force=False, hint="")

    assert (sys.stdin.readline(), capsys.readouterr().err.count("Deploy?")) == ("n\n", 1)


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yep\n", "no, yes\n"])
def test_confirm_other_answers_raise_interrupted(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))

    with pytest.raises(Interrupted, match="nothing was touched"):
        prompt.confirm("Deploy?", force=False, hint="")


def test_confirm_prompts_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))

    prompt.confirm("Deploy?", force=False, hint="")

    assert (capsys.readouterr()) == ("", "Deploy? [y/N] ")


def test_confirm_without_a_terminal_raises_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    with pytest.raises(ConfigError) as caught:
        prompt.confirm("Deploy?", force=False, hint="use --force")

    assert caught.value.next_step == "use --force"


def test_confirm_with_force_does_not_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))

    prompt.confirm("Deploy?", force=True, hint="")

    assert (sys.stdin.readline(), capsys.readouterr()) == ("n\n", ("", ""))
