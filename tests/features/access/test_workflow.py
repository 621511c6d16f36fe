"""The access commands on two hosts whose authorized_keys files are in memory."""

from __future__ import annotations

import base64
import re

import pytest

from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.host_run import RunEnd
from rolling_upgrade.engine.model import HostResult
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, PreflightError
from rolling_upgrade.features import apply
from rolling_upgrade.features.access.workflow import grant, revoke, show, sync
from tests.support.local_fleet import answer_with
from tests.support.project import Project
from tests.support.ssh_keys import ed25519

_SETTINGS = ("authorizedkeysfile=.ssh/authorized_keys", "passwordauthentication=no", "kbdinteractiveauthentication=no")


class Keys:
    """The authorized_keys of each host, read and written by the scripts of the feature."""

    def __init__(self) -> None:
        self.files = {"web1": "", "web2": ""}
        self.unreachable: set[str] = set()

    def respond(self, host: str, text: str) -> Answer:
        if host in self.unreachable:
            raise HostUnreachable(f"{host}: cannot reach 192.0.2.1.")
        if "SSH_USER_AUTH" in text:
            return Answer(0, "")
        if written := re.search(r"printf %s (\S+) \| base64 -d > .ssh/authorized_keys.new", text):
            self.files[host] = base64.b64decode(written[1]).decode()
            return Answer(0, "")
        content = base64.b64encode(self.files[host].encode()).decode()
        rows = [
            *("home=/home/deploy", *(f"setting {row}" for row in _SETTINGS), "directory=deploy 700"),
            *("file=/home/deploy/.ssh/authorized_keys", "state=deploy 600", f"content={content}", "end"),
        ]
        return Answer(0, "\n".join(rows) + "\n")


@pytest.fixture
def keys(project: Project, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Two hosts without a key, and a directory that grants one to alice."""
    project.write("deploy/authorized_keys/demo/alice.pub", f"{ed25519(1)} alice\n")
    found = Keys()
    answer_with(monkeypatch, found.respond)
    return found


def test_sync_writes_the_granted_keys_and_a_second_one_changes_nothing(
    project: Project, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show("demo", root=project.root) is ExitCode.FAILED
    assert "MISSING" in capsys.readouterr().out

    assert sync("demo", root=project.root, force=True) is ExitCode.DONE
    assert all(ed25519(1) in text for text in keys.files.values())
    assert show("demo", root=project.root) is ExitCode.DONE

    capsys.readouterr()
    assert sync("demo", root=project.root, force=True) is ExitCode.DONE
    assert "Nothing to do" in capsys.readouterr().out


def test_grant_adds_the_key_to_every_host_and_revoke_removes_it(project: Project, keys: Keys) -> None:
    assert grant("demo", "bob", ed25519(2), root=project.root, force=True) is ExitCode.DONE
    assert all(ed25519(2) in text for text in keys.files.values())

    assert revoke("demo", "bob", root=project.root, force=True) is ExitCode.DONE
    assert all(ed25519(1) in text and ed25519(2) not in text for text in keys.files.values())
    assert (project.root / "deploy/authorized_keys/demo/revoked/bob.pub").exists()


def test_revoke_that_a_host_refuses_beside_another_run_names_the_host(
    project: Project, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grant("demo", "bob", ed25519(2), root=project.root, force=True) is ExitCode.DONE
    capsys.readouterr()
    refused = RunEnd(HostResult.NOT_STARTED, error="LockHeld", message="another run prepares the host")
    monkeypatch.setattr(apply, "_execute", lambda *_: refused)

    assert revoke("demo", "bob", root=project.root, force=True) is ExitCode.LOCKED

    output = capsys.readouterr().out
    assert "web1, web2: not synced; the keys there are unchanged." in output
    assert "Nothing to do" not in output


def test_dry_run_writes_neither_directory_nor_hosts(project: Project, keys: Keys) -> None:
    assert grant("demo", "bob", ed25519(2), root=project.root, dry_run=True) is ExitCode.DONE

    assert keys.files == {"web1": "", "web2": ""}
    assert not (project.root / "deploy/authorized_keys/demo/bob.pub").exists()


def test_sync_unreachable_host_is_reported_and_the_other_is_synced(
    project: Project, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.unreachable.add("web2")

    assert sync("demo", root=project.root, force=True) is ExitCode.PARTLY_DONE

    assert ed25519(1) in keys.files["web1"]
    assert "rolling-upgrade access.sync --env demo --hosts web2" in capsys.readouterr().out


def test_revoke_last_key_or_unknown_name_is_refused(project: Project, keys: Keys) -> None:
    with pytest.raises(PreflightError, match="last key"):
        revoke("demo", "alice", root=project.root, force=True)
    with pytest.raises(ConfigError, match="command line"):
        revoke("demo", "eve", root=project.root, force=True)


def test_revoke_unreachable_host_keeps_the_key_until_its_sync(
    project: Project, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grant("demo", "bob", ed25519(2), root=project.root, force=True) is ExitCode.DONE
    keys.unreachable.add("web2")

    assert revoke("demo", "bob", root=project.root, force=True) is ExitCode.PARTLY_DONE

    assert [ed25519(2) in keys.files[host] for host in ("web1", "web2")] == [False, True]
    assert "access.sync --env demo --hosts web2" in capsys.readouterr().out
    keys.unreachable.clear()
    assert show("demo", root=project.root) is ExitCode.FAILED
    assert "REVOKED" in capsys.readouterr().out
    assert sync("demo", root=project.root, hosts=("web2",), force=True) is ExitCode.DONE
    assert ed25519(2) not in keys.files["web2"]
