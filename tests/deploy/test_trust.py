"""Host keys on real hosts: recorded by `inv trust`, refused before login where they are unknown or changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.host import Host
from tests.deploy.conftest import Site

pytestmark = pytest.mark.xdist_group("access")


def fingerprint(public: Path) -> str:
    listed = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True)
    return listed.stdout.split()[1]


def key_of(site: Site, host: Host) -> Path:
    return site.folder / "host_keys" / f"{host.name}.pub"


def record(site: Site, host: Host) -> str:
    return f"{host.address} {' '.join(key_of(site, host).read_text().split()[:2])}\n"


def test_trust_by_fingerprint_makes_hosts_usable(site: Site) -> None:
    (site.folder / "known_hosts").unlink()
    code, output = site.run("status")
    assert (code, "inv trust" in output) == (1, True)
    code, output = site.run("trust")
    assert (code, "not a terminal" in output) == (2, True)
    assert not (site.folder / "known_hosts").exists()

    words = [word for host in site.lab.hosts for word in ("--fingerprint", fingerprint(key_of(site, host)))]
    code, output = site.run("trust", *words)

    assert code == 0, output
    assert (site.folder / "known_hosts").read_text() == "".join(record(site, host) for host in site.lab.hosts)
    assert site.run("status")[0] == 0
    code, output = site.run("trust")
    assert (code, "Nothing to do" in output) == (0, True)


def test_trust_changed_host_key_is_refused_by_every_task_until_it_is_replaced(site: Site) -> None:
    first, second = site.lab.hosts
    known = site.folder / "known_hosts"
    changed = record(site, first).replace(record(site, first).split()[2], record(site, second).split()[2])
    known.write_text(changed + record(site, second))

    code, output = site.run("trust", "--force")
    assert code == 3, output
    assert fingerprint(key_of(site, first)) in output
    assert fingerprint(key_of(site, second)) in output
    assert known.read_text() == changed + record(site, second)
    before = first.sh("journalctl -u ssh --no-pager | grep -c Accepted || :").stdout
    assert site.deploy("v2", "--force")[0] == 3
    assert first.sh("journalctl -u ssh --no-pager | grep -c Accepted || :").stdout == before

    code, output = site.run("trust", "--force", "--replace", "web1")
    assert code == 0, output
    assert known.read_text() == record(site, second) + record(site, first)


def test_trust_host_behind_a_jump_host(site: Site) -> None:
    first, second = site.lab.hosts
    site.edit_hosts(web2={"jump": f"deploy@{first.address}"})
    (site.folder / "known_hosts").unlink()

    code, output = site.run("trust", "--hosts", "web2", "--fingerprint", fingerprint(key_of(site, second)))
    assert code == 3, output
    assert f"{first.address}: it offers no key with the fingerprint" in output
    assert not (site.folder / "known_hosts").exists()

    code, output = site.run("trust", "--force", "--hosts", "web2")
    assert code == 0, output
    assert (site.folder / "known_hosts").read_text() == record(site, first) + record(site, second)
    code, output = site.run("status", "--hosts", "web2")
    assert code == 0, output
    (site.folder / "known_hosts").write_text(record(site, first))
    assert site.run("status", "--hosts", "web2")[0] == 1
