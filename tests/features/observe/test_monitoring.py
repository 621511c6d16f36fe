"""The checks of a monitoring host's resources, with a fake systemd and ss."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine.resource import Resource
from rolling_upgrade.features.observe import files as prometheus
from rolling_upgrade.features.observe import monitoring_host
from tests.support.monitoring import environment
from tests.support.shell import Programs, sh

UNITS = ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")
LOOPBACK = "\n".join(f"LISTEN 0 4096 127.0.0.1:{port} 0.0.0.0:*" for port in (9090, 9093, 9115))


class Host:
    """A host's /etc in a directory, with fake services and sockets."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self._root, self._programs = directory / "etc", programs
        programs.add("systemctl")
        self.listens(LOOPBACK)
        for unit in UNITS:
            self.write(f"default/{unit}", '# --web.listen-address="0.0.0.0:9090"\nARGS=""\n')

    def listens(self, rows: str) -> None:
        self._programs.add("ss", f"cat <<'END'\n{rows}\nEND")

    def write(self, path: str, text: str) -> None:
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).write_text(text, "utf-8")

    def holds(self, condition: str) -> bool:
        moved = condition.replace("/etc/", f"{self._root}/")
        return sh(f"{{\n{moved}\n}} >/dev/null 2>&1", path=self._programs.path).returncode == 0

    def apply(self, resource: Resource) -> None:
        assert resource.apply is not None
        done = sh(resource.apply.text.replace("/etc/", f"{self._root}/"), path=self._programs.path)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def host(tmp_path: Path, programs: Programs) -> Host:
    return Host(tmp_path, programs)


@pytest.fixture
def loopback() -> Resource:
    resources = monitoring_host.resources("shop.production", "", prometheus.heads(), prometheus.parts(environment()))
    return next(resource for resource in resources if resource.id == "loopback")


def test_monitoring_programs_listen_on_loopback_after_the_resource_was_applied(host: Host, loopback: Resource) -> None:
    """A comment with the flag in Debian's defaults does not matter."""
    assert (host.holds(loopback.check), host.holds(loopback.possible)) == (False, True)

    host.apply(loopback)

    assert host.holds(loopback.check)


@pytest.mark.parametrize("row", ["LISTEN 0 4096 *:9093 *:*", "LISTEN 0 4096 [::]:9094 [::]:*"])
def test_monitoring_check_finds_a_program_that_was_not_restarted(host: Host, loopback: Resource, row: str) -> None:
    host.apply(loopback)
    host.listens(f"{LOOPBACK}\n{row}")

    assert not host.holds(loopback.check)


@pytest.mark.parametrize("state", ["is-active", "is-enabled"])
def test_monitoring_check_finds_one_stopped_program(
    host: Host, loopback: Resource, programs: Programs, state: str
) -> None:
    """Source: systemctl(1): for several units, the command succeeds if one of them is on."""
    host.apply(loopback)
    programs.add("systemctl", f'case "$*" in "{state} --quiet prometheus-alertmanager") exit 3 ;; esac')

    assert not host.holds(loopback.check)


def test_monitoring_listen_address_in_the_defaults_must_be_removed_by_hand(host: Host, loopback: Resource) -> None:
    host.apply(loopback)
    host.write("default/prometheus", 'ARGS="--web.listen-address=0.0.0.0:9090"\n')

    assert (host.holds(loopback.check), host.holds(loopback.possible)) == (False, False)


@pytest.mark.parametrize("place", ["", ".staged/", ".aside/was/"])
def test_monitoring_environment_is_removed_only_without_leftovers(host: Host, place: str) -> None:
    (resource,) = monitoring_host.removal("shop.production")
    assert host.holds(resource.check)

    host.write(f"prometheus/rolling/{place}shop.production/receivers.yml", "a secret")

    assert not host.holds(resource.check)
