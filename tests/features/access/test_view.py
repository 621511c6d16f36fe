"""Who can log in, as people and programs read it."""

from __future__ import annotations

import io
import json

from fabfile.model import Environment, Holder, Standing
from fabfile.model.public_key import PublicKey
from fabfile.report.access import Told, render_access
from tests.keys import key

FILE = "/home/deploy/.ssh/authorized_keys"
ALICE = Holder("alice", key(1), Standing.GRANTED, FILE)
HOSTILE = Holder("a\x1b[2Jb\u202ec", PublicKey(key(2).type, key(2).blob), Standing.UNMANAGED, FILE, options="no-pty")


def shown(*holders: Holder, faults: tuple[str, ...] = (), json: bool = False) -> str:
    out = io.StringIO()
    told = {"web1": Told(holders, faults)}
    render_access(Environment("production", ()), told, {"web2": "no\nroute"}, granted=["alice"], json=json, out=out)
    return out.getvalue()


def test_access_host_as_wanted_says_so_and_lost_hosts_are_named() -> None:
    text = shown(ALICE)

    assert "web1  as the folder says" in text
    assert f"alice  {key(1).fingerprint}  ssh-ed25519  granted  {FILE}" in text
    assert "web2  NOT REACHED: no route" in text
    assert "Next:" not in text


def test_access_drift_and_faults_are_told_with_what_to_do_and_nothing_obeys_a_terminal() -> None:
    text = shown(ALICE, HOSTILE, faults=("sshd lets deploy in with a password",))

    assert "web1  DIFFERS" in text
    assert f"NOT MANAGED  {FILE} with options no-pty" in text
    assert "  sshd lets deploy in with a password" in text
    assert "inv access.sync --env production --dry-run" in text
    assert not any(char in text for char in "\x1b\u202e")


def test_access_json_is_one_object() -> None:
    told = json.loads(shown(ALICE, HOSTILE, json=True))

    assert [key["standing"] for key in told["hosts"][0]["keys"]] == ["granted", "not managed"]
    assert (told["granted"], told["hosts"][0]["drift"], told["hosts"][1]["host"]) == (["alice"], True, "web2")
