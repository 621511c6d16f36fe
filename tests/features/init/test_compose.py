"""`inv init --from`: Compose files become valid configurations, and everything without a counterpart is listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rolling_upgrade import config
from rolling_upgrade.engine.model import Application, Environment, Mount, Route, Volume
from rolling_upgrade.errors import ConfigError, ConfigIssue
from rolling_upgrade.features.init.compose import Converted, convert
from rolling_upgrade.features.init.compose_values import dotenv_text
from rolling_upgrade.features.init.workflow import init

Converts = Callable[..., Environment]

#: A web application with a worker, a database and a cache, as frameworks generate it.
FRAMEWORK = """\
name: bookshop
x-app: &app
  build: {context: ., target: app, args: ["UID=${UID:-1000}"]}
  restart: unless-stopped
  depends_on: [db, cache]
  environment: &env
    DATABASE_URL: postgres://books:${DB_PASSWORD:-swordfish}@db:5432/books
    CACHE_URL: redis://cache:6379/1
    SESSION_SECRET: change-me-please
    WORKERS: 4
    MODE: PRODUCTION
    LANG:

services:
  jobs:
    <<: *app
    command: bin/jobs --queue "default mail"
    stop_grace_period: 45s
    depends_on: [web]
  web:
    <<: *app
    ports: ["8080:3000"]
    command: ["bin/server", "-p", "3000"]
    volumes:
      - .:/app
      - /app/node_modules
      - media:/app/media
    healthcheck:
      test: ["CMD-SHELL", "wget -qO- http://localhost:3000/healthz || exit 1"]
    deploy: {resources: {limits: {memory: 768M, cpus: "0.5"}}}
  db:
    image: postgres:16
    environment:
      POSTGRES_USER: books
      POSTGRES_PASSWORD: ${DB_PASSWORD:-swordfish}
    volumes: [db:/var/lib/postgresql/data]
    healthcheck: {test: [CMD, pg_isready, -U, books]}
    ports: ["5432:5432"]
  cache:
    image: redis
    command: redis-server --save ''

volumes: {media: , db: }
"""


@pytest.fixture
def converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Converts:
    """Return a function that converts a Compose file and loads the result strictly."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)

    def convert(compose: str, files: dict[str, str] | None = None, **options: Any) -> Environment:
        for name, text in {"compose.yaml": compose, **(files or {})}.items():
            (tmp_path / name).write_text(text)
        answers: dict[str, Any] = {"domain": "books.example.org", "host": ("web1=192.0.2.11",), "app": "books"}
        init(root=tmp_path, from_=str(tmp_path / "compose.yaml"), **{**answers, **options})
        return config.load("production", root=tmp_path, strict=True)

    return convert


def app_of(environment: Environment) -> Application:
    return environment.targets[0].application


