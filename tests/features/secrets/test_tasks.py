"""The secrets tasks, each in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import team
from tests.support.encryption_keys import public, ssh_key
from tests.support.team import SECRET, Team

__all__ = ["team"]


def test_secrets_tasks_lead_from_plaintext_to_a_rotated_file(team: Team) -> None:
    assert (
        team.inv("secrets.recipients", "--env", "demo", "--add", f"{team.own_key}.pub", "--add", team.bob.line)[0] == 0
    )
    code, out, err = team.inv("secrets.encrypt", "--env", "demo")
    assert (code, out) == (0, "")
    assert "git add --force deploy/demo.env" in err
    code, out, err = team.inv("secrets.decrypt", "--env", "demo")
    assert (code, SECRET in out, err) == (0, True, "")
    assert team.inv("secrets.recipients", "--env", "demo", "--remove", "bob@desk")[0] == 0
    assert team.inv("secrets.check", "--env", "demo")[0] == 1
    code, out, err = team.inv("secrets.rotate", "--env", "demo")
    assert (code, out, "JWT_SECRET_KEY" in err, SECRET in err) == (0, "", True, False)
    assert team.inv("secrets.check", "--env", "demo") == (0, "demo: no exposed secrets\n", "")
    assert team.inv("secrets.decrypt", "--env", "demo", "--in-place")[0] == 0
    assert SECRET in team.env_file.read_text()
    assert team.mode == "0600"


@pytest.mark.parametrize("task", ["encrypt", "decrypt", "edit", "rotate", "recipients", "check"])
def test_secrets_unknown_environment_exits_with_2(team: Team, task: str) -> None:
    code, out, err = team.inv(f"secrets.{task}", "--env", "nowhere")

    assert (code, out) == (2, "")
    assert "Unknown environment 'nowhere'" in err


@pytest.mark.parametrize("task", ["encrypt", "decrypt", "edit", "rotate", "recipients"])
def test_secrets_without_an_environment_exits_with_2(team: Team, task: str) -> None:
    code, _, err = team.inv(f"secrets.{task}")

    assert code == 2
    assert "No environment was given" in err


@pytest.mark.parametrize(("answer", "code"), [("four words", 0), ("three words", 2)])
def test_secrets_key_with_a_passphrase_prompts_at_a_terminal(
    team: Team, tmp_path: Path, answer: str, code: int
) -> None:
    locked = ssh_key(tmp_path / "locked", "carl", passphrase="four words")
    team.listing(public(locked), team.ann)
    assert team.inv("secrets.encrypt", "--env", "demo")[0] == 0
    locked.replace(team.own_key)

    ended, out, shown = team.typed(answer, "secrets.decrypt", "--env", "demo")

    assert shown.startswith("Passphrase of ~/.ssh/id_ed25519: ")
    assert answer not in shown
    assert (ended, SECRET in out) == (code, code == 0)


def test_secrets_key_with_a_passphrase_without_a_terminal_exits_with_2(team: Team, tmp_path: Path) -> None:
    locked = ssh_key(tmp_path / "locked", "carl", passphrase="four words")
    team.listing(public(locked), team.ann)
    assert team.inv("secrets.encrypt", "--env", "demo")[0] == 0
    locked.replace(team.own_key)

    code, out, err = team.inv("secrets.decrypt", "--env", "demo")

    assert (code, out) == (2, "")
    assert "has a passphrase, but no terminal" in err
