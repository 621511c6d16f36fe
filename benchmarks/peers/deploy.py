"""A blue-green upgrade of both services: `pyinfra --yes --data version=v2 @ssh/web1 deploy.py`."""

from pyinfra import host  # type: ignore[import-not-found]
from pyinfra.facts.files import FileContents  # type: ignore[import-not-found]
from pyinfra.operations import files, server, systemd  # type: ignore[import-not-found]

from benchmarks.peers import commands

VERSION = host.data.version
ACTIVE, IDLE = commands.colors("\n".join(host.get_fact(FileContents, path=commands.UPSTREAMS)))

server.shell(name="Pull the images", commands=[commands.pull(service, VERSION) for service in commands.SERVICES])

server.shell(
    name="Start the new containers",
    commands=[commands.start(service, IDLE, VERSION) for service in commands.SERVICES],
)

server.shell(
    name="Wait until each new container is healthy",
    commands=[commands.wait_until_healthy(service, IDLE) for service in commands.SERVICES],
)

files.template(
    name="Write the upstreams",
    src=str(commands.DIRECTORY / "upstreams.conf.j2"),
    dest=commands.UPSTREAMS,
    mode="644",
    color=IDLE,
    services=commands.SERVICES,
    _sudo=True,
)

server.shell(name="Test the configuration", commands=["nginx -t"], _sudo=True)

systemd.service(name="Reload Nginx", service="nginx", reloaded=True, _sudo=True)

server.shell(
    name="Wait until the new version answers through Nginx",
    commands=[commands.wait_until_switched(service, VERSION) for service in commands.SERVICES],
)

server.shell(name="Stop the old containers and keep them", commands=[commands.stop(ACTIVE)])