def declared(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((root / "deploy/services.yaml").read_text())
    return content


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    _, _, text = capsys.readouterr().out.partition("No counterpart, or your decision:\n")
    return [line.strip() for line in text.partition("\n\n")[0].splitlines()]


def test_application_of_a_framework(converts: Converts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = converts(FRAMEWORK, app=None)

    app = app_of(environment)
    web, jobs = app.services
    assert (app.name, [service.name for service in app.services]) == ("bookshop", ["web", "jobs"])
    assert (web.container_port, web.gate.path, web.routes) == (3000, "/healthz", (Route("/"),))
    assert (web.memory_bytes, web.cpus) == (768 * 1024**2, 0.5)
    assert web.options.volumes == (Volume("media", "/app/media"),)
    assert (jobs.is_worker, jobs.command) == (True, ("bin/jobs", "--queue", "default mail"))
    assert jobs.drain.stop_seconds == 45
    assert web.image == jobs.image
    assert dict(web.env) == {
        "DATABASE_URL": "postgres://books:swordfish@db:5432/books",
        "CACHE_URL": "redis://cache:6379/1",
        "SESSION_SECRET": "",
        "WORKERS": "4",
        "MODE": "PRODUCTION",
        "LANG": "",
    }
    assert [build.service for build in environment.pipeline.builds] == ["web"]
    assert dict(environment.pipeline.builds[0].args) == {"UID": "1000"}
    db, cache = app.accessories
    assert (db.name, dict(db.env)) == ("db", {"POSTGRES_USER": "books", "POSTGRES_PASSWORD": "swordfish"})
    assert (cache.image.reference, cache.command) == ("redis:latest", ("redis-server", "--save", ""))
    assert "swordfish" not in (tmp_path / "deploy/services.yaml").read_text()
    assert notes(capsys) == [
        "db: its port is not published; services reach it under the name db",
        "cache: the tag `latest` is a guess; name the version whose data you have",
        "web: the image bookshop-web is a guess; name the one in your registry",
        "SESSION_SECRET: the value in the Compose file is a placeholder; write your own into the env file",
        "web: . at /app is left out: the image contains what is built from it",
        "jobs: without a port it is a worker; add `container_port` if it serves HTTP",
    ]


def test_secrets_are_hidden_in_the_preview(converts: Converts, capsys: pytest.CaptureFixture[str]) -> None:
    converts(FRAMEWORK)

    out = capsys.readouterr().out
    assert "DB_PASSWORD=" in out
    assert "swordfish" not in out


def test_values_of_env_files_and_of_the_project(converts: Converts, tmp_path: Path) -> None:
    compose = """
services:
  web:
    image: ghcr.io/acme/web:${TAG:-latest}
    env_file: [app.env, {path: more.env, required: "false"}]
    environment: [PORT=9000, "GREETING=hi ${NAME}", "PRICE=$$5", "SMTP_HOST=${SMTP_HOST}"]
"""
    files = {
        ".env": "TAG=v7\nNAME=Ann\nSMTP_HOST=mail.internal\n",
        "app.env": "PORT=1\nAPI_TOKEN='t0ken$x'\nDOMAIN_NAME=inside\n",
    }

    (web,) = app_of(converts(compose, files)).services

    assert (web.image.tag, web.container_port) == ("v7", 9000)
    assert dict(web.env) == {
        "PORT": "9000",
        "API_TOKEN": "t0ken$x",
        "DOMAIN_NAME": "inside",
        "GREETING": "hi Ann",
        "PRICE": "$5",
        "SMTP_HOST": "mail.internal",
    }
    assert "WEB_SMTP_HOST=mail.internal" in (tmp_path / "deploy/production.env").read_text()


def test_services_with_different_values_get_different_keys(converts: Converts) -> None:
    compose = """
services:
  web: {image: "a/web:1", ports: ["80:80"], environment: {API_KEY: first-value}}
  admin: {image: "a/admin:1", expose: ["81"], environment: {API_KEY: second-value}}
"""
    web, admin = app_of(converts(compose)).services

    assert (dict(web.env)["API_KEY"], dict(admin.env)["API_KEY"]) == ("first-value", "second-value")
    assert (web.routes, admin.routes, admin.container_port) == ((Route("/"),), (), 81)


def test_command_that_ends_before_a_service_is_the_release(converts: Converts) -> None:
    compose = """
services:
  migrate: {image: "a/web:1", command: [manage, migrate]}
  web:
    image: a/web:1
    ports: [{target: 8000, published: "80"}]
    depends_on: {migrate: {condition: service_completed_successfully}}
"""
    app = app_of(converts(compose))

    assert [service.name for service in app.services] == ["web"]
    assert app.release_command is not None
    assert (app.release_command.service, app.release_command.command) == ("web", ("manage", "migrate"))


def test_proxy_is_left_out_and_its_labels_tell_the_port(converts: Converts, capsys: pytest.CaptureFixture[str]) -> None:
    compose = """
services:
  proxy: {image: "traefik:v3", ports: ["80:80", "443:443"]}
  web:
    image: a/web:1
    labels: ["traefik.http.services.web.loadbalancer.server.port=5000", "team=books"]
"""
    (web,) = app_of(converts(compose)).services

    assert (web.container_port, web.routes, web.options.labels) == (5000, (Route("/"),), (("team", "books"),))
    assert "proxy: left out, because Nginx on the host is the proxy; build an image if it serves files" in notes(capsys)


def test_volumes_and_mounts(converts: Converts, capsys: pytest.CaptureFixture[str]) -> None:
    compose = """
services:
  web:
    image: a/web:1
    ports: ["80:80"]
    volumes:
      - cache_data:/cache
      - /srv/books:/books:ro
      - ./uploads:/uploads
      - ./nginx.conf:/etc/app.conf
      - {type: bind, source: /srv/more, target: /more, read_only: "true"}
      - {type: tmpfs, target: /scratch}
      - /var/run/docker.sock:/var/run/docker.sock
      - /anonymous
"""
    (web,) = app_of(converts(compose)).services

    assert web.options.volumes == (
        Volume("cache-data", "/cache"),
        Volume("uploads", "/uploads"),
        Volume("web--anonymous", "/anonymous"),
    )
    assert web.mounts == (Mount("/srv/books", "/books", read_only=True), Mount("/srv/more", "/more", read_only=True))
    assert web.options.tmpfs == ("/scratch",)
    listed = notes(capsys)
    assert "web: ./uploads becomes a volume; copy its content if it has data" in listed
    assert any(note.startswith("web: ./nginx.conf has no counterpart") for note in listed)
    assert any(note.startswith("web: mounts /var/run/docker.sock:/var/run/docker.sock was left out") for note in listed)


def test_names_become_host_names(converts: Converts) -> None:
    compose = """
services:
  Web_App: {image: "a/web:1", ports: ["80:80"], environment: {DB: "mysql://u@main_db:3306/x", HOST: main_db}}
  main_db: {image: "mariadb:11", environment: [MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1]}
"""
    app = app_of(converts(compose))

    assert ([service.name for service in app.services], app.accessories[0].name) == (["web-app"], "main-db")
    assert dict(app.services[0].env) == {"DB": "mysql://u@main-db:3306/x", "HOST": "main-db"}


def test_missing_passwords_of_a_database_are_random_and_shared(
    converts: Converts, capsys: pytest.CaptureFixture[str]
) -> None:
    compose = """
services:
  web: {image: "a/web:1", ports: ["80:80"], environment: {DATABASE_URL: "postgres://u:${PG_PASSWORD}@db/x"}}
  db: {image: "postgres:16", environment: {POSTGRES_PASSWORD: "${PG_PASSWORD}", POSTGRES_USER: "${PG_USER}"}}
"""
    app = app_of(converts(compose))

    password = dict(app.accessories[0].env)["POSTGRES_PASSWORD"]
    assert len(password) >= 32
    assert dict(app.services[0].env)["DATABASE_URL"] == f"postgres://u:{password}@db/x"
    listed = notes(capsys)
    assert "PG_PASSWORD: a random value was written into the env file" in listed
    assert "db: POSTGRES_USER has no value; add it" in listed


def test_accessories_are_on_the_first_of_many_hosts(converts: Converts, tmp_path: Path) -> None:
    environment = converts(FRAMEWORK, host=("web1=192.0.2.11", "web2=192.0.2.12"))

    assert [len(target.application.accessories) for target in environment.targets] == [2, 0]
    assert [accessory["host"] for accessory in declared(tmp_path)["accessories"]] == ["web1", "web1"]


def test_everything_without_a_counterpart_is_listed(converts: Converts, capsys: pytest.CaptureFixture[str]) -> None:
    compose = """
secrets: {token: {file: ./token}}
services:
  web:
    image: a/web:1
    ports: ["80:80", "53:53/udp", "9000-9001:9000-9001", "81:81"]
    secrets: [token]
    sysctls: {net.core.somaxconn: 1024}
    profiles: [full]
    user: "not a user"
    env_file: missing.env
"""
    converts(compose)

    listed = notes(capsys)
    for part in (
        "secrets: no counterpart",
        "web: the port 53:53/udp has no counterpart",
        "web: the port 9000-9001:9000-9001 has no counterpart",
        "web: 81 beside 80: a service has one port",
        "web: secrets has no counterpart",
        "web: sysctls has no counterpart",
        "web: has profiles",
        "web: user not a user was left out: expected a user of the image",
        "web: the env file missing.env cannot be read",
    ):
        assert any(note.startswith(part) for note in listed), part


@pytest.mark.parametrize(
    ("test", "path"),
    [
        ('["CMD", "curl", "-f", "http://localhost:3000/status"]', "/status"),
        ('["CMD-SHELL", "curl --noproxy localhost localhost:3000/up | grep OK"]', "/up"),
        ('"wget -q 127.0.0.1:3000/a/b?x=1"', "/a/b"),
        ('["CMD", "curl", "http://localhost:9999/other"]', "/"),
        ('["CMD", "true"]', "/"),
    ],
)
def test_health_path_comes_from_the_command(converts: Converts, test: str, path: str) -> None:
    compose = f"services: {{web: {{image: 'a/b:1', ports: ['3000:3000'], healthcheck: {{test: {test}}}}}}}"

    (web,) = app_of(converts(compose)).services

    assert (web.container_port, web.gate.path) == (3000, path)


def test_reference_without_a_value_is_listed(converts: Converts, capsys: pytest.CaptureFixture[str]) -> None:
    compose = """
services:
  web:
    image: a/b:1
    ports: ["${PORT:-80}:80"]
    command: serve --key $ACCESS_ID
    volumes: ["${DATA}:/data"]
"""
    (web,) = app_of(converts(compose)).services

    assert (web.command, web.options.volumes) == (("serve", "--key"), (Volume("web--data", "/data"),))
    assert "ACCESS_ID: has no value, and was replaced with nothing in 'serve --key $ACCESS_ID'" in notes(capsys)


def test_error_about_a_key_that_was_not_written_drops_nothing() -> None:
    converted = Converted(services=[{"name": "web", "image": "a/b", "user": "x y"}])
    paths = ["services[0].name", "services[0].port", "services[3].user", "full_chain"]

    assert not converted.drop([ConfigIssue("deploy/services.yaml", path, "x", "y") for path in paths])
    assert converted.drop([ConfigIssue("deploy/services.yaml", "services[0].user", "'x y'", "a user")])
    assert converted.services == [{"name": "web", "image": "a/b"}]
    assert converted.notes == ["web: user x y was left out: expected a user"]


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        ("web:\n  image: a/web\n", "a Compose file with `services`"),
        ("services: []\n", "a Compose file with `services`"),
        ("services:\n  web:\n", "a Compose file with `services`"),
        ("services: {web: {image: A B}}\n", "lead to an invalid configuration"),
        ("services: {a: {image: 'redis:7'}}\n", "lead to an invalid configuration"),
        ("a: [\n", "The Compose file cannot be read"),
        ("", "The Compose file cannot be read"),
    ],
)
def test_unusable_file_is_refused_and_nothing_is_written(
    converts: Converts, tmp_path: Path, compose: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        converts(compose)

    assert [path.name for path in tmp_path.iterdir()] == ["compose.yaml"]


def test_file_and_services_together_are_refused(converts: Converts) -> None:
    with pytest.raises(ConfigError) as caught:
        converts(FRAMEWORK, service=("web=a/b:1:80",))

    assert [(issue.path, issue.expected) for issue in caught.value.issues] == [("--from", "one of the two")]


_KEYS = sorted(
    {"image", "build", "command", "entrypoint", "ports", "expose", "environment", "env_file", "volumes", "healthcheck"}
    | {"depends_on", "deploy", "mem_limit", "cpus", "labels", "ulimits", "extra_hosts", "links", "user", "tmpfs"}
    | {"stop_grace_period", "cap_add", "shm_size", "profiles"}
)
_TEXTS = ("", "web", "a/b:1", "postgres:16", "80:80", "99999", "1-2:3", "${A:-${B}}", "${A?x}", "$", "'", "./x:/y")
_NAMES = (
    "test",
    "context",
    "args",
    "target",
    "type",
    "source",
    "path",
    "soft",
    "resources",
    "limits",
    "condition",
    "=x",
)
_WORDS = st.sampled_from((*_TEXTS, *_NAMES, "/a:/b:ro"))
_VALUES = st.recursive(
    _WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3), max_leaves=6
)
_SERVICES = st.dictionaries(
    st.sampled_from(["web", "db", "Web_1", "web"]), st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5)
)


