"""The JSON Schemas of the YAML files: current, valid, as lenient as the models, and useful for wrong files."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rolling_upgrade.config.issues import Issues, validate
from rolling_upgrade.config.schema import FILES, schema_comment, schema_files
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.configuration.workflow import check, schema
from tests.injection.project import FIELDS
from tests.injection.project import Project as WholeProject
from tests.support.project import HOSTS, MEMORYARK, ROOT, Project

SCHEMAS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in schema_files().items()}
HOSTS_YAML, SERVICES_YAML = "hosts.json", "services.json"
EXAMPLES = [
    *((HOSTS_YAML, path) for path in (ROOT / "hosts.yaml", MEMORYARK / "hosts.yaml")),
    *((SERVICES_YAML, path) for path in (ROOT / "deploy/services.yaml", ROOT / "lab/services.yaml")),
    (SERVICES_YAML, MEMORYARK / "deploy/services.yaml"),
]


def faults(name: str, content: object) -> list[str]:
    """Return the places of a file that its schema refuses; of alternatives, that of the nearest one, as editors do."""
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    places = set()
    for error in validator.iter_errors(content):
        deepest = max((error, *_inner(error)), key=lambda inner: len(inner.absolute_path))
        places.add(".".join(map(str, deepest.absolute_path)))
    return sorted(places)


def _inner(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    for inner in error.context:
        yield inner
        yield from _inner(inner)


@pytest.mark.parametrize("name", FILES)
def test_file_in_the_documentation_is_current(name: str) -> None:
    is_current = (ROOT / "docs/schema" / name).read_text() == schema_files()[name]

    assert is_current, "write them again: .venv/bin/python -m rolling_upgrade.config.schema docs/schema"


@pytest.mark.parametrize("name", FILES)
def test_schema_is_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(("name", "path"), EXAMPLES)
def test_example_is_accepted(name: str, path: Path) -> None:
    assert faults(name, yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize("quoted", [True, False])
def test_every_valid_value_is_accepted_as_text_and_as_yaml_reads_it(quoted: bool, tmp_path: Path) -> None:
    """A new key has its valid values in FIELDS."""
    loader = yaml.BaseLoader if quoted else yaml.SafeLoader
    for number in range(max(map(len, FIELDS.values()))):
        fields = {name: values[number % len(values)] for name, values in FIELDS.items()}
        project = WholeProject(tmp_path / str(number), fields=fields)
        project.write()
        for name, file in ((HOSTS_YAML, "hosts.yaml"), (SERVICES_YAML, "services.yaml")):
            text = (project.root / file).read_text()
            if not quoted:
                text = yaml.safe_dump(_unquoted(yaml.load(text, yaml.BaseLoader)), allow_unicode=True)  # noqa: S506
            assert faults(name, yaml.load(text, loader)) == []  # noqa: S506


def _unquoted(value: Any) -> Any:
    """Return the value that YAML reads when nothing is quoted."""
    if isinstance(value, dict):
        return {key: _unquoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unquoted(item) for item in value]
    return yaml.safe_load(value) if str(value).isalnum() else value


BASE_HOSTS = yaml.safe_load(HOSTS)
BASE_SERVICES = yaml.safe_load((MEMORYARK / "deploy/services.yaml").read_text())
ENTRY: tuple[str | int, ...] = ("environments", "demo")
SERVICE: tuple[str | int, ...] = ("services", 0)


def changed(content: Any, place: tuple[str | int, ...], value: object) -> Any:
    result = copy.deepcopy(content)
    target = result
    for part in place[:-1]:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    target[place[-1]] = value
    return result


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*ENTRY, "port"), 70_000),
        ((*ENTRY, "port"), "ssh"),
        ((*ENTRY, "usr"), "deploy"),
        ((*ENTRY, "user"), "De Ploy"),
        ((*ENTRY, "rollout", "batch"), "0%"),
        ((*ENTRY, "rollout", "bake_seconds"), "10 minutes"),
        ((*ENTRY, "rollout", "confirm"), "perhaps"),
        ((*ENTRY, "rollout", "transfer"), "copy"),
        ((*ENTRY, "setup", "firewall"), "iptables"),
        ((*ENTRY, "env_command"), []),
        ((*ENTRY, "hosts", "web1"), "192.0.2.11"),
        ((*ENTRY, "hosts", "web1", "roles"), "web"),
        (ENTRY, []),
    ],
)
def test_wrong_hosts_file_is_refused_at_its_place(place: tuple[str | int, ...], value: object) -> None:
    wrong = changed(BASE_HOSTS, place, value)

    (found,) = faults(HOSTS_YAML, wrong)

    # An unknown key is reported at its mapping.
    assert found in {".".join(map(str, place)), ".".join(map(str, place[:-1]))}
    issues = Issues(Path())
    validate(FILES[HOSTS_YAML], _as_text(wrong), "hosts.yaml", issues)
    assert issues.errors


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*SERVICE, "container_port"), 0),
        ((*SERVICE, "name"), "Backend"),
        ((*SERVICE, "name"), None),
        ((*SERVICE, "gate", "passes"), "three"),
        ((*SERVICE, "gate", "pases"), 3),
        ((*SERVICE, "routes"), "/api/"),
        ((*SERVICE, "start"), "later"),
        ((*SERVICE, "log_max_size"), "many"),
        (("services",), []),
        (("sevices",), []),
    ],
)
def test_wrong_services_file_is_refused_at_its_place(place: tuple[str | int, ...], value: object) -> None:
    wrong = changed(BASE_SERVICES, place, value)

    (found,) = faults(SERVICES_YAML, wrong)

    assert found in {".".join(map(str, place)), ".".join(map(str, place[:-1]))}
    issues = Issues(Path())
    validate(FILES[SERVICES_YAML], _as_text(wrong), "services.yaml", issues)
    assert issues.errors


#: Every short form beside its long one.
FORMS = """
x-env: &env [SECRET_KEY, {LEVEL: {value: info}}]
services:
  - name: web
    image: ghcr.io/acme/web
    container_port: 8000
    health: /up
    env: *env
    routes: [/, {prefix: /api/, stream: true}]
    mounts: ["/srv/a:/app/a", "/srv/b:/app/b:ro", {source: DATA_PATH, target: /app/data}]
    volumes: ["media:/app/media", {name: cache, target: /app/cache, read_only: true}]
    secrets: [TLS_KEY, "CERT:/run/cert.pem", {source: OTHER, target: /run/other}]
    tmpfs: /cache:size=64MB
    ulimits: {nofile: {soft: 1024, hard: 4096}, nproc: 100}
    labels: {team: web}
    add_host: ["db:10.0.0.5"]
    limits: {memory: 512MB, cpus: 1.5}
  - name: worker
    image: WORKER_IMAGE
    command: celery -A shop worker
    env: {LEVEL: {value: info}, SECRET_KEY: SECRET_KEY}
    health: {path: /}
