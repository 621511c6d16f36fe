"""Compare deploy/authorized_keys with a host: the standing of each key, the plan, and the keys that stay."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import Target
from rolling_upgrade.features.access import plan as planning
from rolling_upgrade.features.access.keys import Access
from rolling_upgrade.features.access.plan import DesiredAccess, Standing
from rolling_upgrade.features.access.shell import HostAccess, KeyFile, parse
from tests.support.sample import application
from tests.support.ssh_keys import ed25519, key

FILE = "/home/deploy/.ssh/authorized_keys"
OFF = {"passwordauthentication": "no", "kbdinteractiveauthentication": "no"}
TARGET = Target("web1", "192.0.2.11", "deploy", application())
ACCESS = Access((("alice", key(1)), ("bob", key(2))), (("eve", key(3)),))
DESIRED = DesiredAccess("production", TARGET, ACCESS)


def host_access(text: str, *more: KeyFile, directory: str = "deploy 700", state: str = "deploy 600") -> HostAccess:
    return HostAccess("/home/deploy", OFF, directory, (KeyFile(FILE, state, text), *more))


GOOD = DESIRED.text(host_access(""))


def standings(current: HostAccess, desired: DesiredAccess = DESIRED) -> list[tuple[str, Standing]]:
    return [(holder.name, holder.standing) for holder in planning.holders(desired, current)]


def test_plan_host_in_the_desired_state_is_empty() -> None:
    assert planning.plan_access(DESIRED, host_access(GOOD)).empty
    assert standings(host_access(GOOD)) == [("alice", Standing.GRANTED), ("bob", Standing.GRANTED)]


def test_plan_new_host_gets_every_granted_key() -> None:
    plan = planning.plan_access(DESIRED, HostAccess("/home/deploy", OFF, "", (KeyFile(FILE),)))

    assert [note[:7] for note in plan.notes] == ["+ alice", "+ bob S"]
    assert "runuser -u deploy" in plan.steps[0].script.text


@pytest.mark.parametrize(("directory", "state"), [("deploy 755", "deploy 600"), ("root 700", "root 600")])
def test_plan_wrong_owner_or_mode_is_corrected(directory: str, state: str) -> None:
    current = host_access(GOOD, directory=directory, state=state)

    assert not planning.plan_access(DESIRED, current).empty
    assert planning.faults(DESIRED, current)[0].startswith("~/.ssh is")


def test_plan_key_removed_from_the_directory_is_removed() -> None:
    desired = replace(DESIRED, access=replace(ACCESS, granted=ACCESS.granted[:1]))

    assert planning.removed_keys(desired, host_access(GOOD)) == {key(2).fingerprint}
    assert f"- bob {key(2).fingerprint} (not in the folder)" in planning.plan_access(desired, host_access(GOOD)).notes
    assert ("bob", Standing.REMOVED) in standings(host_access(GOOD), desired)


def test_plan_unmanaged_key_is_kept_and_reported() -> None:
    current = host_access(f"{ed25519(9)} carol\n{GOOD}")

    assert planning.plan_access(DESIRED, current).empty
    (carol,) = planning.kept(DESIRED, current)
    assert planning.kept_line(carol) == f"not managed, kept: carol {key(9).fingerprint} in {FILE}"


def test_plan_exclusive_removes_the_unmanaged_key() -> None:
    desired, current = replace(DESIRED, exclusive=True), host_access(f"{ed25519(9)} carol\n{GOOD}")

    assert planning.plan_access(desired, current).notes == (f"- carol {key(9).fingerprint} (not managed)",)
    assert planning.kept(desired, current) == ()


def test_plan_revoked_key_outside_of_the_block_is_removed() -> None:
    plan = planning.plan_access(DESIRED, host_access(f"{ed25519(3)} x\n{GOOD}"))

    assert plan.notes == (f"- eve {key(3).fingerprint} (revoked)",)


def test_kept_revoked_key_in_an_unmanaged_place_is_reported() -> None:
    other = f"# BEGIN inv access: shop staging\n{ed25519(3)} eve\n# END inv access: shop staging\n"
    current = host_access(other + GOOD, KeyFile("/etc/ssh/keys", "root 644", f"{ed25519(3)} eve\n"))

    kept = planning.kept(DESIRED, current)

    assert [holder.place for holder in kept] == [f"{FILE} (block of shop staging)", "/etc/ssh/keys"]
    assert all(planning.kept_line(holder).startswith("REVOKED, but still accepted") for holder in kept)


def test_holders_key_of_another_environment_is_no_drift() -> None:
    other = f"# BEGIN inv access: shop staging\n{ed25519(9)} carol\n# END inv access: shop staging\n"

    assert ("carol", Standing.ELSEWHERE) in standings(host_access(other + GOOD))
    assert not Standing.ELSEWHERE.is_drift


def test_holders_second_file_with_a_similar_name_is_another_file() -> None:
    current = host_access(GOOD, KeyFile(f"{FILE}2", "deploy 600", f"{ed25519(9)} carol\n"))

    assert planning.kept(replace(DESIRED, exclusive=True), current) != ()


def test_faults_password_login_and_other_login_methods_are_reported() -> None:
    settings = {"passwordauthentication": "yes", "kbdinteractiveauthentication": "no", "trustedusercakeys": "/etc/ca"}

    said = planning.faults(DESIRED, replace(host_access(GOOD), settings=settings))

    assert ["password" in said[0], "/etc/ca" in said[1]] == [True, True]


def test_parse_output_of_the_script_returns_settings_and_files() -> None:
    content = base64.b64encode(GOOD.encode()).decode()
    output = (
        f"home=/home/deploy\nsetting authorizedkeysfile=.ssh/authorized_keys\nsetting passwordauthentication=no\n"
        f"directory=deploy 700\nfile={FILE}\nstate=deploy 600\ncontent={content}\nend\n"
    )

    assert parse(output).own == KeyFile(FILE, "deploy 600", GOOD)
    with pytest.raises(ValueError, match="truncated"):
        parse(output.removesuffix("end\n"))
