"""The lab: up, up again, after a crash, beside another lab, down, and on an unsuitable machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

import lab
from lab import laboratory as laboratories
from lab import machine as machines
from lab.images import TAGS
from lab.machine import NAMESPACE, PROGRAMS, labelled
from lab.network import SUBNETS, free_subnet
from rolling_upgrade.config import load
from rolling_upgrade.errors import ConfigError, PreflightError

ExtraLab = Callable[..., lab.Lab]


def over_ssh(laboratory: lab.Lab, host: lab.Host, script: str, user: str = "deploy") -> str:
    """Run a script over SSH as an operator does: strict host keys, the lab's key, no configuration."""
    options = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    options += [
        "-o",
        "ConnectTimeout=3",
        "-o",
        f"UserKnownHostsFile={laboratory.root / 'known_hosts'}",
        "-o",
        "IdentitiesOnly=yes",
    ]
    key = str(laboratory.root / "id_ed25519")
    command = ["ssh", *options, "-i", key, f"{user}@{host.address}", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def started_at(laboratory: lab.Lab) -> list[str]:
    """Return the start time of each container of the lab."""
    names = [host.container for host in laboratory.machines]
    asked = laboratory.machine.podman("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *names)
    return asked.stdout.splitlines()


def test_up_on_a_running_lab_changes_nothing(laboratory: lab.Lab, lab_name: str) -> None:
    before = started_at(laboratory)
    settings = (laboratory.root / f"{lab_name}.env").read_text()
    assert lab.up(2, laboratory_release(laboratory), lab_name) == laboratory
    assert started_at(laboratory) == before
    assert (laboratory.root / f"{lab_name}.env").read_text() == settings


def laboratory_release(laboratory: lab.Lab) -> str:
    """Return the Debian release in the image's name."""
    return laboratory.image.rpartition("-")[2].partition(":")[0]


def test_up_writes_an_environment_that_loads_without_a_warning(laboratory: lab.Lab, lab_name: str) -> None:
    environment = load(lab_name, root=laboratories.PROJECT)
    assert [(target.name, target.address) for target in environment.targets] == [
        (host.name, host.address) for host in laboratory.hosts
    ]
    assert environment.warnings == ()


def test_host_accepts_both_users_only_by_key(fresh_host: lab.Host, laboratory: lab.Lab) -> None:
    assert over_ssh(laboratory, fresh_host, "id -un") == "deploy\n"
    assert over_ssh(laboratory, fresh_host, "id -un", user="root") == "root\n"
    assert "passwordauthentication no" in fresh_host.sh("sshd -T").stdout


def test_host_starts_without_files_of_setup(fresh_host: lab.Host) -> None:
    assert fresh_host.sh("sudo -n true", user="deploy", check=False).returncode != 0
    assert fresh_host.sh("ls /var/lib/systemd/linger 2>/dev/null; ls /home/deploy", check=False).stdout == ""


def test_host_boots_without_failed_units(fresh_host: lab.Host) -> None:
    assert fresh_host.sh("systemctl list-units --failed --plain --no-legend").stdout == ""
    assert fresh_host.sh("systemctl is-system-running").stdout == "running\n"
    assert fresh_host.sh("systemctl is-active nginx ssh").stdout == "active\nactive\n"


def test_host_has_its_own_control_groups(fresh_lab: lab.Lab) -> None:
    first, second = fresh_lab.hosts
    find = "find /sys/fs/cgroup -name only-here.service"
    first.sh("systemd-run --quiet --unit only-here sleep 60")
    assert first.sh(find).stdout != ""
    assert second.sh(find).stdout == ""


def test_host_runs_an_application_image_rootless(fresh_host: lab.Host, laboratory: lab.Lab) -> None:
    fresh_host.sh("loginctl enable-linger deploy")
    script = """
        podman run --detach --name b --publish 127.0.0.1:18080:8080 registry:5000/memoryark/backend:v2 2>/dev/null
        curl -fsS --retry 50 --retry-all-errors --retry-delay 1 http://127.0.0.1:18080/api/health
        podman info --format '{{.Store.GraphDriverName}}'
    """
    answer = over_ssh(laboratory, fresh_host, script)
    assert '"version": "v2"' in answer
    assert answer.endswith("overlay\n")


def test_registry_has_every_tag_of_both_services(laboratory: lab.Lab) -> None:
    digests = {
        (service, tag): laboratory.registry.digest(service, tag) for service in ("backend", "frontend") for tag in TAGS
    }
    assert all(digests.values())
    assert len(set(digests.values())) == len(digests)


def test_registry_restarted_answers(laboratory: lab.Lab) -> None:
    laboratory.registry.stop()
    with pytest.raises(OSError, match="refused"):
        laboratory.registry.digest("backend", "v1")
    laboratory.registry.start()
    assert laboratory.registry.digest("backend", "v1").startswith("sha256:")


@pytest.mark.parametrize("event", ["reboot", "power_cut"])
def test_host_after_a_boot_keeps_its_files_and_key(fresh_host: lab.Host, laboratory: lab.Lab, event: str) -> None:
    fresh_host.sh("echo kept >/home/deploy/a; echo kept >/var/lib/b; echo lost >/run/c; sync")
    getattr(fresh_host, event)()
    assert over_ssh(laboratory, fresh_host, "cat a /var/lib/b; ls /run/c 2>&1 || true").startswith("kept\nkept\nls: ")


def test_reset_host_is_empty_and_keeps_its_key(fresh_host: lab.Host, laboratory: lab.Lab) -> None:
    fresh_host.sh("touch /home/deploy/a /var/lib/b /var/lib/containers/c")
    laboratory.reset_host(fresh_host.name)
    assert (
        over_ssh(laboratory, fresh_host, "ls /home/deploy/a /var/lib/[b] /var/lib/containers/c 2>/dev/null || true")
        == ""
    )


def test_restored_host_has_its_saved_disks(fresh_host: lab.Host, laboratory: lab.Lab) -> None:
    fresh_host.sh("echo kept | tee /home/deploy/a /var/lib/b /var/lib/containers/c; rm /etc/motd")
    fresh_host.save()
    fresh_host.sh("echo changed >/home/deploy/a; rm /var/lib/b /var/lib/containers/c; touch /etc/motd /etc/more; sync")
    fresh_host.restore()
    look = "cat a /var/lib/b /var/lib/containers/c; ls /etc/motd /etc/more 2>/dev/null || true"
    assert over_ssh(laboratory, fresh_host, look) == "kept\nkept\nkept\n"
    assert laboratory.reset_host(fresh_host.name).is_saved() is False


def test_cut_network_makes_the_host_silent_until_restored(fresh_host: lab.Host, laboratory: lab.Lab) -> None:
    fresh_host.cut_network()
    with pytest.raises(AssertionError, match="timed out"):
        over_ssh(laboratory, fresh_host, "true")
    fresh_host.restore_network()
    assert over_ssh(laboratory, fresh_host, "echo back") == "back\n"


def test_up_after_a_crash_repairs_the_lab(extra_lab: ExtraLab) -> None:
    crashed = extra_lab(2)
    one, two = crashed.hosts
    one.sh("echo kept >/home/deploy/a; sync")
    one.machine.podman("kill", one.container)
    two.machine.podman("rm", "--force", "--time", "0", two.container)
    (crashed.root / "known_hosts").write_text("half")
    (crashed.root / "host_keys" / "web2.pub").unlink()
    repaired = extra_lab(2)
    assert over_ssh(repaired, repaired.hosts[0], "cat a") == "kept\n"
    assert over_ssh(repaired, repaired.hosts[1], "hostname") == "web2\n"


def test_up_with_fewer_hosts_removes_the_rest(extra_lab: ExtraLab) -> None:
    extra_lab(2)
    smaller = extra_lab(1)
    assert [line.host for line in lab.status() if line.lab == smaller.name] == ["web1", "registry"]


def test_up_beside_another_lab_shares_nothing(laboratory: lab.Lab, extra_lab: ExtraLab) -> None:
    other = extra_lab(1)
    nets = {IPv4Network(f"{each.hosts[0].address}/24", strict=False) for each in (laboratory, other)}
    assert len(nets) == 2
    assert {host.container for host in laboratory.machines}.isdisjoint(host.container for host in other.machines)
    assert other.hosts[0].sh("getent hosts registry").stdout.split()[0] == other.registry.host.address


def test_down_removes_everything(extra_lab: ExtraLab) -> None:
    gone = extra_lab(1)
    lab.down(gone.name)
    assert labelled(gone.machine, "ps", gone.id) == []
    assert labelled(gone.machine, "network", gone.id) == []
    assert gone.id not in gone.machine.podman("volume", "ls").stdout
    assert not gone.root.exists()
    assert gone.name not in {line.lab for line in lab.status()}


def test_down_without_a_lab_is_no_error(lab_name: str) -> None:
    output: list[str] = []
    lab.down(f"{lab_name}-none", log=output.append)
    assert output == [f"Lab {lab_name}-none is down: 0 containers and 0 volumes removed"]


def test_status_names_every_host_with_its_state(laboratory: lab.Lab, lab_name: str) -> None:
    found = {(line.host, line.role, line.address, line.state) for line in lab.status() if line.lab == lab_name}
    assert found == {
        *((host.name, "host", host.address, "running") for host in laboratory.hosts),
        ("registry", "registry", laboratory.registry.host.address, "running"),
    }


def test_shell_command_logs_in_to_the_host(laboratory: lab.Lab, lab_name: str) -> None:
    command = laboratories.shell_command(lab_name, "web2")
    done = subprocess.run([*command, "hostname; id -un"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "web2\ndeploy\n"


def test_shell_command_for_an_unknown_host_lists_the_known_ones(laboratory: lab.Lab, lab_name: str) -> None:
    with pytest.raises(ConfigError, match=f"{lab_name}/web1"):
        laboratories.shell_command(lab_name, "web9")
    assert laboratory.hosts


@pytest.mark.parametrize(
    "arguments",
    [(0, "trixie", "ok"), (33, "trixie", "ok"), (1, "sid", "ok"), (1, "trixie", "Not ok"), (1, "trixie", "a/b")],
)
def test_up_with_an_invalid_argument_exits_with_2(arguments: tuple[int, str, str]) -> None:
    with pytest.raises(ConfigError):
        lab.up(*arguments)


def test_up_with_missing_programs_lists_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_SEARCH", "/nonexistent")
    with pytest.raises(PreflightError) as refused:
        lab.up(1, "trixie", "never")
    assert all(f"package {package}" in str(refused.value) for package in PROGRAMS)
    assert "make setup" in str(refused.value)
    assert int(refused.value.exit_code) == 3


def test_up_without_root_or_sudo_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PreflightError, match="root, or sudo"):
        lab.up(1, "trixie", "never")


def test_missing_programs_are_installed_by_setup() -> None:
    assert set(PROGRAMS) <= set(lab.packages)


def test_namespace_is_created_once_and_hides_the_mount(laboratory: lab.Lab, tmp_path: Path) -> None:
    hidden, places = tmp_path / "hidden", tmp_path / "places"
    hidden.mkdir()
    enter = f"""
        mount -t tmpfs hidden '{hidden}'
        sh -c "$1" sh '{places}' '{hidden}'; sh -c "$1" sh '{places}' '{hidden}'
        mountpoint -q '{hidden}' && echo mounted outside
        nsenter --mount='{places}/namespace' mountpoint -q '{hidden}' || echo hidden inside
    """
    done = laboratory.machine.run("unshare", "--mount", "sh", "-c", enter, "sh", NAMESPACE)
    assert done.stdout.splitlines() == ["made", "mounted outside", "hidden inside"]


def test_free_subnet_is_the_first_that_overlaps_nothing() -> None:
    assert free_subnet([SUBNETS[0], IPv4Network("10.213.2.128/25")]) == SUBNETS[1]


def test_free_subnet_with_none_left_is_an_error() -> None:
    with pytest.raises(PreflightError, match="No free subnet"):
        free_subnet([IPv4Network("10.0.0.0/8")])


def test_limits_with_the_capability_are_the_defaults_of_podman() -> None:
    assert machines.limits("000001ffffffffff", "1048576") == ()


def test_limits_without_the_capability_stay_below_the_hard_ones() -> None:
    assert machines.limits("000001fffeffffff", "4096")[:2] == ("--ulimit", "nofile=4096:4096")