accessories:
  - {name: db, image: "postgres:17", health: pg_isready, env: [POSTGRES_PASSWORD], volumes: "data:/var/lib/postgresql"}
  - {name: redis, image: REDIS_IMAGE, health: {command: [redis-cli, ping], timeout_seconds: 5}, command: [redis-server]}
jobs:
  - {name: clean, service: web, schedule: "0 3 * * *", command: ./clean, timeout_seconds: 600, entrypoint: []}
release: {service: web, command: [./migrate]}
"""


def test_every_form_of_a_value_is_accepted_by_schema_and_models() -> None:
    content = yaml.safe_load(FORMS)
    issues = Issues(Path())

    validate(
        FILES[SERVICES_YAML], _as_text({key: value for key, value in content.items() if key[:2] != "x-"}), "f", issues
    )

    assert issues.errors == ()
    assert faults(SERVICES_YAML, content) == []


@pytest.mark.parametrize("name", FILES)
def test_every_converted_value_declares_its_forms(name: str) -> None:
    """A BeforeValidator without `json_schema_input_type` may accept anything, so that editors check nothing there."""
    assert [place for place, node in _nodes(SCHEMAS[name], "") if node == {} and "^x-" not in place] == []


def _nodes(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _nodes(item, f"{place}/{key}")


def _as_text(value: Any) -> Any:
    """Return a value as the loader of this project reads it: every scalar is a text."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_values_have_descriptions_defaults_words_and_messages() -> None:
    rollout = SCHEMAS[HOSTS_YAML]["$defs"]["RolloutPolicy"]["properties"]

    assert rollout["transfer"]["enum"] == ["pull", "push"]
    assert rollout["transfer"]["default"] == "pull"
    assert rollout["batch"]["description"].startswith("Hosts upgraded at the same time: a number or a percentage.")
    assert rollout["batch"]["errorMessage"] == "expected a number of hosts or a percentage: 1, 2, 25%, 100%"
    assert "title" not in json.dumps(SCHEMAS)


@pytest.mark.parametrize(
    ("schema_file", "file", "comment"),
    [
        ("deploy/schema/hosts.json", "hosts.yaml", "deploy/schema/hosts.json"),
        ("deploy/schema/services.json", "deploy/services.yaml", "schema/services.json"),
        ("docs/services.json", "deploy/services.yaml", "../docs/services.json"),
    ],
)
def test_comment_has_a_path_relative_to_its_file(schema_file: str, file: str, comment: str) -> None:
    assert schema_comment(Path("/p") / schema_file, Path("/p") / file) == f"# yaml-language-server: $schema={comment}"


def test_task_writes_the_files_and_shows_the_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema(root=tmp_path, directory="deploy/schema") is ExitCode.DONE

    assert {path.name: path.read_text() for path in (tmp_path / "deploy/schema").iterdir()} == schema_files()
    out = capsys.readouterr().out
    assert "hosts.yaml: # yaml-language-server: $schema=deploy/schema/hosts.json" in out
    assert "deploy/services.yaml: # yaml-language-server: $schema=schema/services.json" in out


def test_check_warns_of_schemas_of_another_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    schema(root=tmp_path, directory="deploy/schema")
    capsys.readouterr()
    check("demo", root=tmp_path)
    assert "schema" not in capsys.readouterr().out

    project.write("deploy/schema/services.json", "{}")
    check("demo", root=tmp_path)

    assert "deploy/schema/services.json is the schema of another version" in capsys.readouterr().out