@given(services=_SERVICES, env=st.dictionaries(st.sampled_from(["A", "B"]), _WORDS))
@settings(max_examples=500, deadline=None)
def test_any_structure_is_converted_or_noted(services: dict[str, Any], env: dict[str, str]) -> None:
    converted = convert({"services": services}, "books", "", ".", lambda _: env)

    names = [entry["name"] for entry in (*converted.services, *converted.accessories)]
    assert len(names) <= len(services)
    assert all(isinstance(value, str) for value in converted.values.values())


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "back\\slash", "#x", "$x", "${x}", '"q"', "", "é"])
def test_dotenv_text_round_trip(value: str) -> None:
    from io import StringIO

    from dotenv import dotenv_values

    assert dotenv_values(stream=StringIO(f"KEY={dotenv_text(value)}\n"), interpolate=False) == {"KEY": value}


def test_what_the_operator_must_supply_is_noted(converts: Converts, capsys: pytest.CaptureFixture[str]) -> None:
    converts(
        """
services:
  web:
    image: a/web:1
    ports: ["80:8000"]
    environment: [MASTER_KEY, LANG]
    deploy: {replicas: 3}
  other: {image: "a/other:1", environment: 5}
"""
    )

    assert notes(capsys) == [
        "other: environment was left out: Compose does not have this form",
        "web: `health: /` is a guess; name the path that answers 2xx when it is healthy",
        "web: deploy.replicas 3 has no counterpart: a service has one container on each host",
        "other: without a port it is a worker; add `container_port` if it serves HTTP",
        "MASTER_KEY: has no value in the Compose file; write it into the env file",
    ]


