"""The package that pip installs: it is complete, contains nothing else, and runs outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from rolling_upgrade import __version__
from rolling_upgrade.rendering import templates

ROOT = Path(__file__).parent.parent

# One worker: building takes seconds, and all tests share one build.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the installed content of the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)  # noqa: S202 - the test made it
    return folder


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the console script of the wheel, without this clone on the path."""
    code = "from rolling_upgrade.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def tracked(folder: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_wheel_holds_the_package_and_the_templates_and_nothing_else(installed: Path) -> None:
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    own = {name for name in found if not name.startswith(f"rolling_upgrade-{__version__}.dist-info/")}

    assert own >= tracked("rolling_upgrade") | {f"rolling_upgrade/{name}" for name in tracked("templates")}
    assert {name.partition("/")[0] for name in own} == {"rolling_upgrade"}
    assert [name for name in own if name.endswith((".pyc", ".env"))] == []


def test_wheel_has_the_console_script_and_the_license(installed: Path) -> None:
    metadata = installed / f"rolling_upgrade-{__version__}.dist-info"

    assert "rolling-upgrade = rolling_upgrade.cli:main" in (metadata / "entry_points.txt").read_text()
    assert (metadata / "licenses/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_sdist_holds_no_tests_and_no_lab(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        found = {name.split("/")[1] for name in archive.getnames()}

    assert {"rolling_upgrade", "templates", "pyproject.toml", "README.md", "LICENSE"} <= found
    assert found & {"tests", "lab", "benchmarks", "fabfile", "deploy", "hosts.yaml", "docs", "scripts"} == set()


def test_templates_are_inside_an_installed_package_and_beside_it_in_the_clone(installed: Path) -> None:
    assert templates(installed / "rolling_upgrade") == installed / "rolling_upgrade/templates"
    assert templates(ROOT / "rolling_upgrade") == ROOT / "templates"


def test_wheel_runs_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "--version").stdout == f"rolling-upgrade {__version__}\n"
    assert "\n  deploy " in run(installed, tmp_path, "--list").stdout


def test_wheel_writes_and_checks_the_configuration_of_another_application(installed: Path, tmp_path: Path) -> None:
    asked = ["--app", "shop", "--domain", "shop.example.org", "--service", "web=r.example.org/web:v1:80"]
    made = run(installed, tmp_path, "init", *asked, "--host", "web1=192.0.2.11", "--yes")
    assert made.returncode == 0, made.stderr

    checked = run(installed, tmp_path / "deploy", "config.check")
    listed = subprocess.run(
        [sys.executable, "-P", "-m", "invoke", "--list"],
        cwd=tmp_path / "deploy",
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "production: 1 host, 1 service" in checked.stdout
    assert "\n  deploy " in listed.stdout, listed.stderr
