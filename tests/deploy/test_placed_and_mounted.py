"""Options, mounts and secrets of containers on a real host, and services that run on some hosts only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.host import Host
from tests.deploy.conftest import Site

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHlf{}\n  it's $(not) run\n-----END PRIVATE KEY-----\n"
OPTIONS = {
    "user": "1000:1000",
    "volumes": ["media:/app/media"],
    "tmpfs": "/cache:size=16MB,mode=1777",
    "shm_size": "32MB",
    "read_only": True,
    "ulimits": {"nofile": {"soft": 1024, "hard": 2048}},
    "add_host": {"db": "10.0.0.5"},
    "labels": {"team": "web team"},
    "secrets": ["SIGNING_KEY", "SIGNING_KEY:/etc/app.pem"],
}
#: What a process in the container sees, as JSON.
LOOK = """
import json, os, resource, socket

def writes(path):
    try:
        with open(path + '/written', 'w') as file:
            file.write('x')
        return True
    except OSError:
        return False

size = lambda path: os.statvfs(path).f_blocks * os.statvfs(path).f_frsize >> 20
print(json.dumps({
    'ids': [os.getuid(), os.getgid()],
    'files': resource.getrlimit(resource.RLIMIT_NOFILE),
    'db': socket.gethostbyname('db'),
    'writes': [path for path in ('/', '/tmp', '/cache', '/app/media', '/app/own') if writes(path)],
    'MB': [size('/cache'), size('/dev/shm')],
    'variable': os.environ['SIGNING_KEY'],
    'secrets': [open(path).read() for path in ('/run/secrets/SIGNING_KEY', '/etc/app.pem')],
}))
"""


def edit_service(site: Site, name: str, **values: object) -> None:
    with site.edited_services() as content:
        next(service for service in content["services"] if service["name"] == name).update(values)


def set_key(site: Site, value: str) -> None:
    kept = site.env_file.read_text().partition("SIGNING_KEY=")[0]
    site.env_file.write_text(f'{kept}SIGNING_KEY="{value}"\n')


def look(site: Site, host: Host) -> dict[str, Any]:
    name = site.running_container(host, "frontend")
    done = host.sh(f"podman exec -i {name} python3 - <<'END'\n{LOOK}\nEND", user="deploy")
    return dict(json.loads(done.stdout))


def test_options_mount_owner_and_secrets_of_several_lines(site: Site) -> None:
    """A rollback brings back the secret of its release, also in a new container."""
    (host,) = site.lab.hosts
    before, after = PEM.format("before"), PEM.format("after")
    mount = {"source": "/home/deploy/own", "target": "/app/own"}
    host.sh("mkdir /home/deploy/own", user="deploy")
    set_key(site, before)
    edit_service(site, "frontend", **OPTIONS, env=["SIGNING_KEY"], mounts=[mount])

    code, output = site.deploy("v1")
    assert code == 1, output
    assert "the image's user 1000 (1000:1000) cannot write /home/deploy/own, which is mounted at /app/own" in output
    assert "podman unshare chown -R 1000:1000 /home/deploy/own" in output

    edit_service(site, "frontend", mounts=[{**mount, "owner": "1000"}])
    site.run_ok("setup")
    output = site.deploy_ok("v1", "--dry-run") + site.deploy_ok("v1")
    seen = look(site, host)
    assert seen == {
        "ids": [1000, 1000],
        "files": [1024, 2048],
        "db": "10.0.0.5",
        "writes": ["/tmp", "/cache", "/app/media", "/app/own"],
        "MB": [16, 32],
        "variable": before,
        "secrets": [before, before],
    }
    assert "MC4CAQAwBQYDK2VwBCIEIHlfbefore" not in output
    label = "podman inspect --format '{{index .Config.Labels \"team\"}}' " + site.running_container(host, "frontend")
    assert host.sh(label, user="deploy").stdout == "web team\n"

    set_key(site, after)
    output = site.deploy_ok("v1")
    assert "~SIGNING_KEY" in output
    assert look(site, host)["variable"] == after
    former = next(name for name, running in site.containers(host).items() if "frontend" in name and not running)
    host.sh(f"podman rm {former}", user="deploy")
    site.run_ok("rollback")
    assert (look(site, host)["variable"], look(site, host)["secrets"]) == (before, [before, before])
    host.sh("podman volume rm --force memoryark-media && podman unshare rm -r own", user="deploy")


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_services_move_between_hosts_with_their_roles(site: Site) -> None:
    """A host whose last service with a port leaves loses its containers and its site, and gets a worker."""
    web, jobs = site.lab.hosts
    site.edit_hosts(web1={"roles": ["web"]}, web2={"roles": ["jobs"]})
    program = ["python3", "-c", "import signal; signal.pause()"]
    with site.edited_services() as content:
        for service in content["services"]:
            service["roles"] = ["web"]
        backend = content["services"][0]
        worker = {"name": "worker", "image": backend["image"], "entrypoint": [], "command": program, "roles": ["jobs"]}
        content["services"].append(worker | {"gate": {"running_seconds": "1s"}, "drain": {"stop_seconds": 0}})

    output = site.deploy_ok("v1")

    assert "setup removes its Nginx site" in output
    assert [name for name in site.running_containers(jobs) if "accessory" not in name] == ["memoryark-worker-blue"]
    assert len(site.running_containers(web)) == 2
    assert "healthy" in site.run_ok("status")
    assert "on web2" in site.run_ok("exec", "--service", "worker", "--", "python3", "-c", "print('on web2')")
    site.run_ok("setup", "--hosts", jobs.name)
    assert jobs.sh("test -e /etc/nginx/conf.d/memoryark.conf", check=False).returncode == 1
    assert site.run("doctor")[0] == 0
    assert "Nothing to do" in site.deploy_ok("v1")

    edit_service(site, "worker", roles=["web"])
    site.deploy_ok("v1")
    assert site.running_containers(jobs) == []
    assert "memoryark-worker-blue" in site.running_containers(web)
    assert "Nothing to do" in site.deploy_ok("v1")
