"""`inv trust` against real OpenSSH servers, directly and behind a jump host."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError
from rolling_upgrade.features.trust.workflow import trust
from tests.support.project import Project
from tests.support.sshd import Sshd, free_port


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Sshd, Sshd]]:
    """Two servers that let the same key in."""
    made = []
    for name in ("inner", "bastion"):
        made.append(Sshd.start(tmp_path / name))
    inner, bastion = made
    shutil.copy(inner.directory / "user.pub", bastion.directory / "authorized_keys")
    yield inner, bastion
    for server in made:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def site(servers: tuple[Sshd, Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    return Site(Project(tmp_path / "project"), *servers)


class Site:
    """A project whose hosts web1 and web2 are servers on loopback."""

    def __init__(self, project: Project, inner: Sshd, bastion: Sshd) -> None:
        self.project, self.inner, self.bastion = project, inner, bastion
        self.hosts(web1={"port": inner.port}, web2={"port": bastion.port})

    @property
    def known(self) -> Path:
        return self.project.root / "known_hosts"

    def hosts(self, monitoring: dict[str, object] | None = None, **entries: dict[str, object]) -> None:
        hosts = {name: {"address": "127.0.0.1", "user": getpass.getuser(), **entry} for name, entry in entries.items()}
        environment = {"identity_file": str(self.inner.directory / "user"), "hosts": hosts}
        if monitoring:
            environment["monitoring"] = {"address": "127.0.0.1", "user": getpass.getuser(), **monitoring}
        self.project.write("hosts.yaml", yaml.safe_dump({"environments": {"demo": environment}}))

    def behind(self) -> None:
        """web1 is reached through the bastion alone."""
        self.hosts(web1={"port": self.inner.port, "jump": f"{getpass.getuser()}@127.0.0.1:{self.bastion.port}"})

    def trust(self, *, force: bool = False, **options: tuple[str, ...]) -> ExitCode:
        return trust("demo", root=self.project.root, force=force, **options)

    def record(self, server: Sshd, key: str = "host") -> str:
        kind, blob, *_ = (server.directory / f"{key}.pub").read_text().split()
        return f"[127.0.0.1]:{server.port} {kind} {blob}\n"


def fingerprint(server: Sshd, key: str = "host") -> str:
    listed = subprocess.run(
        ["ssh-keygen", "-lf", server.directory / f"{key}.pub"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[1]


def test_trust_unknown_hosts_without_a_terminal_is_refused_and_writes_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="not a terminal"):
        site.trust()

    assert fingerprint(site.inner) in capsys.readouterr().out
    assert not site.known.exists()


def test_trust_forced_records_the_shown_keys_and_a_second_run_changes_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.known.write_text("# mine\nother.test ssh-ed25519 AAAA\n")

    assert site.trust(force=True) == ExitCode.DONE
    expected = "# mine\nother.test ssh-ed25519 AAAA\n" + site.record(site.inner) + site.record(site.bastion)
    assert site.known.read_text() == expected

    assert site.trust() == ExitCode.DONE
    assert "Nothing to do" in capsys.readouterr().out
    assert site.known.read_text() == expected


def test_trust_fingerprints_accept_exactly_those_keys_without_confirmation(site: Site) -> None:
    assert site.trust(fingerprint=(fingerprint(site.inner), fingerprint(site.bastion))) == ExitCode.DONE

    assert site.known.read_text() == site.record(site.inner) + site.record(site.bastion)


def test_trust_fingerprint_that_a_host_does_not_offer_is_refused(site: Site) -> None:
    with pytest.raises(PreflightError, match="web2: it offers no key with the fingerprint"):
        site.trust(fingerprint=(fingerprint(site.inner),), force=True)

    assert not site.known.exists()


def test_trust_fingerprint_that_no_known_host_offers_is_refused(site: Site) -> None:
    site.known.write_text(site.record(site.inner) + site.record(site.bastion))

    with pytest.raises(PreflightError, match="no machine offers"):
        site.trust(fingerprint=(fingerprint(site.inner, "stranger"),))


def test_trust_changed_key_is_refused_with_both_fingerprints_even_when_forced(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.record(site.inner, "stranger")
    site.known.write_text(before)

    with pytest.raises(PreflightError, match=r"web1: its host key CHANGED.*--replace web1"):
        site.trust(force=True)

    shown = capsys.readouterr().out
    assert fingerprint(site.inner) in shown
    assert fingerprint(site.inner, "stranger") in shown
    assert site.known.read_text() == before


def test_trust_changed_key_is_replaced_for_the_named_host(site: Site) -> None:
    site.known.write_text(site.record(site.inner, "stranger") + site.record(site.bastion))

    with pytest.raises(PreflightError, match="web1"):
        site.trust(force=True, replace=("web2",))
    assert site.trust(force=True, replace=("web1",)) == ExitCode.DONE

    assert site.known.read_text() == site.record(site.bastion) + site.record(site.inner)


def test_trust_changed_key_in_another_file_is_refused(site: Site, tmp_path: Path) -> None:
    users = tmp_path / "home/.ssh/known_hosts"
    users.parent.mkdir(parents=True)
    users.write_text(site.record(site.inner, "stranger"))

    with pytest.raises(PreflightError, match=r"ssh-keygen -f .*/home/.ssh/known_hosts -R"):
        site.trust(force=True, replace=("web1",))


def test_trust_revoked_key_is_refused_with_every_option(site: Site) -> None:
    site.known.write_text(f"@revoked * {site.record(site.inner).partition(' ')[2]}")

    with pytest.raises(PreflightError, match="@revoked"):
        site.trust(force=True, replace=("web1",), fingerprint=(fingerprint(site.inner),))


def test_trust_jump_host_login_requires_its_recorded_key(site: Site) -> None:
    site.behind()

    with pytest.raises(ConfigError, match="not a terminal"):
        site.trust()

    assert not [line for line in site.bastion.ended() if "authenticating" in line or "Accepted" in line]


def test_trust_behind_a_jump_host_records_both(site: Site) -> None:
    site.behind()

    assert site.trust(force=True) == ExitCode.DONE

    assert site.known.read_text() == site.record(site.bastion) + site.record(site.inner)


def test_trust_changed_jump_host_is_refused_until_replaced_by_name(site: Site) -> None:
    site.behind()
    site.known.write_text(site.record(site.bastion, "stranger"))
    name = f"127.0.0.1:{site.bastion.port}"

    with pytest.raises(PreflightError, match=f"--replace {name}"):
        site.trust(force=True)
    assert site.trust(force=True, replace=(name,)) == ExitCode.DONE


def test_trust_changed_host_behind_a_jump_host_is_refused(site: Site) -> None:
    site.behind()
    site.known.write_text(site.record(site.bastion) + site.record(site.inner, "stranger"))

    with pytest.raises(PreflightError, match="web1: its host key CHANGED"):
        site.trust(force=True)


def test_trust_unreachable_host_is_reported_and_the_others_are_recorded(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.hosts(web1={"port": site.inner.port}, web2={"port": free_port()})

    assert site.trust(force=True) == ExitCode.PARTLY_DONE

    assert "rolling-upgrade trust --env demo --hosts web2" in capsys.readouterr().out
    assert site.known.read_text() == site.record(site.inner)


def test_trust_without_a_reachable_host_is_refused(site: Site) -> None:
    site.hosts(web1={"port": free_port()})

    assert site.trust(force=True) == ExitCode.REFUSED


def test_trust_invalid_fingerprint_or_unknown_host_is_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="43 characters"):
        site.trust(fingerprint=("SHA256:short",))
    with pytest.raises(ConfigError, match="one of: web1, web2"):
        site.trust(replace=("web3",))


def test_trust_known_hosts_setting_selects_the_file(site: Site) -> None:
    site.project.edit("hosts.yaml", "    identity_file", "    known_hosts: keys/demo\n    identity_file")

    assert site.trust(force=True) == ExitCode.DONE

    assert (site.project.root / "keys/demo").read_text() == site.record(site.inner) + site.record(site.bastion)


def test_trust_monitoring_host_is_recorded_unless_hosts_are_named(site: Site) -> None:
    site.hosts({"port": site.bastion.port}, web1={"port": site.inner.port})
    assert site.trust(hosts=("web1",), force=True) is ExitCode.DONE
    assert site.known.read_text() == site.record(site.inner)

    assert site.trust(force=True) is ExitCode.DONE
    assert site.known.read_text() == site.record(site.inner) + site.record(site.bastion)
