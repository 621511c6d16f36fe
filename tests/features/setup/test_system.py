"""The resources of the operating system: kernel settings, subordinate ids, firewall ports, certificates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Application, Certificate, Firewall, Preparation, Tls
from rolling_upgrade.engine.paths import ROOTED
from rolling_upgrade.engine.resource import Resource, check
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.setup import certificate, firewall, system
from tests.support.certificate import Issued
from tests.support.sample import application
from tests.support.shell import Programs, sh

APP = application()
ROOT = Issued.root()
INTERMEDIATE = ROOT.issue("Intermediate")
LIMITS = Preparation(sysctl=(("fs.file-max", "100000"), ("vm.swappiness", "10")))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory instead of /etc."""
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    return tmp_path / "etc"


def on(text: str | Script, etc: Path) -> str:
    """The text with another directory for /etc."""
    return (text.text if isinstance(text, Script) else text).replace("/etc/", f"{etc}/")


def holds(resource: Resource, etc: Path, programs: Programs) -> bool:
    done = sh(on(check((resource,)), etc), path=programs.path)
    assert done.stdout.startswith(f"{resource.id} "), done.stderr
    return done.stdout.endswith(" ok\n")


def values(programs: Programs, **now: int) -> None:
    """Set the current kernel values; a loaded settings file is copied to `loaded`."""
    rows = "".join(f"{key.replace('__', '.').replace('_', '-')}) echo {value} ;; " for key, value in now.items())
    programs.add("sysctl", f'case $2 in -p) cp "$3" "$here/loaded" ;; *) case $2 in {rows} esac ;; esac')


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ("exit 0", "ok"),
        ('case $3 in *json*) echo "No module named json" >&2; exit 1 ;; esac', "drift"),
        ("exit 1", "hand"),
    ],
    ids=["complete", "minimal", "old"],
)
def test_python_without_its_library_is_installed(body: str, state: str, programs: Programs) -> None:
    programs.add("python3", body)
    programs.add("apt-get")

    assert sh(check((system.python(),)), path=programs.path).stdout == f"python {state}\n"


@pytest.mark.parametrize(
    ("file_max", "swappiness", "written"),
    [
        (9223372036854775807, 60, "vm.swappiness = 10\n"),
        (50_000, 60, "fs.file-max = 100000\nvm.swappiness = 10\n"),
        (100_000, 10, "fs.file-max = 100000\nvm.swappiness = 10\n"),
    ],
)
def test_kernel_higher_limit_is_never_lowered(
    file_max: int, swappiness: int, written: str, etc: Path, programs: Programs
) -> None:
    (resource,) = system.kernel(APP, LIMITS)
    values(programs, fs__file_max=file_max, vm__swappiness=swappiness)
    assert resource.apply is not None
    assert not holds(resource, etc, programs)

    done = sh(on(resource.apply, etc), path=programs.path)

    assert done.returncode == 0, done.stderr
    assert (etc / "sysctl.d/90-shop.conf").read_text() == f"# Made by inv setup.\n{written}"
    values(programs, fs__file_max=max(file_max, 100_000), vm__swappiness=10)
    assert holds(resource, etc, programs)
    values(programs, fs__file_max=max(file_max, 100_000), vm__swappiness=30)
    assert not holds(resource, etc, programs)


def test_kernel_without_settings_removes_its_file(etc: Path, programs: Programs) -> None:
    (resource,) = system.kernel(APP, Preparation())
    assert holds(resource, etc, programs)
    (etc / "sysctl.d/90-shop.conf").write_text("# Made by inv setup.\n")
    assert not holds(resource, etc, programs)
    assert resource.apply is not None
    sh(on(resource.apply, etc))
    assert holds(resource, etc, programs)


@pytest.mark.parametrize(
    ("existing", "first"),
    [("", 100000), ("ann:100000:65536\n", 165536), ("ann:300000:65536\nbob:100000:65536\n", 365536)],
)
def test_user_subordinate_ids_overlap_no_other_user(existing: str, first: int, etc: Path, programs: Programs) -> None:
    (resource,) = system.user("ark")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(existing)
    programs.add("id", "exit 1")
    programs.add("useradd")
    programs.add("usermod")
    assert resource.apply is not None

    done = sh(on(resource.apply, etc), path=programs.path)

    assert done.returncode == 0, done.stderr
    assert [call[1:] for call in programs.calls("usermod")] == [
        ["--password", "*", "ark"],
        ["--add-subuids", f"{first}-{first + 65535}", "ark"],
        ["--add-subgids", f"{first}-{first + 65535}", "ark"],
    ]


def test_user_root_needs_no_resource() -> None:
    assert system.user("root") == ()


