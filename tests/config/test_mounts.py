"""Refused and accepted mounts."""

from __future__ import annotations

import posixpath

import pytest

from rolling_upgrade.engine.model import Environment
from tests.support.project import HOSTS, Project

WORKER = """\

  - name: worker
    image: BACKEND_IMAGE
    container_port: 9000
    port: WORKER_PORT
    default_port: 9000
    mounts:
"""


def with_worker(project: Project, *mounts: str) -> None:
    """Add a service with these mounts."""
    lines = "".join(f"      - {{{mount}}}\n" for mount in mounts)
    project.edit("deploy/services.yaml", "\n# Defaults for all builds:", f"{WORKER}{lines}\n# Defaults for all builds:")


def sources(environment: Environment) -> list[str]:
    """Return the directories that the services of the first host mount."""
    return [mount.source for service in environment.targets[0].application.services for mount in service.mounts]


@pytest.mark.parametrize(
    ("changes", "key", "why"),
    [
        ({"DATABASE_PATH": "/var/lib/memoryark/ark.db"}, "DATABASE_PATH", "is or contains /var/lib/memoryark, which"),
        ({"DATABASE_PATH": "/var/lib/ark.db"}, "DATABASE_PATH", "is or contains /var/lib/memoryark, which"),
        ({"DATABASE_PATH": "/var/lib/memoryark/./ark.db"}, "DATABASE_PATH", "is or contains /var/lib/memoryark, which"),
        ({"DATABASE_PATH": "/var/lib/memoryark/live/ark.db"}, "DATABASE_PATH", "is inside /var/lib/memoryark/live"),
        ({"UPLOADS_PATH": "/var/lib/memoryark/backups/up"}, "UPLOADS_PATH", "is inside /var/lib/memoryark/backups"),
        ({"CONFIG_PATH": "/var/lib/memoryark/config"}, "CONFIG_PATH", "is inside /var/lib/memoryark/config"),
        ({"CONFIG_PATH": "/var/lib/memoryark"}, "CONFIG_PATH", "is or contains /var/lib/memoryark"),
        ({"DATABASE_PATH": "/home/deploy/ark.db"}, "DATABASE_PATH", "/home/deploy, the home directory of deploy"),
        ({"DATABASE_PATH": "/home/ark.db"}, "DATABASE_PATH", "/home/deploy, the home directory of deploy"),
        ({"UPLOADS_PATH": "/home/deploy/"}, "UPLOADS_PATH", "/home/deploy, the home directory of deploy"),
        ({"UPLOADS_PATH": "/home/deploy/.ssh"}, "UPLOADS_PATH", "is inside /home/deploy/.ssh"),
        ({"UPLOADS_PATH": "/home/deploy/.config/systemd/user"}, "UPLOADS_PATH", "is inside /home/deploy/.config"),
        ({"CONFIG_PATH": "/home/deploy/.local/share"}, "CONFIG_PATH", "is inside /home/deploy/.local"),
        ({"DATABASE_BACKUP_PATH": "/srv/memoryark/data/backups"}, "DATABASE_PATH", "of DATABASE_BACKUP_PATH"),
        ({"DATABASE_BACKUP_PATH": "/srv/memoryark/data"}, "DATABASE_PATH", "of DATABASE_BACKUP_PATH"),
        ({"UPLOADS_BACKUP_PATH": "/srv/memoryark/uploads/old"}, "UPLOADS_PATH", "of UPLOADS_BACKUP_PATH"),
        ({"UPLOADS_PATH": "/srv/memoryark/data/uploads"}, "DATABASE_PATH", "of UPLOADS_PATH"),
        ({"UPLOADS_PATH": "/srv/memoryark/data"}, "DATABASE_PATH", "of UPLOADS_PATH"),
        ({"UPLOADS_PATH": "/srv/memoryark"}, "UPLOADS_PATH", "of DATABASE_PATH"),
        ({"CONFIG_PATH": "/srv/memoryark/uploads/config"}, "UPLOADS_PATH", "of CONFIG_PATH"),
        ({"UPLOADS_PATH": "/etc/cron.d"}, "UPLOADS_PATH", "/etc belongs to the system"),
        ({"UPLOADS_PATH": "/usr"}, "UPLOADS_PATH", "/usr belongs to the system"),
        ({"UPLOADS_PATH": "/proc/self"}, "UPLOADS_PATH", "/proc belongs to the system"),
        ({"UPLOADS_PATH": "/run/user/1000"}, "UPLOADS_PATH", "/run/user belongs to the system"),
        ({"UPLOADS_PATH": "/var/run/podman"}, "UPLOADS_PATH", "/run/podman belongs to the system"),
        ({"UPLOADS_PATH": "/var/log"}, "UPLOADS_PATH", "/var/log belongs to the system"),
        ({"UPLOADS_PATH": "/root"}, "UPLOADS_PATH", "/root belongs to the system"),
    ],
)
def test_load_mount_that_contains_a_managed_directory_is_refused(
    changes: dict[str, str], key: str, why: str, project: Project
) -> None:
    project.env(changes)

    issues = project.issues(strict=True)

    assert {(issue.file, issue.path) for issue in issues} >= {("deploy/demo.env", key)}, issues
    assert any(issue.path == key and why in issue.expected for issue in issues), issues


