"""Options of containers in services.yaml: their forms, their values, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.engine import masking, podman
from rolling_upgrade.engine.model import ContainerOptions, Volume
from rolling_upgrade.errors import ConfigError
from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the services of the example."""
    return Project(tmp_path)


def declare(project: Project, **options: Any) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    content["services"][0] |= options
    path.write_text(yaml.safe_dump(content))


def options_of(project: Project) -> ContainerOptions:
    return project.load().targets[0].application.services[0].options


def test_service_without_options_has_the_defaults(project: Project) -> None:
    assert options_of(project) == ContainerOptions()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"user": "1000:1000"}, {"user": "1000:1000"}),
        ({"user": "app"}, {"user": "app"}),
        ({"volumes": ["media:/app/media"]}, {"volumes": (Volume("media", "/app/media"),)}),
        ({"volumes": "media:/app/media:ro"}, {"volumes": (Volume("media", "/app/media", True),)}),
        ({"volumes": [{"name": "media", "target": "/m/"}]}, {"volumes": (Volume("media", "/m"),)}),
        ({"tmpfs": "/run/app"}, {"tmpfs": ("/run/app",)}),
        ({"tmpfs": ["/cache:size=64MB,mode=1777,noexec"]}, {"tmpfs": ("/cache:size=67108864,mode=1777,noexec",)}),
        ({"shm_size": "64MB"}, {"shm_bytes": 64 * 1024**2}),
        ({"read_only": True, "init": True}, {"read_only": True, "init": True}),
        (
            {"devices": ["/dev/fuse", "/dev/ttyUSB0:/dev/modem:rw"]},
            {"devices": ("/dev/fuse", "/dev/ttyUSB0:/dev/modem:rw")},
        ),
        ({"devices": "nvidia.com/gpu=all"}, {"devices": ("nvidia.com/gpu=all",)}),
        ({"ulimits": ["nofile=1024:4096", "core=-1"]}, {"ulimits": ("nofile=1024:4096", "core=-1:-1")}),
        (
            {"ulimits": {"nproc": 512, "nofile": {"soft": 1024, "hard": 4096}}},
            {"ulimits": ("nofile=1024:4096", "nproc=512:512")},
        ),
        ({"add_host": ["db:10.0.0.5", "cache=2001:db8::5"]}, {"add_host": ("db:10.0.0.5", "cache:2001:db8::5")}),
        ({"add_host": {"db": "10.0.0.5"}}, {"add_host": ("db:10.0.0.5",)}),
        (
            {"labels": {"team": "web", "com.acme/owner": "a=b c"}},
            {"labels": (("com.acme/owner", "a=b c"), ("team", "web"))},
        ),
        ({"labels": ["team=web"]}, {"labels": (("team", "web"),)}),
        ({"labels": []}, {}),
    ],
)
def test_forms_of_an_option(written: dict[str, Any], expected: dict[str, Any], project: Project) -> None:
    declare(project, **written)

    assert options_of(project) == ContainerOptions(**expected)


@pytest.mark.parametrize(
    ("written", "place", "expected"),
    [
        ({"user": "app --privileged"}, "user", "a user of the image"),
        ({"user": "-1"}, "user", "a user of the image"),
        ({"volumes": ["/srv/media:/app/media"]}, "volumes[0]", "belong to `mounts`"),
        ({"volumes": ["./media:/app/media"]}, "volumes[0]", "belong to `mounts`"),
        ({"volumes": ["media"]}, "volumes[0]", "a volume such as"),
        ({"volumes": ["media:/app/../etc"]}, "volumes[0].target", "an absolute path"),
        ({"volumes": [{"name": "a,b", "target": "/m"}]}, "volumes[0].name", "a letter or digit"),
        ({"tmpfs": "/"}, "tmpfs[0]", "a path"),
        ({"tmpfs": "/cache:size=x"}, "tmpfs[0]", "a size"),
        ({"tmpfs": "/cache:bind-propagation=shared"}, "tmpfs[0]", "a path"),
        ({"shm_size": "1k"}, "shm_size", "at least 1MB"),
        ({"devices": ["/etc/passwd"]}, "devices[0]", "a device"),
        ({"devices": ["/dev/../etc/passwd"]}, "devices[0]", "a device"),
        ({"devices": ["/dev/fuse:/dev/fuse:rwx"]}, "devices[0]", "a device"),
        ({"ulimits": ["files=1024"]}, "ulimits[0]", "a limit"),
        ({"ulimits": ["nofile=4096:1024"]}, "ulimits[0]", "a limit"),
        ({"ulimits": {"nofile": {"soft": "1"}}}, "ulimits[0]", "a limit"),
        ({"add_host": ["db"]}, "add_host[0]", "a host name and an IP address"),
        ({"add_host": ["db:host-gateway"]}, "add_host[0]", "host.containers.internal"),
        ({"labels": {"rolling.app": "other"}}, "labels[0]", "does not start with"),
        ({"labels": {"io.containers.autoupdate": "registry"}}, "labels[0]", "does not start with"),
        ({"labels": ["team"]}, "labels[0]", "a label"),
        ({"init": "maybe"}, "init", "true or false"),
    ],
)
def test_invalid_options_are_refused_in_their_place(
    written: dict[str, Any], place: str, expected: str, project: Project
) -> None:
    declare(project, **written)

    with pytest.raises(ConfigError) as caught:
        project.load()

    (issue,) = caught.value.issues
    assert issue.path.endswith(place)
    assert expected in issue.expected


