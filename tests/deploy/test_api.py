"""The Python API and a team's own tasks, exactly as on their pages, in a directory outside of this repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import Site

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs/guides"


@pytest.fixture
def project(site: Site, tmp_path: Path) -> Path:
    """A directory with the files of the lab's environment, which is named production."""
    for path in site.directory.iterdir():
        if path.is_file():
            target = tmp_path / path.name
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode & 0o777)
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(hosts.read_text().replace(f"  {site.lab.name}:\n", "  production:\n", 1))
    return tmp_path


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def example(page: str) -> str:
    return str(re.findall(r"^```python\n(.*?)^```$", (GUIDES / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)[0])


def test_script_of_the_page_deploys_and_rolls_back(project: Path, site: Site) -> None:
    (project / "script.py").write_text(example("python.md"))

    done = run(project, "script.py")

    assert (done.returncode, done.stderr) == (0, ""), done
    lines = done.stdout.splitlines()
    assert lines[:2] == ["web1 backend replace", "web1 frontend replace"]
    assert lines[2].endswith(" web1 upgraded.")
    assert sorted(lines[3].split()) == ["memoryark-backend-green", "memoryark-frontend-green", "web1"]
    assert lines[4:] == ["web1 healthy"]
    assert site.versions() == ["v1"]


def test_tasks_of_the_page_combine_ours_with_a_teams(project: Path, site: Site) -> None:
    (project / "tasks.py").write_text(example("own-tasks.md"))
    words = ("-m", "invoke", "release", "--env", "production", "--tag", "v2")
    refused = run(project, *words)
    assert (refused.returncode, site.versions()) == (1, ["v1"]), refused

    (project / "CHANGES.md").write_text("v2\n")
    done = run(project, *words)

    assert (done.returncode, site.versions()) == (0, ["v2"]), done
    assert re.fullmatch(r"web1: upgraded in \d+ s\n", done.stdout), done
    assert (project / "RELEASES").read_text() == "v2 web1\n"
    listed = run(project, "-m", "invoke", "--list").stdout
    assert re.search(r"^  rolling\.deploy ", listed, re.MULTILINE), listed
