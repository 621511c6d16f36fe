"""Access on real hosts: keys are granted, listed and revoked, and sshd accepts or refuses them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.environment import new_key
from lab.host import Host
from tests.deploy.conftest import Site

pytestmark = pytest.mark.hosts(2)

FILE = "/home/deploy/.ssh/authorized_keys"


@pytest.fixture
def team(site: Site, tmp_path: Path) -> Iterator[Team]:
    """The site without any granted key. The hosts' files are removed at the end."""
    yield Team(site, tmp_path)
    shutil.rmtree(site.directory / "deploy", ignore_errors=True)
    for host in site.lab.hosts:
        host.sh("rm -rf /home/deploy/.ssh")


class Team:
    """People with SSH keys, and their logins on the hosts."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site, self.directory = site, directory

    @property
    def hosts(self) -> tuple[Host, ...]:
        return self.site.lab.hosts

    def public(self, name: str) -> Path:
        new_key(self.directory / name, name)
        return self.directory / f"{name}.pub"

    def fingerprint(self, name: str) -> str:
        listed = subprocess.run(["ssh-keygen", "-lf", self.public(name)], capture_output=True, text=True, check=True)
        return listed.stdout.split()[1]

    def grant(self, name: str, *words: str, code: int = 0) -> str:
        return self.run("access.grant", "--name", name, "--key", str(self.public(name)), *words, code=code)

    def grant_lab(self) -> str:
        key = self.site.directory / "id_ed25519.pub"
        return self.run("access.grant", "--name", "lab", "--key", str(key))

    def run(self, *words: str, code: int = 0) -> str:
        exit_code, output = self.site.run(*words)
        assert exit_code == code, output
        return output

    def can_log_in(self, name: str, host: Host, *options: str) -> bool:
        return self.ssh(name, host, *options).returncode == 0

    def ssh(self, name: str, host: Host, *options: str, user: str = "deploy") -> subprocess.CompletedProcess[str]:
        known = self.site.directory / "known_hosts"
        fixed = [f"UserKnownHostsFile={known}", "BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"]
        # A reload of sshd closes its port for a moment.
        fixed.append("ConnectionAttempts=10")
        chosen = [part for option in (*fixed, *options) for part in ("-o", option)]
        command = [
            "ssh",
            "-F",
            "/dev/null",
            *chosen,
            "-i",
            str(self.directory / name),
            f"{user}@{host.address}",
            "true",
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def keys(self, host: Host) -> str:
        return host.sh(f"cat {FILE} 2>/dev/null || :").stdout


def test_grant_allows_login_on_every_host_and_revoke_removes_it(team: Team) -> None:
    team.grant_lab()
    team.grant("alice")

    assert [team.can_log_in("alice", host) for host in team.hosts] == [True, True]
    assert "matches the directory" in team.run("access.list")
    for host in team.hosts:
        assert host.sh(f"stat -c '%U %a' {FILE} /home/deploy/.ssh").stdout.split() == ["deploy", "600", "deploy", "700"]
    before = [team.keys(host) for host in team.hosts]
    assert "Nothing to do" in team.run("access.sync")
    assert [team.keys(host) for host in team.hosts] == before

    team.run("access.revoke", "--name", "alice")

    assert [team.can_log_in("alice", host) for host in team.hosts] == [False, False]
    assert team.fingerprint("alice") not in team.run("access.list")


def test_grant_dry_run_changes_neither_the_directory_nor_the_hosts(team: Team) -> None:
    output = team.grant("alice", "--dry-run")

    assert team.fingerprint("alice") in output
    assert "authorized_keys.new" in output
    assert not (team.site.directory / "deploy").exists()
    assert [team.keys(host) for host in team.hosts] == ["", ""]


@pytest.mark.hosts(1)
def test_grant_of_a_private_key_is_refused_and_not_shown(team: Team) -> None:
    team.public("alice")
    private = (team.directory / "alice").read_text()

    output = team.run("access.grant", "--name", "alice", "--key", str(team.directory / "alice"), code=2)

    assert "PRIVATE key" in output
    assert not any(line in output for line in private.splitlines()[1:-1])


def test_list_with_drift_names_it_and_exits_with_1(team: Team) -> None:
    team.grant_lab()
    stranger = team.public("stranger").read_text().strip()
    team.hosts[0].sh(f"echo '{stranger}' >> {FILE}; sed -i '/ lab$/d' {FILE}")

    code, output = team.site.run("access.list", "--json")

    assert code == 1
    hosts = {host["host"]: host for host in json.loads(output)["hosts"]}
    assert {key["name"]: key["standing"] for key in hosts["web1"]["keys"] if key["file"] == FILE} == {
        "lab": "missing",
        "stranger": "not managed",
    }
    assert (hosts["web1"]["drift"], hosts["web2"]["drift"]) == (True, False)


@pytest.mark.hosts(1)
def test_sync_keeps_a_foreign_key_unless_exclusive(team: Team) -> None:
    team.grant_lab()
    stranger = team.public("stranger").read_text().strip()
    team.hosts[0].sh(f"printf '%s\\n' '# by hand' '{stranger}' >> {FILE}")

    assert "not managed, kept: stranger" in team.run("access.sync")
    assert team.can_log_in("stranger", team.hosts[0])
    team.run("access.sync", "--exclusive")

    assert not team.can_log_in("stranger", team.hosts[0])
    assert "# by hand" in team.keys(team.hosts[0])


@pytest.mark.extended
def test_revoke_unreachable_host_is_reported_with_the_command_to_finish(team: Team) -> None:
    team.grant_lab()
    team.grant("alice")
    unreachable = team.hosts[1]
    unreachable.cut_network()
    try:
        output = team.run("access.revoke", "--name", "alice", code=6)
    finally:
        unreachable.restore_network()

    assert f"Next: inv access.sync --env {team.site.lab.name} --hosts web2" in output
    assert [team.can_log_in("alice", host) for host in team.hosts] == [False, True]
    assert "REVOKED" in team.run("access.list", code=1)
    unreachable.sh(f"grep -h alice {FILE} >> /home/deploy/.ssh/kept; cat /home/deploy/.ssh/kept >> {FILE}")
    team.run("access.sync", "--hosts", "web2")
    assert not team.can_log_in("alice", unreachable)


@pytest.mark.hosts(1)
def test_revoke_last_key_is_refused_before_any_change(team: Team) -> None:
    team.grant_lab()
    before = [team.keys(host) for host in team.hosts]

    assert "last key" in team.run("access.revoke", "--name", "lab", "--force", code=3)

    assert [team.keys(host) for host in team.hosts] == before
    assert (team.site.directory / "deploy/authorized_keys" / team.site.lab.name / "lab.pub").exists()


def test_revoke_own_key_needs_force_and_reports_keys_in_other_files(team: Team) -> None:
    team.grant_lab()
    team.grant("alice")
    before = [team.keys(host) for host in team.hosts]

    assert "the key that you log in with" in team.run("access.revoke", "--name", "lab", code=3)
    assert [team.keys(host) for host in team.hosts] == before

    # The lab's key is also in a file of root, which no task may write.
    output = team.run("access.revoke", "--name", "lab", "--force", code=6)
    assert "REVOKED, but still accepted" in output
    assert "/etc/ssh/lab_authorized_keys" in output
    assert [" lab" in team.keys(host) for host in team.hosts] == [False, False]


@pytest.mark.extended
def test_sync_two_environments_on_one_host_keep_a_block_each(team: Team) -> None:
    team.grant_lab()
    team.grant("alice")
    lab = team.site.lab
    copy = team.site.copy(f"{lab.name}-other", hosts=("web1", "web2"))
    try:
        shutil.rmtree(copy.directory / "deploy")
        other = Team(copy, team.directory)
        other.grant("alice")
        other.grant("bob")

        assert [team.keys(host).count("# BEGIN inv access") for host in team.hosts] == [2, 2]
        output = team.run("access.revoke", "--name", "alice", code=6)

        assert f"(block of memoryark {copy.lab.name})" in output
        assert team.can_log_in("alice", team.hosts[0])
        other.run("access.revoke", "--name", "alice")
        assert not team.can_log_in("alice", team.hosts[0])
        assert team.can_log_in("bob", team.hosts[0])
    finally:
        shutil.rmtree(copy.directory)


@pytest.mark.hosts(1)
def test_sync_does_not_follow_links_of_the_deploy_user(team: Team) -> None:
    host = team.hosts[0]
    host.sh(
        "mkdir -p .ssh; ln -sf /etc/ssh/sshd_config .ssh/authorized_keys.new; ln -sf /etc/shadow .ssh/authorized_keys",
        user="deploy",
    )
    before = host.sh("cat /etc/ssh/sshd_config /etc/shadow").stdout

    code, output = team.site.run("access.grant", "--name", "alice", "--key", str(team.public("alice")))

    assert host.sh("cat /etc/ssh/sshd_config /etc/shadow").stdout == before
    assert host.sh("awk -F: '{ print $2 }' /etc/shadow").stdout.strip() not in output
    assert code in (0, 6)


@pytest.mark.hosts(1)
def test_sync_gives_a_directory_owned_by_root_to_the_deploy_user(team: Team) -> None:
    host = team.hosts[0]
    host.sh(f"mkdir -p /home/deploy/.ssh; echo '# by hand' > {FILE}; chown -R root: /home/deploy/.ssh")

    team.grant("alice")

    assert team.can_log_in("alice", host)
    assert host.sh(f"stat -c '%U %a' {FILE} /home/deploy/.ssh").stdout.split() == ["deploy", "600", "deploy", "700"]
    assert team.keys(host).startswith("# by hand\n")


@pytest.mark.hosts(1)
def test_password_login_of_the_deploy_user_is_off_even_where_sshd_allows_it(team: Team) -> None:
    team.public("stranger")
    host = team.hosts[0]
    host.sh(
        "printf '%s yes\\n' PasswordAuthentication KbdInteractiveAuthentication > /etc/ssh/sshd_config.d/00-test.conf"
        " && systemctl reload ssh"
    )
    try:
        assert "(publickey)" in team.ssh("stranger", host).stderr
        assert "password" in team.ssh("stranger", host, user="root").stderr
        assert "Nothing to do" in team.run("setup")
        host.sh("cp -p /etc/ssh/sshd_config.d/memoryark.conf /root/kept.conf")
        host.sh("sed -i /Password/d /etc/ssh/sshd_config.d/memoryark.conf && systemctl reload ssh")
        assert "sshd accepts a password for deploy" in team.run("access.list", code=1)
        team.run("setup")
        assert "(publickey)" in team.ssh("stranger", host).stderr
    finally:
        host.sh(
            "mv /root/kept.conf /etc/ssh/sshd_config.d/memoryark.conf;"
            " rm -f /etc/ssh/sshd_config.d/00-test.conf && systemctl reload ssh"
        )


@pytest.mark.hosts(1)
def test_history_names_the_owner_of_the_key(team: Team) -> None:
    """The deploy of v1 recorded the key with which it logged in."""
    team.grant_lab()

    assert " of lab from " in team.run("history", "--limit", "1")
