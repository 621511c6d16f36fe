"""Special and huge files as configuration files: each is an error at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade import config
from tests.support.project import ROOT, Project

#: A check that hangs or exhausts memory fails after this time.
SECONDS = 30
KINDS = ("a device", "a pipe", "a directory", "a large file", "a link to a device")
ERRORS = {
    "a device": "not a regular file",
    "a pipe": "not a regular file",
    "a directory": "Is a directory",
    "a large file": "larger than 1 MiB",
    "a link to a device": "not a regular file",
}
#: The settings of the inventory that name a file.
SETTINGS = {
    "env_file": "    env_file: {path}",
    "services_file": "    services_file: {path}",
    "recipients_file": "    recipients_file: {path}",
    "signed_by": "    rollout: {{signed_by: {path}}}",
}


def create(kind: str, directory: Path) -> Path:
    path = directory / "x"
    if kind == "a device":
        return Path("/dev/zero")
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a large file":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to("/dev/zero")
    return path


def check(root: Path) -> str:
    """Return the configuration errors that a process with limits of memory and time prints."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from pathlib import Path\nfrom rolling_upgrade import config\nfrom rolling_upgrade.errors import ConfigError\n"
        "from rolling_upgrade.features.access.keys import read_access\n"
        "from rolling_upgrade.config.secrets_file import locate_secrets\n"
        "root = Path(sys.argv[1])\n"
        "calls = (lambda: config.load('demo', root=root), lambda: locate_secrets('demo', root=root),\n"
        "         lambda: read_access(str(root / 'deploy/authorized_keys/demo')))\n"
        "for call in calls:\n"
        "    try: call()\n"
        "    except ConfigError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_load_special_file_is_an_error_at_once(setting: str, kind: str, project: Project) -> None:
    path = create(kind, project.root)
    project.edit("hosts.yaml", "  demo:\n", f"  demo:\n{SETTINGS[setting].format(path=path)}\n")

    output = check(project.root)

    assert ERRORS[kind] in output
    assert "Nothing was c" in output


@pytest.mark.parametrize("name", ["hosts.yaml", "deploy/services.yaml", "deploy/authorized_keys/demo/ann.pub"])
def test_load_pipe_as_a_default_file_is_an_error_at_once(name: str, project: Project) -> None:
    path = project.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)

    assert path.name in check(project.root)


def test_load_file_of_the_maximum_size_is_read(project: Project) -> None:
    path = project.root / "deploy/demo.env"
    text = path.read_bytes()
    path.write_bytes(text + b"\n#" + b"x" * ((1 << 20) - len(text) - 2))

    assert config.load("demo", root=project.root).name == "demo"
