"""List, add and remove the recipients of an env file."""

from __future__ import annotations

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.secrets.workflow import encrypt, recipients, rotate
from tests.support.encryption_keys import age_key
from tests.support.team import Team


def change(team: Team, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), comment: str = "") -> ExitCode:
    return recipients("demo", root=team.root, add=add, remove=remove, comment=comment)


def refused(team: Team, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), comment: str = "") -> str:
    before = team.recipients_file.read_bytes() if team.recipients_file.exists() else None
    with pytest.raises(ConfigError) as caught:
        change(team, add=add, remove=remove, comment=comment)
    assert (team.recipients_file.read_bytes() if team.recipients_file.exists() else None) == before
    return str(caught.value)


def test_recipients_of_a_new_environment_are_empty(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    assert change(team) is ExitCode.DONE
    assert capsys.readouterr().out == "deploy/recipients/demo.txt: no keys\ndeploy/demo.env is not encrypted.\n"


def test_recipients_added_by_file_and_by_key_are_listed_once(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    change(team, add=(f"{team.own_key}.pub", team.bob.line))
    change(team, add=(team.ci.key,), comment="CI of the project")
    change(team, add=(team.ann.key,))

    lines = team.recipients_file.read_text().splitlines()
    assert lines[0].startswith("# Public keys that deploy/demo.env is encrypted for")
    assert lines[1:] == [team.ann.line, team.bob.line, f"{team.ci.key} CI of the project"]
    assert team.recipients_file.stat().st_mode & 0o777 == 0o644
    shown = capsys.readouterr()
    assert team.ann.fingerprint in shown.out
    assert "rolling-upgrade secrets.encrypt --env demo" in shown.err


def test_recipients_added_by_a_path_with_tilde_are_listed(team: Team) -> None:
    change(team, add=("~/.ssh/id_ed25519.pub",))

    assert team.ann.line in team.recipients_file.read_text()


@pytest.mark.parametrize("by", ["comment", "fingerprint", "key"])
def test_recipients_removed_by_name_are_not_listed(team: Team, by: str) -> None:
    team.listing(team.ann, team.bob)

    change(team, remove=(getattr(team.bob, by),))

    assert team.recipients_file.read_text() == f"# team\n{team.ann.line}\n"


def test_recipients_removed_key_decrypts_until_the_file_is_rotated(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.listing(team.ann, team.bob)
    encrypt("demo", root=team.root)

    change(team, remove=("bob@desk",))

    shown = capsys.readouterr()
    assert f"SSH key with the hash {team.bob.tag}, which is not listed" in shown.out
    assert "Next: rolling-upgrade secrets.rotate --env demo" in shown.err
    rotate("demo", root=team.root)
    capsys.readouterr()
    change(team)
    assert "not listed" not in capsys.readouterr().out


def test_recipients_replaced_age_key_is_reported_until_the_file_is_rotated(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    other = age_key(team.folder / "other.txt", "other")
    team.listing(team.ann, team.ci)
    encrypt("demo", root=team.root)
    capsys.readouterr()

    change(team, remove=("CI",), add=(other.key,))

    shown = capsys.readouterr()
    assert "the list changed after the file was encrypted" in shown.out
    assert "Next: rolling-upgrade secrets.rotate --env demo" in shown.err
    rotate("demo", root=team.root)
    capsys.readouterr()
    change(team)
    shown = capsys.readouterr()
    assert ("list changed" in shown.out, "rotate" in shown.err) == (False, False)


def test_recipients_last_key_cannot_be_removed(team: Team) -> None:
    team.listing(team.ann)

    assert "is the only recipient" in refused(team, remove=("ann@laptop",))


@pytest.mark.parametrize("word", ["carl", "", "SHA256:nothing"])
def test_recipients_unknown_key_cannot_be_removed(team: Team, word: str) -> None:
    team.listing(team.ann, team.bob)

    assert "fingerprint: ann@laptop, bob@desk" in refused(team, remove=(word,))


def test_recipients_ambiguous_name_is_refused(team: Team) -> None:
    team.project.write("deploy/recipients/demo.txt", f"{team.ann.key} ann\n{team.bob.key} ann\n")

    assert "more than one key" in refused(team, remove=("ann",))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "no key"),
        ("hello", "not a public key"),
        ("/nothing/there.pub", "not a public key"),
        ("AGE-SECRET-KEY-1ABC", "a private key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ann", "cannot use"),
        ("ecdsa-sha2-nistp256 AAAA", "age does not support"),
        ("age1" + "q" * 58, "cannot use"),
        ("gpg ABCD", "not a public key"),
    ],
)
def test_recipients_invalid_public_key_is_refused(team: Team, word: str, message: str) -> None:
    assert message in refused(team, add=(word,))


def test_recipients_private_key_is_refused_and_not_printed(team: Team) -> None:
    message = refused(team, add=(str(team.own_key),))

    assert "a private key" in message
    assert team.own_key.read_text().splitlines()[1] not in message


def test_recipients_comment_requires_one_key_and_one_line(team: Team) -> None:
    assert "requires exactly one --add" in refused(team, comment="ann")
    assert "single line" in refused(team, add=(team.ann.key,), comment="ann\nage1")
