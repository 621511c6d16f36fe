"""The virtual environments of Ansible and pyinfra, installed once per machine and kept beside the lab's images."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.commands import DIRECTORY
from benchmarks.program import log
from lab.files import cache_directory, locked


def install(tool: str) -> Path:
    """Install the versions of `TOOL.txt`, unless they are installed. Return the directory of the programs.

    Raises SystemExit when pip fails.
    """
    requirements = DIRECTORY / f"{tool}.txt"
    wanted = hashlib.sha256(f"{sys.version}\n{requirements.read_text()}".encode()).hexdigest()
    place = cache_directory() / f"peers-{tool}"
    made_from = place / "made-from"
    with locked(place.name):
        if not made_from.exists() or made_from.read_text() != wanted:
            log(f"Installing {tool} with pip, once per machine")
            shutil.rmtree(place, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(place))
            pip = (str(place / "bin" / "pip"), "install", "--quiet", "--no-input", "--disable-pip-version-check")
            _run(*pip, "--requirement", str(requirements))
            made_from.write_text(wanted)
    return place / "bin"


def version(programs: Path, package: str) -> str:
    """Return the installed version of a package."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _run(str(programs / "python"), "-c", code).strip()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
