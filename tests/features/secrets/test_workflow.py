"""Encrypting, decrypting and rotating an env file, with real keys."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from rolling_upgrade import config
from rolling_upgrade.config.encryption import Encryption, detect
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.configuration.workflow import explain_environment
from rolling_upgrade.features.secrets.workflow import decrypt, encrypt, rotate
from tests.support.pgp import Pgp
from tests.support.team import SECRET, Team

FORMS = ["age", "ansible-vault", "gpg"]


@pytest.fixture
def password_file(team: Team, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = team.folder / "vault-password"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(path))
    return path


def refused(work: object, team: Team, env: str = "demo", **asked: object) -> str:
    assert callable(work)
    with pytest.raises(ConfigError) as caught:
        work(env, root=team.root, **asked)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def encrypted(team: Team, form: str, pgp: Pgp | None = None) -> bytes:
    """Encrypt the env file in one of the forms and return the plaintext."""
    before = team.env_file.read_bytes()
    key = f"gpg {pgp.fingerprints()[0]} Ann\n" if pgp else ""
    team.project.write("deploy/recipients/demo.txt", f"{team.ann.line}\n{team.ci.line}\n{key}")
    assert encrypt("demo", root=team.root, form=form) is ExitCode.DONE
    return before


@pytest.mark.parametrize("form", FORMS)
def test_encrypt_in_every_form_the_configuration_loads(
    team: Team, pgp: Pgp, password_file: Path, capfdbinary: pytest.CaptureFixture[bytes], form: str
) -> None:
    before = encrypted(team, form, pgp)

    assert detect(team.env_file.read_bytes()) is Encryption(form)
    assert SECRET.encode() not in team.env_file.read_bytes()
    assert team.mode == "0600"
    assert SECRET in team.project.load().secrets
    assert explain_environment("demo", root=team.root).environment.name == "demo"
    assert decrypt("demo", root=team.root) is ExitCode.DONE
    out, err = capfdbinary.readouterr()
    assert out == before
    assert SECRET.encode() not in err
    assert team.files() == {"hosts.yaml", "deploy/services.yaml", "deploy/demo.env", "deploy/recipients/demo.txt"}


@pytest.mark.parametrize("form", FORMS)
def test_load_error_in_an_encrypted_file_has_its_line(team: Team, pgp: Pgp, password_file: Path, form: str) -> None:
    team.project.env(extra="BACKEND_PORT=no\nSMTP_PORT=25\n\nSMTP_PORT=26\n")
    encrypted_text = team.env_file.read_text().replace("SMTP_PORT=26\n", "")
    team.env_file.write_text(encrypted_text)
    encrypted(team, form, pgp)

    (issue,) = team.project.issues()

    assert (issue.file, issue.path, issue.found) == ("deploy/demo.env", "BACKEND_PORT", "'no'")
    explained = explain_environment("demo", root=_without_mistake(team))
    assert explained.hosts["web1"].keys["JWT_SECRET_KEY"].source == "deploy/demo.env line 9"


def _without_mistake(team: Team) -> Path:
    """The same project, in which hosts.yaml corrects the port."""
    team.project.edit("hosts.yaml", "roles: [web], groups", "env: {BACKEND_PORT: 8080}, roles: [web], groups")
    team.project.edit("hosts.yaml", "192.0.2.12, roles", "192.0.2.12, env: {BACKEND_PORT: 8080}, roles")
    return team.root


def test_load_truncated_file_is_refused_with_its_name(team: Team) -> None:
    encrypted(team, "age")
    team.env_file.write_bytes(team.env_file.read_bytes()[:300])

    error = team.project.refused()

    assert error.exit_code is ExitCode.USAGE
    assert "deploy/demo.env: found an age file" in str(error)
    assert "truncated" in str(error)


def test_load_without_a_key_names_the_recipients_and_the_next_step(team: Team) -> None:
    encrypted(team, "age")
    team.own_key.unlink()

    output = str(team.project.refused())

    assert "ann@laptop, an age key" in output
    assert "ROLLING_AGE_KEY" in output
    assert "rolling-upgrade secrets.recipients --env ENV --add KEY" in output


def test_load_wrong_vault_password_is_refused(team: Team, password_file: Path) -> None:
    encrypted(team, "ansible-vault")
    password_file.write_text("another\n")

    assert "the password does not decrypt" in str(team.project.refused())


@pytest.mark.parametrize("where", ["text", "file", "age_identity", "identity_file"])
def test_load_key_is_read_from_every_documented_place(team: Team, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    encrypted(team, "age")
    elsewhere = team.own_key.rename(team.folder / "moved")
    if where == "text":
        monkeypatch.setenv("ROLLING_AGE_KEY", team.ci_file.read_text().strip())
    elif where == "file":
        monkeypatch.setenv("ROLLING_AGE_KEY_FILE", str(team.ci_file))
    else:
        team.project.edit("hosts.yaml", "    hosts:\n", f"    {where}: {elsewhere}\n    hosts:\n")

    assert SECRET in team.project.load().secrets


def test_load_other_environments_does_not_prompt(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted(team, "age")
    monkeypatch.setenv("HOME", str(team.folder))

    with pytest.raises(ConfigError):
        config.load("demo", root=team.root, prompt=False)


def test_encrypt_twice_is_refused(team: Team) -> None:
    encrypted(team, "age")

    assert "already encrypted by age" in refused(encrypt, team)
    assert "already encrypted by age" in refused(encrypt, team, form="age")


def test_encrypt_converts_between_forms(team: Team, password_file: Path) -> None:
    before = encrypted(team, "age")

    assert encrypt("demo", root=team.root, form="ansible-vault") is ExitCode.DONE

    assert detect(team.env_file.read_bytes()) is Encryption.VAULT
    assert decrypt("demo", root=team.root, in_place=True) is ExitCode.DONE
    assert team.env_file.read_bytes() == before


def test_encrypt_without_recipients_is_refused(team: Team) -> None:
    before = team.env_file.read_bytes()

    assert "rolling-upgrade secrets.recipients --env demo --add" in refused(encrypt, team)
    assert team.env_file.read_bytes() == before


def test_encrypt_unknown_form_is_refused(team: Team) -> None:
    assert "one of age, ansible-vault, gpg" in refused(encrypt, team, form="pgp")


def test_encrypt_invalid_env_file_is_refused(team: Team) -> None:
    team.listing(team.ann)
    team.project.env(extra=f"{SECRET} without a key\n")

    assert "demo.env:10: " in refused(encrypt, team)


def test_encrypt_only_for_others_is_refused_unless_forced(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    before = team.env_file.read_bytes()
    team.listing(team.bob)

    assert "no key on this machine decrypts" in refused(encrypt, team)
    assert team.env_file.read_bytes() == before
    assert encrypt("demo", root=team.root, force=True) is ExitCode.DONE
    assert "not verified" in capsys.readouterr().err
    assert detect(team.env_file.read_bytes()) is Encryption.AGE


def test_encrypt_unwritable_directory_keeps_the_file(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    before = team.env_file.read_bytes()
    team.listing(team.ann)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert "cannot be written (No space left on device)" in refused(encrypt, team)
    assert team.env_file.read_bytes() == before
    assert not list((team.root / "deploy").glob(".half-*"))


def test_encrypt_link_stays_a_link(team: Team) -> None:
    team.listing(team.ann)
    elsewhere = team.env_file.rename(team.folder / "values.env")
    team.env_file.symlink_to(elsewhere)

    encrypt("demo", root=team.root)

    assert team.env_file.is_symlink()
    assert detect(elsewhere.read_bytes()) is Encryption.AGE


def test_encrypt_tracked_plaintext_lists_the_values_to_replace(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.listing(team.ann)
    team.git("add", "--force", "deploy/demo.env")

    assert encrypt("demo", root=team.root) is ExitCode.DONE

    assert "Replace these secrets:\n  JWT_SECRET_KEY\n" in capsys.readouterr().err
    assert team.project.load().name == "demo"


def test_decrypt_to_a_terminal_requires_force(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted(team, "age")

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(shown))

    assert "| less" in refused(decrypt, team)
    assert shown.getvalue() == b""
    assert decrypt("demo", root=team.root, force=True) is ExitCode.DONE
    assert SECRET.encode() in shown.getvalue()


def test_decrypt_in_place_of_a_tracked_file_is_refused(team: Team) -> None:
    encrypted(team, "age")
    team.git("add", "--force", "deploy/demo.env")

    assert "the next commit could contain the plaintext" in refused(decrypt, team, in_place=True)
    assert detect(team.env_file.read_bytes()) is Encryption.AGE


@pytest.mark.parametrize("work", [decrypt, rotate])
def test_plaintext_file_is_refused_by_decrypt_and_rotate(team: Team, work: object) -> None:
    assert "is not encrypted" in refused(work, team)


@pytest.mark.parametrize("work", [encrypt, decrypt, rotate])
def test_missing_file_and_unknown_environment_are_refused(team: Team, work: object) -> None:
    team.env_file.unlink()

    assert "Cannot read deploy/demo.env: No such file" in refused(work, team)
    assert "Unknown environment" in refused(work, team, "nowhere")


def test_rotate_after_a_removal_lists_the_values_to_replace(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.listing(team.ann, team.bob)
    encrypt("demo", root=team.root)
    team.listing(team.ann, team.ci)
    capsys.readouterr()

    assert rotate("demo", root=team.root) is ExitCode.DONE

    output = capsys.readouterr().err
    assert "now:    ann@laptop, an age key" in output
    assert "still know these values" in output
    assert output.endswith("  JWT_SECRET_KEY\n")
    assert SECRET not in output
    team.own_key.unlink()
    team.own_key.write_bytes((team.folder / "bob").read_bytes())
    assert "no matching private key" in refused(decrypt, team)


def test_rotate_damaged_recipients_file_is_refused(team: Team) -> None:
    encrypted(team, "age")
    before = team.env_file.read_bytes()
    team.project.write("deploy/recipients/demo.txt", f"{team.ann.line}\nhello\n")

    assert "deploy/recipients/demo.txt:2" in refused(rotate, team)
    assert team.env_file.read_bytes() == before


def test_rotate_vault_uses_the_new_password(team: Team, password_file: Path) -> None:
    encrypted(team, "ansible-vault")
    new = team.folder / "new-password"
    new.write_text("battery staple\n")

    assert "--new-password-file" in refused(rotate, team)
    assert "The new password is the old one" in refused(rotate, team, new_password_file=str(password_file))
    assert rotate("demo", root=team.root, new_password_file=str(new)) is ExitCode.DONE
    assert "the password does not decrypt" in refused(decrypt, team)
    password_file.write_bytes(new.read_bytes())
    assert team.project.load().name == "demo"


def test_rotate_gpg_uses_the_listed_keys(team: Team, pgp: Pgp, capsys: pytest.CaptureFixture[str]) -> None:
    encrypted(team, "gpg", pgp)
    stranger = pgp.stranger("Bob <bob@example.org>")
    with team.recipients_file.open("a") as file:
        file.write(f"gpg {stranger} Bob\n")
    capsys.readouterr()

    assert rotate("demo", root=team.root) is ExitCode.DONE

    output = capsys.readouterr().err
    assert "now:    Ann, Bob" in output
    assert "Bob is listed, but the file is not encrypted for that key" in output
