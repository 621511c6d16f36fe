"""Items of the system itself: kernel settings that only rise, ids that overlap nobody's, ports that stay open."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fabfile.commands import certificate, firewall, system
from fabfile.commands.item import Item, check
from fabfile.commands.shell import Script
from fabfile.model import Certificate, Firewall, Preparation, Tls
from tests.commands.running import Programs, sh
from tests.commands.sample import application

APP = application()
LIMITS = Preparation(sysctl=(("fs.file-max", "100000"), ("vm.swappiness", "10")))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory in the place of /etc."""
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    return tmp_path / "etc"


def on(text: str | Script, etc: Path) -> str:
    """The text with /etc elsewhere."""
    return (text.text if isinstance(text, Script) else text).replace("/etc/", f"{etc}/")


def holds(item: Item, etc: Path, programs: Programs) -> bool:
    done = sh(on(check((item,)), etc), path=programs.path)
    assert done.stdout.startswith(f"{item.id} "), done.stderr
    return done.stdout.endswith(" ok\n")


def values(programs: Programs, **now: int) -> None:
    """What the kernel says at this moment; what is loaded is kept in a file."""
    rows = "".join(f"{key.replace('__', '.').replace('_', '-')}) echo {value} ;; " for key, value in now.items())
    programs.add("sysctl", f'case $2 in -p) cp "$3" "$here/loaded" ;; *) case $2 in {rows} esac ;; esac')


@pytest.mark.parametrize(
    ("file_max", "swappiness", "written"),
    [
        (9223372036854775807, 60, "vm.swappiness = 10\n"),
        (50_000, 60, "fs.file-max = 100000\nvm.swappiness = 10\n"),
        (100_000, 10, "fs.file-max = 100000\nvm.swappiness = 10\n"),
    ],
)
def test_kernel_limit_that_is_higher_is_never_lowered_not_at_the_next_boot_either(
    file_max: int, swappiness: int, written: str, etc: Path, programs: Programs
) -> None:
    (item,) = system.kernel(APP, LIMITS)
    values(programs, fs__file_max=file_max, vm__swappiness=swappiness)
    assert item.apply is not None
    assert not holds(item, etc, programs)

    done = sh(on(item.apply, etc), path=programs.path)

    assert done.returncode == 0, done.stderr
    assert (etc / "sysctl.d/90-shop.conf").read_text() == f"# Made by inv setup.\n{written}"
    values(programs, fs__file_max=max(file_max, 100_000), vm__swappiness=10)
    assert holds(item, etc, programs)
    values(programs, fs__file_max=max(file_max, 100_000), vm__swappiness=30)
    assert not holds(item, etc, programs)


def test_kernel_without_settings_takes_its_file_away(etc: Path, programs: Programs) -> None:
    (item,) = system.kernel(APP, Preparation())
    assert holds(item, etc, programs)
    (etc / "sysctl.d/90-shop.conf").write_text("# Made by inv setup.\n")
    assert not holds(item, etc, programs)
    assert item.apply is not None
    sh(on(item.apply, etc))
    assert holds(item, etc, programs)


@pytest.mark.parametrize(
    ("there", "first"),
    [("", 100000), ("ann:100000:65536\n", 165536), ("ann:300000:65536\nbob:100000:65536\n", 365536)],
)
def test_user_ids_overlap_nobodys(there: str, first: int, etc: Path, programs: Programs) -> None:
    (item,) = system.user("ark")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(there)
    programs.add("id", "exit 1")
    programs.add("useradd")
    programs.add("usermod")
    assert item.apply is not None

    done = sh(on(item.apply, etc), path=programs.path)

    assert done.returncode == 0, done.stderr
    assert [call[1:] for call in programs.calls("usermod")] == [
        ["--password", "*", "ark"],
        ["--add-subuids", f"{first}-{first + 65535}", "ark"],
        ["--add-subgids", f"{first}-{first + 65535}", "ark"],
    ]


def test_user_root_needs_neither_user_nor_ids() -> None:
    assert system.user("root") == ()


@pytest.mark.parametrize("wall", [Firewall.NFTABLES, Firewall.UFW])
def test_firewall_opens_whatever_sshd_listens_on(wall: Firewall, programs: Programs, etc: Path) -> None:
    programs.add("sshd", "printf 'port 2022\\nport 22\\nusepam yes\\n'")
    programs.add(
        "ss", "echo 'LISTEN 0 128 [::]:2200 [::]:* users:((\"sshd\",pid=1,fd=3))'; echo 'LISTEN 0 1 0.0.0.0:25 *'"
    )
    programs.add("systemctl", 'case "$*" in *ssh.socket*) echo "[::]:2222 (Stream)" ;; esac')
    programs.add("mkdir")
    text = firewall._find_ports(APP, 10022)

    done = sh(f'{text}\nprintf "%s\\n" "$ports"', path=programs.path)

    assert done.stdout.split() == ["22", "80", "2022", "2200", "2222", "10022"]
    assert all(not re.search(r"\b25\b", item.title) for item in firewall.items(APP, Preparation(wall), 10022))


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("192.0.2.9", "add rule inet rolling input ip saddr 192.0.2.9 tcp dport 9100 accept"),
        ("2001:db8::9", "add rule inet rolling input ip6 saddr 2001:db8::9 tcp dport 9100 accept"),
    ],
)
def test_firewall_opens_the_port_of_metrics_to_the_monitoring_host_alone(address: str, rule: str) -> None:
    wanted = Preparation(Firewall.NFTABLES, node_exporter=True, monitoring_host=address)
    (item,) = firewall.items(APP, wanted, 22)
    _, ufw = firewall.items(APP, replace(wanted, firewall=Firewall.UFW), 22)
    (without,) = firewall.items(APP, replace(wanted, node_exporter=False), 22)
    assert item.apply is not None
    assert ufw.apply is not None
    assert without.apply is not None

    assert f"\n{rule}" in item.apply.text
    assert f"ufw allow from {address} to any port 9100 proto tcp" in ufw.apply.text
    assert item.title.endswith(f", and 9100 for {address}")
    assert "9100" not in without.apply.text + without.check + without.title


def test_certificate_of_plain_http_is_nobodys_business() -> None:
    assert certificate.before_site(APP, Preparation(certificate=Certificate.SELF_SIGNED)) == ()


def test_certificate_made_here_fits_lasts_and_is_left_alone_the_second_time(tmp_path: Path, programs: Programs) -> None:
    programs.add("systemctl", "exit 3")
    app = replace(APP, tls=Tls(f"{tmp_path}/a.crt", f"{tmp_path}/private/a.key", f"{tmp_path}/chain.crt"))
    (item,) = certificate.before_site(app, Preparation(certificate=Certificate.SELF_SIGNED))
    assert item.apply is not None
    assert not holds(item, tmp_path, programs)

    done = sh(item.apply.text, path=programs.path)

    assert (done.returncode, holds(item, tmp_path, programs)) == (0, True), done.stderr
    assert ((tmp_path / "private/a.key").stat().st_mode & 0o777) == 0o600
    named = certificate.before_site(replace(app, domain="other.test"), Preparation(certificate=Certificate.SELF_SIGNED))
    assert not holds(named[0], tmp_path, programs)