class Processes:
    """A directory instead of /proc; a process holds a socket by its inode number."""

    def __init__(self, directory: Path, sshd: Path) -> None:
        self.directory, self.sshd = directory, sshd
        self._rows: list[str] = []
        (directory / "self" / "net").mkdir(parents=True)
        self._link(directory / "self" / "ns" / "pid", "pid:[1]")
        self.listens()

    def listens(self, state: str = "0A", **ports: int) -> None:
        """Note sockets, each under the inode number in its name."""
        for name, port in ports.items():
            inode = name.removeprefix("inode_")
            self._rows.append(f"   0: 00000000:{port:04X} 00000000:0000 {state} 0:0 00:0 0 1000 0 {inode} 1 0")
        (self.directory / "self" / "net" / "tcp").write_text("\n".join(["  sl  local_address", *self._rows]) + "\n")

    def add(self, pid: int, inode: int, program: str = "", ids: str = "0\t0\t0\t0", name: str = "sshd") -> None:
        own = self.directory / str(pid)
        self._link(own / "exe", program or str(self.sshd))
        self._link(own / "fd" / "3", f"socket:[{inode}]")
        self._link(own / "ns" / "pid", "pid:[1]")
        (own / "status").write_text(f"Name:\t{name}\nUid:\t{ids}\nGid:\t0\t0\t0\t0\n")

    def elsewhere(self, pid: int) -> None:
        """Put a process into another namespace."""
        (self.directory / str(pid) / "ns" / "pid").unlink()
        self._link(self.directory / str(pid) / "ns" / "pid", "pid:[2]")

    def _link(self, place: Path, target: str) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


@pytest.fixture
def processes(tmp_path: Path, programs: Programs) -> Processes:
    programs.add("sshd", "printf 'port 2022\\nport 22\\nlistenaddress [::]:2023\\nusepam yes\\n'")
    programs.add("systemctl", 'case "$*" in *ssh.socket*) echo "[::]:2222 (Stream)" ;; esac')
    programs.add("mkdir")
    return Processes(tmp_path / "proc", programs.directory / "sshd")


def opened(programs: Programs, processes: Processes) -> list[str]:
    text = firewall._find_ports(APP, 10022).replace("/proc/", f"{processes.directory}/")
    done = sh(f'set -eu\n{text}\nprintf "%s\\n" "$ports"', path=programs.path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


GIVEN = ["22", "80", "2022", "2023", "2222", "10022"]


@pytest.mark.parametrize("wall", [Firewall.NFTABLES, Firewall.UFW])
def test_firewall_opens_every_port_of_sshd(wall: Firewall, programs: Programs, processes: Processes) -> None:
    processes.listens(inode_71=2200, inode_72=2201, inode_73=25)
    processes.add(900, 71)
    processes.add(901, 72, program=f"{processes.sshd} (deleted)", name="Uid:\t7")

    assert opened(programs, processes) == sorted([*GIVEN, "2200", "2201"], key=int)
    assert all(
        not re.search(r"\b25\b", resource.title) for resource in firewall.resources(APP, Preparation(wall), 10022)
    )


@pytest.mark.parametrize(
    ("program", "ids", "name"),
    [
        ("/home/deploy/sshd", "1000\t1000\t1000\t1000", "sshd"),
        ("", "1000\t1000\t1000\t1000", "sshd"),
        ("", "1000\t0\t0\t0", "sshd"),
        ("/usr/bin/python3", "0\t0\t0\t0", "sshd"),
        ("/usr/bin/python3", "1000\t1000\t1000\t1000", 'sshd",pid=900'),
        ("", "1000\t1000\t1000\t1000", "Uid:\t0\t0\t0\t0"),
        ("/home/deploy/usr/sbin/sshd", "0\t0\t0\t0", "sshd"),
    ],
    ids=["own program", "the system's", "set-user-id", "only a name", "a pid in its name", "ids in its name", "a path"],
)
@pytest.mark.parametrize("port", [443, 8022])
def test_firewall_opens_no_port_of_a_process_that_only_looks_like_sshd(
    port: int, program: str, ids: str, name: str, programs: Programs, processes: Processes
) -> None:
    processes.listens(inode_71=2200, inode_72=port)
    processes.add(900, 71)
    processes.add(4000, 72, program, ids, name)

    assert opened(programs, processes) == sorted([*GIVEN, "2200"], key=int)


def test_firewall_opens_no_port_of_an_sshd_in_a_container_or_without_a_listener(
    programs: Programs, processes: Processes
) -> None:
    processes.listens(inode_71=2200, inode_72=8022)
    processes.listens("01", inode_73=50022)
    processes.add(900, 71)
    processes.add(901, 73)
    processes.add(4000, 72)
    processes.elsewhere(4000)

    assert opened(programs, processes) == sorted([*GIVEN, "2200"], key=int)


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("192.0.2.9", "add rule inet rolling input ip saddr 192.0.2.9 tcp dport 9100 accept"),
        ("2001:db8::9", "add rule inet rolling input ip6 saddr 2001:db8::9 tcp dport 9100 accept"),
    ],
)
def test_firewall_opens_the_port_of_metrics_to_the_monitoring_host_alone(address: str, rule: str) -> None:
    rules = Preparation(Firewall.NFTABLES, node_exporter=True, monitoring_host=address)
    (resource,) = firewall.resources(APP, rules, 22)
    _, ufw = firewall.resources(APP, replace(rules, firewall=Firewall.UFW), 22)
    (without,) = firewall.resources(APP, replace(rules, node_exporter=False), 22)
    assert resource.apply is not None
    assert ufw.apply is not None
    assert without.apply is not None

    assert f"\n{rule}" in resource.apply.text
    assert f"ufw allow from {address} to any port 9100 proto tcp" in ufw.apply.text
    assert resource.title.endswith(f", and 9100 for {address}")
    assert "9100" not in without.apply.text + without.check + without.title


