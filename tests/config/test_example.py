"""The files that the project ships: examples, inventory, services and the page about them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fabfile import config
from fabfile.config.settings import KEYS
from fabfile.errors import ConfigError
from tests.config.project import SHIPPED

EXAMPLES = ["production", "staging"]
PLACEHOLDER = "change-me-to-a-long-random-text"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone in which both examples were copied to their places, production's with a secret filled in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "deploy").mkdir()
    for path in ("hosts.yaml", "deploy/services.yaml"):
        (tmp_path / path).write_text((SHIPPED / path).read_text())
    for name in EXAMPLES:
        example = (SHIPPED / f"deploy/{name}.env.example").read_text()
        filled = example.replace(PLACEHOLDER, "correct-horse-battery") if name == "production" else example
        assert filled != example or name != "production"
        (tmp_path / f"deploy/{name}.env").write_text(filled)
    return tmp_path


def example_lines(name: str) -> list[str]:
    """The lines of an example."""
    return (SHIPPED / f"deploy/{name}.env.example").read_text().splitlines()


@pytest.mark.parametrize("name", EXAMPLES)
def test_shipped_example_loads(clone: Path, name: str) -> None:
    environment = config.load(name, root=clone, strict=True)

    assert environment.name == environment.targets[0].application.environment == name


def test_shipped_staging_example_warns_of_its_placeholder_alone(clone: Path) -> None:
    assert config.load("staging", root=clone, strict=True).warnings == (
        "deploy/staging.env: JWT_SECRET_KEY still holds a placeholder; give it a secret of your own",
    )


def test_shipped_production_example_is_refused_for_its_placeholder_alone(clone: Path) -> None:
    (clone / "deploy/production.env").write_text((SHIPPED / "deploy/production.env.example").read_text())

    with pytest.raises(ConfigError) as caught:
        config.load("production", root=clone, strict=True)

    (mistake,) = caught.value.mistakes
    assert re.fullmatch(r"line \d+: JWT_SECRET_KEY", mistake.path)
    assert PLACEHOLDER not in str(caught.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_shipped_example_has_a_comment_for_every_key(name: str) -> None:
    lines = example_lines(name)

    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line and not line.startswith("#") and not before.startswith("# ")
    ]

    assert bare == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_shipped_example_has_every_key(name: str) -> None:
    keys = {line.partition("=")[0] for line in example_lines(name) if line and not line.startswith("#")}

    assert set(KEYS) <= keys


def test_shipped_environments_fit_side_by_side_on_one_host(clone: Path) -> None:
    ports: list[int] = []
    for name in EXAMPLES:
        app = config.load(name, root=clone).targets[0].application
        ports += [app.http_port, app.https_port]
        for service in app.services:
            ports += [service.stable_port, service.stable_port + 10_000, service.stable_port + 20_000]

    assert len(ports) == len(set(ports))


def test_shipped_production_asks_and_staging_does_not(clone: Path) -> None:
    assert config.environments(clone) == ("production", "staging")
    assert config.load("production", root=clone).rollout.confirm is True
    assert config.load("staging", root=clone).rollout.confirm is False


def test_shipped_hosts_use_documentation_addresses(clone: Path) -> None:
    targets = [target for name in EXAMPLES for target in config.load(name, root=clone).targets]

    assert all(target.address.startswith("192.0.2.") for target in targets)


def test_shipped_page_about_the_settings_is_current() -> None:
    command = [sys.executable, "-m", "fabfile.config.reference"]

    done = subprocess.run(command, cwd=SHIPPED, capture_output=True, text=True, check=True)

    assert (SHIPPED / "docs/settings.md").read_text() == done.stdout
