"""The program that starts the active colors at boot, with a stand-in for Podman."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shell import Programs, sh

BOOT = Path(__file__).parent.parent / "templates/host/boot.sh"
#: `NAME SERVICE COLOR RELEASE` of each container; the flags name blue for `web` and green for `worker`.
CONTAINERS = """\
shop-web-blue web blue r2
shop-worker-green worker green r2
shop-worker-blue worker blue r1
shop-web-green web green r1
shop-api-blue api blue r3
"""


@pytest.fixture
def host(programs: Programs, tmp_path: Path) -> Programs:
    """A host on which the first release of `api` was undone."""
    (tmp_path / "home/live").mkdir(parents=True)
    (tmp_path / "home/live/worker.green").touch()
    (tmp_path / "home/live/web.standby").touch()
    (tmp_path / "home/releases.jsonl").write_text('{"id": "r3", "outcome": "undone"}\n')
    (tmp_path / "containers").write_text(CONTAINERS)
    programs.add("sleep")
    programs.add("podman", 'case "$1 $2" in "ps --all") echo id ;; "container inspect") cat "$here/containers" ;; esac')
    return programs


def boot(host: Programs, home: Path) -> int:
    return sh(
        f"set -- locked\n{BOOT.read_text().replace('home=/var/lib/$app', f'home={home}')}", path=host.path
    ).returncode


def changes(host: Programs) -> list[str]:
    return [f"{call[1]} {call[2]}" for call in host.calls("podman") if call[1] in {"start", "stop"}]


def test_boot_stops_every_idle_color_before_it_starts_an_active_one(host: Programs, tmp_path: Path) -> None:
    """So that the two colors of an exclusive service never run at the same time."""
    assert boot(host, tmp_path / "home") == 0

    assert changes(host) == [
        *("stop shop-worker-blue", "stop shop-web-green", "stop shop-api-blue"),
        *("start shop-web-blue", "start shop-worker-green"),
    ]
    assert not (tmp_path / "home/live/web.standby").exists()


def test_boot_with_a_container_that_does_not_stop_starts_the_others_and_fails(host: Programs, tmp_path: Path) -> None:
    host.add("podman", 'case "$1" in stop) exit 1 ;; ps) echo id ;; container) cat "$here/containers" ;; esac')

    assert boot(host, tmp_path / "home") == 1
    assert "start shop-web-blue" in changes(host)


def test_boot_without_containers_changes_nothing(host: Programs, tmp_path: Path) -> None:
    host.add("podman")

    assert (boot(host, tmp_path / "home"), changes(host)) == (0, [])


def test_boot_waits_a_limited_time_for_an_accessory_and_not_for_a_missing_one(host: Programs, tmp_path: Path) -> None:
    (tmp_path / "home/accessories/db").mkdir(parents=True)
    (tmp_path / "home/accessories/gone").mkdir()
    (tmp_path / "clock").write_text("100\n")
    host.add("cut", f'read -r now < "{tmp_path}/clock"; echo $((now + 50)) > "{tmp_path}/clock"; echo "$now"')
    host.add(
        "podman",
        """case "$*" in
"ps --all"*) echo id ;; "container inspect"*) cat "$here/containers" ;;
"container exists"*gone) exit 1 ;; healthcheck*) exit 1 ;;
esac""",
    )

    assert boot(host, tmp_path / "home") == 1

    started = [name for name in changes(host) if name.startswith("start ")]
    assert started[0].endswith("-accessory-db")
    assert started[1:] == ["start shop-web-blue", "start shop-worker-green"]
    assert len([call for call in host.calls("podman") if call[1] == "healthcheck"]) < 5