def anywhere(text: str) -> str:
    """The script without its check for root-owned directories."""
    assert ROOTED in text
    return text.replace(ROOTED, "rooted() { :; }")


def test_certificate_without_tls_needs_no_resource() -> None:
    assert certificate.before_site(APP, Preparation(certificate=Certificate.SELF_SIGNED)) == ()


def test_certificate_self_signed_is_valid_and_kept_by_a_second_run(tmp_path: Path, programs: Programs) -> None:
    """tests/engine/test_paths.py tests the check for root-owned directories; this directory belongs to the test."""
    programs.add("systemctl", "exit 3")
    app = replace(APP, tls=Tls(f"{tmp_path}/a.crt", f"{tmp_path}/private/a.key", f"{tmp_path}/chain.crt"))
    (made,) = (item for item in self_signed(app) if item.id == "certificate")
    assert made.apply is not None
    resource = replace(made, check=anywhere(made.check))
    assert not holds(resource, tmp_path, programs)

    done = sh(anywhere(made.apply.text), path=programs.path)

    assert (done.returncode, holds(resource, tmp_path, programs)) == (0, True), done.stderr
    assert ((tmp_path / "private/a.key").stat().st_mode & 0o777) == 0o600
    (named,) = (item for item in self_signed(replace(app, domain="other.test")) if item.id == "certificate")
    assert not holds(replace(named, check=anywhere(named.check)), tmp_path, programs)


def self_signed(app: Application) -> tuple[Resource, ...]:
    return certificate.before_site(app, Preparation(certificate=Certificate.SELF_SIGNED))


@pytest.mark.parametrize(
    ("chain", "missing"),
    [
        ([INTERMEDIATE], set()),
        ([ROOT, INTERMEDIATE], set()),
        ([ROOT], {"chain"}),
        ([Issued.root("Elsewhere")], {"chain"}),
        ([ROOT.issue("Intermediate", expired=True, key=INTERMEDIATE)], {"chain time"}),
    ],
)
def test_intermediates_that_do_not_complete_the_certificate_are_refused(
    chain: list[Issued], missing: set[str], tmp_path: Path, programs: Programs
) -> None:
    paths = (f"{tmp_path}/site.pem", f"{tmp_path}/site.key", f"{tmp_path}/chain.pem")
    leaf = INTERMEDIATE.issue(APP.domain, authority=False)
    for path, text in zip(paths, (leaf.pem, leaf.private, "".join(item.pem for item in chain)), strict=True):
        Path(path).write_text(text)

    found = certificate.before_site(replace(APP, tls=Tls(*paths)), Preparation(certificate=Certificate.FILES))

    checks = [item for item in found if item.apply is None and not item.id.startswith("place")]
    assert {item.id for item in checks} >= {"certificate", "certificate key", "chain", "chain time"}
    refused = {item.id for item in checks if not holds(replace(item, check=anywhere(item.check)), tmp_path, programs)}
    assert refused == missing


def test_site_without_intermediates_has_no_units_that_join_them() -> None:
    for tls in (None, Tls("/c", "/k")):
        (resource,) = certificate.after_site(replace(APP, tls=tls), Preparation())
        assert resource.title == "no shop-certificate.path"
    assert certificate.after_site(replace(APP, tls=Tls("/c", "/k", "/chain")), Preparation()) == ()
