"""The example configuration: MemoryArk's inventory, services and env files, and the generated settings page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade import config
from rolling_upgrade.config.files import read_yaml
from rolling_upgrade.config.issues import Issues, validate
from rolling_upgrade.config.services import Services
from rolling_upgrade.config.settings import KEYS
from rolling_upgrade.errors import ConfigError
from tests.support.project import MEMORYARK, ROOT

ENVIRONMENTS = ["production", "staging"]
PLACEHOLDER = "change-me-to-a-long-random-text"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with both env files copied from their examples; production has a real secret."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(MEMORYARK, tmp_path, dirs_exist_ok=True)
    for name in ENVIRONMENTS:
        example = env_example(name)
        filled = example.replace(PLACEHOLDER, "correct-horse-battery") if name == "production" else example
        assert filled != example or name != "production"
        (tmp_path / f"deploy/{name}.env").write_text(filled)
    return tmp_path


def env_example(name: str) -> str:
    """Return the env file that the project ships as an example."""
    return (ROOT / f"deploy/{name}.env.example").read_text()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_example_loads(clone: Path, name: str) -> None:
    environment = config.load(name, root=clone, strict=True)

    assert environment.name == environment.targets[0].application.environment == name


def test_example_staging_has_only_the_placeholder_warning(clone: Path) -> None:
    (warning,) = config.load("staging", root=clone, strict=True).warnings

    assert re.match(r"deploy/staging\.env:\d+: JWT_SECRET_KEY: a placeholder", warning)
    assert "placeholder" in warning


def test_example_production_has_only_the_placeholder_error(clone: Path) -> None:
    (clone / "deploy/production.env").write_text(env_example("production"))

    with pytest.raises(ConfigError) as caught:
        config.load("production", root=clone, strict=True)

    (issue,) = caught.value.issues
    assert re.fullmatch(r"line \d+: JWT_SECRET_KEY", issue.place)
    assert PLACEHOLDER not in str(caught.value)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_example_env_file_has_a_comment_for_every_key(name: str) -> None:
    lines = env_example(name).splitlines()

    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line and not line.startswith("#") and not before.startswith("# ")
    ]

    assert bare == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_example_env_file_has_every_key(name: str) -> None:
    keys = {line.partition("=")[0] for line in env_example(name).splitlines() if line and not line.startswith("#")}

    issues = Issues(MEMORYARK)
    content = read_yaml(MEMORYARK / "deploy/services.yaml", issues, remedy="")
    services = validate(Services, content or {}, "services.yaml", issues)
    assert services is not None
    named = {key for service in services.services for key in service.named_keys()}
    assert {*KEYS, *named} == keys


def test_example_environments_have_no_conflicts(clone: Path) -> None:
    ports: list[int] = []
    for name in ENVIRONMENTS:
        app = config.load(name, root=clone).targets[0].application
        ports += [app.http_port, app.https_port]
        for service in app.services:
            ports += [service.service_port, service.service_port + 10_000, service.service_port + 20_000]

    assert len(ports) == len(set(ports))


def test_example_only_production_requires_confirmation(clone: Path) -> None:
    assert config.environments(clone) == ("production", "staging")
    assert config.load("production", root=clone).rollout.confirm is True
    assert config.load("staging", root=clone).rollout.confirm is False


def test_example_hosts_have_documentation_addresses(clone: Path) -> None:
    targets = [target for name in ENVIRONMENTS for target in config.load(name, root=clone).targets]

    assert all(target.address.startswith("192.0.2.") for target in targets)


def test_settings_page_is_current() -> None:
    services = MEMORYARK / "deploy/services.yaml"
    command = [sys.executable, "-m", "rolling_upgrade.config.reference", str(services)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert (ROOT / "docs/settings.md").read_text() == done.stdout
