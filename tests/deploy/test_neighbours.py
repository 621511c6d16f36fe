"""Two applications on one host, an additional service, and another application: each needs only configuration."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import PROJECT, TASK_SECONDS, Site, add_service, fingerprint
from tests.support.project import MEMORYARK

_OTHER = {
    "APP_NAME": "notes",
    "DOMAIN_NAME": "notes.lab.test",
    "BACKEND_PORT": "8090",
    "FRONTEND_PORT": "7011",
    "DATABASE_PATH": "/home/deploy/notes/data/notes.db",
    "DATABASE_BACKUP_PATH": "/home/deploy/notes/backups",
    "UPLOADS_PATH": "/home/deploy/notes/uploads",
}


@pytest.fixture
def neighbour(site: Site) -> Iterator[Site]:
    """A second environment on the same host with another APP_NAME, other ports and other paths."""
    other = site.copy(f"{site.lab.name}-notes")
    other.edit_env(**_OTHER)
    yield other
    shutil.rmtree(other.directory)


@pytest.mark.extended
def test_second_application_on_a_host_leaves_the_first_unchanged(site: Site, neighbour: Site) -> None:
    host = site.lab.hosts[0]
    before = {row for row in fingerprint(host).splitlines() if "memoryark" in row}
    for words in (("setup",), ("deploy", "--tag", "v2")):
        neighbour.run_ok(*words)
    assert neighbour.version(host, "notes.lab.test") == "v2"
    assert site.versions() == ["v1"]
    assert before <= set(fingerprint(host).splitlines())
    site.run_ok("status")
    host.sh("podman rm -f -t 1 $(podman ps -aq --filter label=rolling.app=notes)", user="deploy")


def test_third_service_needs_setup_for_its_port(site: Site) -> None:
    add_service(site, "help", 7002)
    code, output = site.run("deploy", "--hosts", "web1")
    assert (code, "does not grant memoryark the loopback ports 7002, 17002, 27002" in output) == (3, True), output
    site.run_ok("setup", "--hosts", "web1")
    site.run_ok("deploy", "--hosts", "web1")
    host = site.lab.hosts[0]
    assert host.sh("curl -fs http://127.0.0.1:7002/health").stdout
    assert site.version(host) == "v1"
    host.sh("podman rm -f -t 1 $(podman ps -aq --filter label=rolling.service=help)", user="deploy")


@pytest.fixture
def clone(site: Site, tmp_path: Path) -> Path:
    """A fresh clone of this project with the example configuration."""
    shutil.copytree(MEMORYARK, tmp_path, dirs_exist_ok=True)
    for name in ("rolling_upgrade", "fabfile", "templates"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tasks.py", ".gitignore"):
        shutil.copy(PROJECT / name, tmp_path / name)
    shutil.copy(site.directory / "known_hosts", tmp_path / "known_hosts")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=ann", "-c", "user.email=ann@lab.test"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "as shipped"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_init_configuration_deploys_another_application(site: Site, clone: Path) -> None:
    """The application beside it stays unchanged."""
    host = site.lab.hosts[0]
    before = {row for row in fingerprint(host).splitlines() if "memoryark" in row}

    def task(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=clone,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TASK_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    service = "page=registry:5000/memoryark/frontend:v2:7001"
    task("init", "--app", "shop", "--domain", "shop.lab.test", "--service", service, "--host", f"web1={host.address}")
    for name, old, new in (  # the lab's key, and a short bake; the service has an assigned port
        ("hosts.yaml", "    hosts:", f"    identity_file: {site.directory}/id_ed25519\n    hosts:"),
        ("hosts.yaml", "    hosts:", "    rollout: {bake_seconds: 1}\n    hosts:"),
    ):
        text = (clone / name).read_text()
        assert old in text
        (clone / name).write_text(text.replace(old, new))
    env = ("--env", "production")
    assert "No errors, 0 warnings" in task("config.check", *env, "--strict")
    keys = clone / "deploy/authorized_keys/production"
    keys.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.directory / "id_ed25519.pub", keys / "ann.pub")
    task("setup", *env, "--force")
    task("deploy", *env, "--force")
    try:
        served = host.sh("curl -fsS -H 'Host: shop.lab.test' http://127.0.0.1/").stdout
        assert "v2" in served
        assert "v2" in task("status", *env)
        assert site.versions() == ["v1"]
        assert before <= set(fingerprint(host).splitlines())
        site.run_ok("status")
    finally:
        task("teardown", *env, "--data", "--confirm", "shop")
