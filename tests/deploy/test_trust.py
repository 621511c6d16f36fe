"""Host keys of real hosts: `inv trust` records them; unknown and changed keys are refused before a login."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.host import Host
from tests.deploy.conftest import Site

pytestmark = pytest.mark.hosts(2)


def fingerprint(public: Path) -> str:
    listed = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True)
    return listed.stdout.split()[1]


def host_key(site: Site, host: Host) -> Path:
    return site.directory / "host_keys" / f"{host.name}.pub"


def known_hosts_line(site: Site, host: Host) -> str:
    return f"{host.address} {' '.join(host_key(site, host).read_text().split()[:2])}\n"


def test_trust_by_fingerprint_makes_hosts_usable(site: Site) -> None:
    (site.directory / "known_hosts").unlink()
    code, output = site.run("status")
    assert (code, "inv trust" in output) == (1, True)
    code, output = site.run("trust")
    assert (code, "not a terminal" in output) == (2, True)
    assert not (site.directory / "known_hosts").exists()

    words = [word for host in site.lab.hosts for word in ("--fingerprint", fingerprint(host_key(site, host)))]
    code, output = site.run("trust", *words)

    assert code == 0, output
    assert (site.directory / "known_hosts").read_text() == "".join(
        known_hosts_line(site, host) for host in site.lab.hosts
    )
    site.run_ok("status")
    code, output = site.run("trust")
    assert (code, "Nothing to do" in output) == (0, True)


def test_trust_changed_host_key_is_refused_by_every_task_until_it_is_replaced(site: Site) -> None:
    first, second = site.lab.hosts
    known = site.directory / "known_hosts"
    changed = known_hosts_line(site, first).replace(
        known_hosts_line(site, first).split()[2], known_hosts_line(site, second).split()[2]
    )
    known.write_text(changed + known_hosts_line(site, second))

    code, output = site.run("trust", "--force")
    assert code == 3, output
    assert fingerprint(host_key(site, first)) in output
    assert fingerprint(host_key(site, second)) in output
    assert known.read_text() == changed + known_hosts_line(site, second)
    before = first.sh("journalctl -u ssh --no-pager | grep -c Accepted || :").stdout
    assert site.deploy("v2", "--force")[0] == 3
    assert first.sh("journalctl -u ssh --no-pager | grep -c Accepted || :").stdout == before

    site.run_ok("trust", "--force", "--replace", "web1")
    assert known.read_text() == known_hosts_line(site, second) + known_hosts_line(site, first)


@pytest.mark.extended
def test_trust_host_behind_a_jump_host(site: Site) -> None:
    first, second = site.lab.hosts
    site.edit_hosts(web2={"jump": f"deploy@{first.address}"})
    (site.directory / "known_hosts").unlink()

    code, output = site.run("trust", "--hosts", "web2", "--fingerprint", fingerprint(host_key(site, second)))
    assert code == 3, output
    assert f"{first.address}: it offers no key with the fingerprint" in output
    assert not (site.directory / "known_hosts").exists()

    site.run_ok("trust", "--force", "--hosts", "web2")
    assert (site.directory / "known_hosts").read_text() == known_hosts_line(site, first) + known_hosts_line(
        site, second
    )
    site.run_ok("status", "--hosts", "web2")
    (site.directory / "known_hosts").write_text(known_hosts_line(site, first))
    assert site.run("status", "--hosts", "web2")[0] == 1
