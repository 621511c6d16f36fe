"""The Python API without hosts: errors, consent, silence, masked values, and lazy imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rolling_upgrade
from rolling_upgrade import Environment, RollingError, RunFailed, deploy, plan, rollback, status
from rolling_upgrade.engine.model import Event, HostResult, HostState, Phase
from rolling_upgrade.errors import ConfigError, ExitCode
from tests.support.project import Project
from tests.support.simulated_fleet import SimulatedFleet

PUBLIC = {"Environment", "RollingError", "RunFailed", "deploy", "health", "plan", "rollback", "status"}


@pytest.fixture
def demo(project: Project) -> Environment:
    return Environment("demo", project.root)


def test_public_names_are_those_of_the_version_policy() -> None:
    page = (Path(__file__).parents[1] / "docs/guides/python.md").read_text("utf-8")

    assert set(rolling_upgrade.__all__) == PUBLIC
    assert [name for name in PUBLIC if f"`{name}" not in page] == []
    assert (Path(rolling_upgrade.__file__).parent / "py.typed").exists()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'undeploy'"):
        rolling_upgrade.undeploy  # noqa: B018


def test_import_of_the_package_imports_nothing_heavy() -> None:
    program = "import sys, rolling_upgrade; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)

    assert not {"pydantic", "paramiko", "fabric", "jinja2", "yaml"} & set(shown.stdout.split())


def test_invalid_configuration_is_a_rolling_error_with_its_issues(demo: Environment, project: Project) -> None:
    project.env({"DOMAIN_NAME": "not a domain"})

    with pytest.raises(RollingError) as caught:
        deploy(demo, confirmed=True)

    assert isinstance(caught.value, ConfigError)
    assert [issue.path for issue in caught.value.issues] == ["DOMAIN_NAME"]


def test_unknown_environment_is_a_rolling_error(demo: Environment) -> None:
    with pytest.raises(RollingError):
        status(Environment("nowhere", demo.root))


def test_deploy_without_consent_touches_nothing(
    demo: Environment, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"not confirmed; nothing was touched\.\nNext: pass confirmed=True"):
        deploy(demo, tag="v2", confirmed=False)

    assert capsys.readouterr() == ("", "")
    assert fleet.changed() == []


def test_deploy_returns_the_summary_reports_events_and_prints_nothing(
    demo: Environment, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []

    def broken_receiver(event: Event) -> None:
        events.append(event)
        raise ValueError("an error of the caller")

    summary = deploy(demo, confirmed=True, batch="100%", on_event=broken_receiver)

    assert [(host.host, host.result) for host in summary.hosts] == [
        ("web1", HostResult.UPGRADED),
        ("web2", HostResult.UPGRADED),
    ]
    assert {"backend.start", "verify"} <= {event.step for event in events if event.phase is Phase.DONE}
    assert capsys.readouterr() == ("", "")


def test_failed_run_raises_with_its_summary(demo: Environment, fleet: SimulatedFleet) -> None:
    for host in ("web1", "web2"):
        fleet.fail(host, "step verify")

    with pytest.raises(RunFailed) as caught:
        deploy(demo, confirmed=True)

    assert caught.value.exit_code is ExitCode.FAILED
    assert {host.result for host in caught.value.summary.hosts} <= {HostResult.UNDONE, HostResult.NOT_STARTED}


def test_rollback_needs_consent_too(demo: Environment, fleet: SimulatedFleet) -> None:
    for host in ("web1", "web2"):
        fleet.upgrade(host)

    with pytest.raises(ConfigError, match="not confirmed"):
        rollback(demo, confirmed=False)
    summary = rollback(demo, confirmed=True)

    assert {host.result for host in summary.hosts} == {HostResult.ROLLED_BACK}


def test_plan_changes_nothing_and_contains_no_secret(
    demo: Environment, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(demo)

    secrets = [secret for secret in demo.load().secrets if len(secret) >= 8]
    texts = [step.script.text for one in planned for step in one.steps]
    assert [one.host for one in planned] == ["web1", "web2"]
    assert secrets
    assert [secret for secret in secrets for text in texts if secret in text] == []
    assert (fleet.changed(), capsys.readouterr()) == ([], ("", ""))


def test_status_has_the_state_of_each_host(demo: Environment, fleet: SimulatedFleet) -> None:
    found = status(Environment("demo", demo.root, ("web2",)))

    assert list(found) == ["web2"]
    state = found["web2"]
    assert isinstance(state, HostState)
    assert {container.service for container in state.containers} == {"backend", "frontend"}