@pytest.mark.parametrize(
    "changes",
    [
        {"DATABASE_PATH": "/var/lib/memoryark/data/ark.db", "UPLOADS_PATH": "/var/lib/memoryark/uploads"},
        {
            "DATABASE_PATH": "/home/deploy/data/ark.db",
            "DATABASE_BACKUP_PATH": "/home/deploy/backups/database",
            "UPLOADS_PATH": "/home/deploy/uploads",
            "UPLOADS_BACKUP_PATH": "/home/deploy/backups/uploads",
            "CONFIG_PATH": "/home/deploy/config",
        },
        {"DATABASE_BACKUP_PATH": "/srv/memoryark/data-backups"},
        {"DATABASE_BACKUP_PATH": "/srv/memoryark/old", "UPLOADS_BACKUP_PATH": "/srv/memoryark/old"},
        {"CONFIG_PATH": "/etc/memoryark"},
        {"DATABASE_PATH": "/home/deployment/ark.db"},
        {"UPLOADS_PATH": "/mnt/disk"},
    ],
)
def test_load_mounts_of_separate_directories_are_accepted(changes: dict[str, str], project: Project) -> None:
    project.env(changes)

    mounted = {key: path for key, path in changes.items() if key in {"UPLOADS_PATH", "CONFIG_PATH"}}
    if "DATABASE_PATH" in changes:
        mounted["DATABASE_PATH"] = posixpath.dirname(changes["DATABASE_PATH"])
    assert set(mounted.values()) <= set(sources(project.load()))


def test_load_mount_of_the_deploy_users_home_uses_the_user_of_the_host(project: Project) -> None:
    project.env({"UPLOADS_PATH": "/home/deploy"})
    project.write("hosts.yaml", HOSTS.replace("{address: 192.0.2.11,", "{address: 192.0.2.11, user: root,"))

    assert [issue.path for issue in project.issues(hosts=("web2",))] == ["UPLOADS_PATH"]

    project.env({"UPLOADS_PATH": "/root/.ssh"})
    assert ["is inside /root/.ssh" in issue.expected for issue in project.issues()] == [True]


def test_load_mount_that_contains_another_services_mount_is_refused(project: Project) -> None:
    with_worker(project, "source: CACHE_PATH, target: /cache", "source: MODELS_PATH, target: /models, read_only: true")
    project.env({"CACHE_PATH": "/srv/worker", "MODELS_PATH": "/srv/worker/models"})

    (issue,) = project.issues()

    assert (issue.path, "/srv/worker/models of MODELS_PATH" in issue.expected) == ("CACHE_PATH", True)


def test_load_services_that_share_a_mount_are_accepted(project: Project) -> None:
    with_worker(
        project,
        "source: UPLOADS_PATH, target: /uploads, read_only: true",
        "source: JOBS_PATH, parent: true, target: /data",
    )
    project.env({"JOBS_PATH": "/srv/memoryark/data/jobs.db"})

    assert sources(project.load()).count("/srv/memoryark/data") == 2
