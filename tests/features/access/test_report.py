"""The keys that can log in, as lines and as JSON."""

from __future__ import annotations

import io
import json

from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.engine.openssh import PublicKey
from rolling_upgrade.features.access.plan import AccessReport, Holder, Standing
from rolling_upgrade.features.access.workflow import access_json, access_lines
from tests.support.ssh_keys import key

FILE = "/home/deploy/.ssh/authorized_keys"
ALICE = Holder("alice", key(1), Standing.GRANTED, FILE)
HOSTILE = Holder("a\x1b[2Jb\u202ec", PublicKey(key(2).type, key(2).blob), Standing.UNMANAGED, FILE, options="no-pty")


def shown(*holders: Holder, faults: tuple[str, ...] = (), json: bool = False) -> str:
    out = io.StringIO()
    hosts, unreachable = {"web1": AccessReport(holders, faults)}, {"web2": "no\nroute"}
    if json:
        print_result(access_json("production", hosts, unreachable, granted=["alice"]), stream=out)
    else:
        print_lines(access_lines("production", hosts, unreachable, granted=["alice"]), stream=out)
    return out.getvalue()


def test_access_lines_matching_and_unreachable_host() -> None:
    text = shown(ALICE)

    assert "web1  matches the directory" in text
    assert f"alice  {key(1).fingerprint}  ssh-ed25519  granted  {FILE}" in text
    assert "web2  UNREACHABLE: no route" in text
    assert "Next:" not in text


def test_access_lines_drift_names_the_next_command_without_control_characters() -> None:
    text = shown(ALICE, HOSTILE, faults=("sshd lets deploy in with a password",))

    assert "web1  DIFFERS" in text
    assert f"NOT MANAGED  {FILE} with options no-pty" in text
    assert "  sshd lets deploy in with a password" in text
    assert "rolling-upgrade access.sync --env production --dry-run" in text
    assert not any(char in text for char in "\x1b\u202e")


def test_access_json_is_one_object() -> None:
    access = json.loads(shown(ALICE, HOSTILE, json=True))

    assert [key["standing"] for key in access["hosts"][0]["keys"]] == ["granted", "not managed"]
    assert (access["granted"], access["hosts"][0]["drift"], access["hosts"][1]["host"]) == (["alice"], True, "web2")