def test_secrets_reach_neither_commands_nor_other_parts_of_services_yaml(tmp_path: Path) -> None:
    secrets = {"CACHE_PASSWORD": "Sup3rS3cret", "API_TOKEN": "t0kenAbCdEf", "LINK": "https://me:Pa55word@x.example"}
    (tmp_path / ".env").write_text("".join(f"{key}={value}\n" for key, value in secrets.items()))
    (tmp_path / "compose.yml").write_text("""\
services:
  web:
    image: example.com/web:1
    ports: ["8000:8000"]
    command: web --token ${API_TOKEN} $LINK
    environment: {CACHE_URL: "redis://:${CACHE_PASSWORD}@cache:6379/0"}
    labels: {note: "${NOTHING:-${API_TOKEN}}", other: "${DB_PASSWORD:-swordfish}"}
    healthcheck: {test: ["CMD-SHELL", "curl -H 'X: ${API_TOKEN}' localhost:8000/up"]}
  cache:
    image: redis:7
    command: [redis-server, --requirepass, "${CACHE_PASSWORD}"]
    healthcheck: {test: ["CMD", "redis-cli", "-a", "${CACHE_PASSWORD}", "ping"]}
""")
    target = tmp_path / "out"
    init(
        root=target,
        from_=str(tmp_path / "compose.yml"),
        app="shop",
        domain="shop.example",
        env="prod",
        user="deploy",
        certificate="self-signed",
        host=["a=192.0.2.9"],
        yes=True,
    )

    text = (target / "deploy/services.yaml").read_text()
    assert not [value for value in (*secrets.values(), "Pa55word", "swordfish") if value in text]
    assert "command" not in text
    assert "health: /up" in text
    assert "CACHE_PASSWORD=Sup3rS3cret" in (target / "deploy/prod.env").read_text()