@pytest.mark.parametrize("other", [{"volumes": ["media:/app/data"]}, {"tmpfs": ["/app/data:size=1MB"]}])
def test_two_mounts_cannot_have_the_same_path(other: dict[str, Any], project: Project) -> None:
    declare(project, **other)

    with pytest.raises(ConfigError, match=r"/app/data.*already used by"):
        project.load()


def test_the_order_of_labels_needs_no_new_container(project: Project) -> None:
    hashes = set()
    for labels in (["a=1", "b=2"], ["b=2", "a=1"]):
        declare(project, labels=labels)
        hashes.add(podman.spec_hash("memoryark", project.load().targets[0].application.services[0]))

    assert len(hashes) == 1


PEM = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IG1hdGVyaWFs\nbW9yZQ==\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("SIGNING", "/run/secrets/SIGNING"),
        ("SIGNING:/etc/ssl/app.pem", "/etc/ssl/app.pem"),
        ({"source": "SIGNING"}, "/run/secrets/SIGNING"),
        ({"source": "SIGNING", "target": "/etc/ssl/app.pem"}, "/etc/ssl/app.pem"),
    ],
)
def test_forms_of_a_secret_file(written: object, target: str, project: Project) -> None:
    declare(project, secrets=[written])
    project.env({"SIGNING": f'"{PEM}"'})

    environment = project.load()

    (secret,) = environment.targets[0].application.services[0].secret_files
    assert (secret.name, secret.target, secret.value) == ("SIGNING", target, PEM)
    assert not environment.warnings


def test_secret_file_needs_a_value(project: Project) -> None:
    declare(project, secrets=["SIGNING"])

    (issue,) = project.issues()

    assert (issue.path, issue.expected) == ("SIGNING", "a value, because it is a secret of the service backend")


@pytest.mark.parametrize("written", ["SIGNING:relative", "signing key", {"source": "SIGNING", "target": "/a,b"}])
def test_invalid_secret_files_are_refused(written: object, project: Project) -> None:
    declare(project, secrets=[written])

    assert project.issues()[0].path.startswith("services[0].secrets[0]")


def test_two_secrets_cannot_have_the_same_path(project: Project) -> None:
    declare(project, secrets=["SIGNING:/a", "OTHER:/a"])
    project.env({"SIGNING": "x", "OTHER": "y"})

    with pytest.raises(ConfigError, match="already used by"):
        project.load()


def test_variable_of_several_lines_reaches_the_service_and_is_masked_line_by_line(project: Project) -> None:
    """A private key is a secret whatever the name of its key."""
    declare(project, env=["SIGNING_PEM"])
    project.env({"SIGNING_PEM": f'"{PEM}"'})

    environment = project.load()

    assert dict(environment.targets[0].application.services[0].env)["SIGNING_PEM"] == PEM
    shown = masking.safe(f"log: c2VjcmV0IG1hdGVyaWFs\nkey={PEM!r} done", environment.secrets)
    assert shown == f"log: {masking.MASK}\nkey={masking.MASK!s} done".replace("key=", "key='").replace(
        " done", "' done"
    )
