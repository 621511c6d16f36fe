"""Hostile values in the three configuration files: each is refused, or passed on byte for byte without being executed.

Complete projects go through the real loader, the real builders and a real `sh`. The last tests fail for a new setting
or field until project.py has valid values for it and, for a text, the place where it has to arrive.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade import config
from rolling_upgrade.config.settings import KEYS
from rolling_upgrade.config.validators import is_key
from rolling_upgrade.engine import podman
from rolling_upgrade.engine.model import BuildType
from rolling_upgrade.engine.site.text import PROBE_AGENT
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.build import builder
from tests.injection.everything import Outcome, run_everything
from tests.injection.hostile import cases, near
from tests.injection.project import (
    ARRIVES,
    FIELDS,
    PASSED,
    SEEDS,
    SERVICE_SEEDS,
    Project,
    fields_of_the_models,
    text_settings,
)
from tests.injection.shell import shell
from tests.injection.texts import keys, rules

#: Each example runs a few hundred scripts, in two or three seconds. Every run draws others.
EXAMPLES, MANY_EXAMPLES = 15, 300
#: A word that needs no quotes for a shell, Nginx and systemd.
PLAIN = re.compile(r"[\w./:@+=-]+")


def changed_values(good: dict[str, tuple[str, ...]]) -> st.SearchStrategy[dict[str, str]]:
    """Draw values for all keys, and return those that differ from the valid ones."""
    drawn = st.fixed_dictionaries({key: near(*seeds) for key, seeds in good.items()})
    return drawn.map(lambda values: {key: value for key, value in values.items() if value != good[key][0]})


_status = st.sampled_from((0, 0, 1))


def outcome(project: Project, status: int) -> Outcome:
    """Run the scripts of the accepted values, and check that none is executed or used as a file name."""
    environment = project.accepted()
    with shell() as place:
        result = run_everything(environment, place, status=status)
    assert result.ran.injections == []
    networks = {directive.name for directive in result.site if directive.inside == ("geo",)} - {"default"}
    assert networks == set(result.app.site.trusted_proxies)
    assert {directive.name for directive in result.site} - networks <= _directives(result.app.name)
    assert [keys(unit) for unit in result.units][0::3] == [keys(unit) for unit in _unchanged().units][0::3]
    return result


def _directives(app: str) -> set[str]:
    """Return the names of the directives in the template and in its maps."""
    template = (Path(__file__).parents[2] / "templates/nginx/site.conf.j2").read_text()
    words = set(re.findall(r"(?:^|[{;])\s*([a-z_]+)(?=[ ;])", template, re.MULTILINE))
    return words | {
        "",
        app,
        "~*^text/event-stream",
        "~*^websocket$",
        PROBE_AGENT,
        f"~^{app.replace('-', '_')}_[a-z0-9-]+_(blue|green)/visitor$",
        "1:http",
        "1:https",
    }


@lru_cache
def _unchanged() -> Outcome:
    with tempfile.TemporaryDirectory() as root, shell() as place:
        return run_everything(Project(Path(root) / "usual").load(), place, status=1)


@given(values=changed_values(SEEDS | SERVICE_SEEDS), status=_status)
@cases(EXAMPLES)
def test_settings_are_refused_or_arrive_unchanged(values: dict[str, str], status: int) -> None:
    check_settings(values, status)


@pytest.mark.extended
@given(values=changed_values(SEEDS | SERVICE_SEEDS), status=_status)
@cases(MANY_EXAMPLES)
def test_many_settings_are_refused_or_arrive_unchanged(values: dict[str, str], status: int) -> None:
    check_settings(values, status)


def check_settings(values: dict[str, str], status: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        project = Project(Path(root) / "project")
        project.env |= values
        found = outcome(project, status)

    if status == 0:
        arrives = ARRIVES | dict.fromkeys(PASSED, "container")
        # An env file has the line breaks of any system.
        given = {key: re.sub("\r\n?", "\n", project.env[key]) for key in arrives if project.env[key]}
        lost = [(key, text) for key, text in given.items() if not found.where(arrives[key], text)]
        assert lost == []
        rule = found.file(f"etc/sudoers.d/{found.app.name}").decode()
        assert all(row.startswith("deploy ALL=(root) NOPASSWD: /usr/local/lib/") for row in rules(rule))


@given(values=changed_values(FIELDS), status=_status)
@cases(EXAMPLES)
def test_fields_are_refused_or_arrive_unchanged(values: dict[str, str], status: int) -> None:
    check_fields(values, status)


@pytest.mark.extended
@given(values=changed_values(FIELDS), status=_status)
@cases(MANY_EXAMPLES)
def test_many_fields_are_refused_or_arrive_unchanged(values: dict[str, str], status: int) -> None:
    check_fields(values, status)


def check_fields(values: dict[str, str], status: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        project = Project(Path(root) / "project")
        project.fields |= values
        found = outcome(project, status)

    fields, target, service = project.fields, found.environment.targets[0], found.app.services[0]
    assert (service.name, service.alias) == (fields["Service.name"], fields["Service.alias"] or service.name)
    models = {"Mount", "Volume", "Secret", "Limits", "Service"}
    texts = {"Service.labels", "Service.command", "Service.entrypoint"}
    names = {name: fields[name] for name in FIELDS if name.partition(".")[0] in models and name not in texts}
    names |= {name: fields[name] for name in ("Host.user", "Host.roles", "Host.groups", "Host.jump", "Host.address")}
    names |= {name: fields[name] for name in ("Route.prefix", "FullChain.path", "FullChain.service", "Release.service")}
    names |= {
        name: fields[name] for name in ("EnvironmentEntry.user", "EnvironmentEntry.setup_user", "RolloutPolicy.batch")
    }
    assert [
        (name, value) for name, value in names.items() if value and not PLAIN.fullmatch(re.sub("[~%,]", "-", value))
    ] == []
    _assert_build_arguments(found, fields)
    _assert_job(found, fields, started=status == 0)
    assert target.user == (fields["Host.user"] or fields["EnvironmentEntry.user"])
    if status == 0:
        for name in ("Service.name", "Service.alias", "Health.path", "FullChain.path"):
            assert fields[name].encode() in found.ran.words, name
        if fields["Health.host"]:
            assert f"Host: {fields['Health.host']}".encode() in found.ran.words
        assert service.gate.headers == (("X-Own", fields["Health.headers"]),)
        assert f"{fields['Mount.target'].rstrip('/')}:ro".encode() in found.ran.words
        assert f"{found.app.name}-{fields['Volume.name']}".encode() in found.ran.words
        assert fields["Service.labels"].encode() in found.ran.words
        assert fields["Release.command"].encode() in found.ran.words
        assert service.command == tuple(shlex.split(fields["Service.command"]))
        entrypoint = json.dumps(shlex.split(fields["Service.entrypoint"]))
        # The stand-in for Podman never stops the old color of an exclusive service.
        for word in () if service.is_exclusive else (*service.command, entrypoint):
            assert word.encode() in found.ran.words, word
        # The stand-in for curl answers nothing, so that no gate gets to its command. The release's definition has it.
        for word in service.gate.ready:
            assert json.dumps(word)[1:-1].encode() in found.ran.words, word
        assert ("location", (fields["Route.prefix"],)) in {
            (directive.name, directive.arguments) for directive in found.site
        }
        _assert_headers(found, fields)
        assert f"{fields['Secret.target']}:ro".encode() in found.ran.words
        if not service.is_exclusive:
            own = fields["Host.env"]
            # Another text than a key is a literal.
            if is_key(fields["Variable.key"]):
                assert (own if podman.has_line_break(own) else f"OWN_TEXT={own}\n").encode() in found.ran.words
            assert f"OWN_LITERAL={fields['Variable.literal']}\n".encode() in found.ran.words


def _assert_headers(found: Outcome, fields: dict[str, Any]) -> None:
    """Each header is one argument of its directive, also if its value has the syntax of Nginx."""
    routed = [(directive.name, directive.arguments) for directive in found.site]
    route = found.app.services[0].routes[0]
    for name, (own,) in (
        ("proxy_set_header", route.request_headers),
        ("add_header", route.response_headers),
    ):
        value = own[1]
        assert (name, ("X-Own", value, *(["always"] if name == "add_header" else []))) in routed or not value
    if "${" not in fields["Route.request_headers"]:
        assert route.request_headers == (("X-Own", fields["Route.request_headers"]),)


def _assert_job(found: Outcome, fields: dict[str, Any], *, started: bool) -> None:
    """The command and the entrypoint reach Podman as they are."""
    (job,) = found.app.jobs
    assert job.command == ("sh", "-c", fields["Job.command"])
    assert job.entrypoint == ("sh", "-c", fields["Job.entrypoint"])
    assert PLAIN.fullmatch(job.name)
    if started:
        assert fields["Job.command"].encode() in found.ran.words
        assert json.dumps(job.entrypoint).encode() in found.ran.words


def _assert_build_arguments(found: Outcome, fields: dict[str, Any]) -> None:
    """Each value is a separate argument of the build, and none starts an option."""
    pipeline = found.environment.pipeline
    build, suite = pipeline.builds[0], pipeline.suites[0]
    argv = builder.build_command(builder.Engine(pipeline.engine), build, "r.test/x:v1", {}, BuildType.RELEASE)
    assert argv[: len(pipeline.engine)] == pipeline.engine
    assert argv[-1] == build.context
    assert build.context.startswith("/")
    assert f"OWN_ARG={fields['Build.args']}" in argv
    assert PLAIN.fullmatch(build.target or "x")
    assert PLAIN.fullmatch(build.debug_target or "x")
    assert builder.scan_command(build.scan, "r.test/x:v1")[2].startswith(fields["Build.scan"])
    assert (suite.command, dict(suite.env)) == (
        ("sh", "-c", fields["Suite.command"]),
        {"OWN_TEXT": fields["Suite.env"]},
    )
    assert suite.folder.startswith("/")


def test_planted_injections_are_detected(tmp_path: Path) -> None:
    """An unquoted value is detected in each way in which a shell could evaluate it."""
    for text in ("podman run $(pwned)", "podman run a; pwned", "> pwned.conf", "podman run ${a b}", "unknown-program"):
        with shell() as place:
            assert place.run([text]).injections, text
    with shell() as place:
        assert place.run(["podman unshare sh -c 'pwned'", "exec sh -c 'a=1; pwned'"]).injections == [[b"pwned"]] * 2
        assert place.run(["podman run 'a\n$(pwned)'"]).calls == [[b"podman", b"run", b"a\n$(pwned)"]]


@pytest.mark.parametrize("written", [r"\ud800", r"a\udcffb"])
def test_lone_surrogate_is_refused_with_its_line(tmp_path: Path, written: str) -> None:
    project = Project(tmp_path / "project")
    project.fields["Host.env"] = "WRITTEN"
    project.write()
    hosts = project.root / "hosts.yaml"
    hosts.write_text(hosts.read_text().replace("WRITTEN", f'"{written}"'))

    with pytest.raises(ConfigError, match=r"hosts\.yaml:\d+: found a lone surrogate"):
        config.load("demo", root=project.root)


def test_every_setting_is_covered() -> None:
    assert set(SEEDS) == set(KEYS)
    assert set(ARRIVES) == text_settings()


def test_every_field_is_covered() -> None:
    assert set(FIELDS) == set(fields_of_the_models())
