"""What `load` says when something is wrong: file, place, found, expected, and all of it at once."""

from __future__ import annotations

import pytest

from fabfile import config
from fabfile.errors import ConfigError, ExitCode, Mistake
from tests.config.project import Project

ENV_FILE = "deploy/demo.env"
SERVICES = "deploy/services.yaml"

ENV_MISTAKES = [
    ("APP_NAME", None),
    ("APP_NAME", "MemoryArk"),
    ("APP_NAME", "ark;reboot"),
    ("APP_NAME", "'../ark'"),
    ("APP_VERSION", None),
    ("ENVIRONMENT", None),
    ("ENVIRONMENT", "'a b'"),
    ("BACKEND_IMAGE", None),
    ("BACKEND_IMAGE", "'repo/backend;reboot'"),
    ("BACKEND_IMAGE", "'$(reboot)'"),
    ("BACKEND_IMAGE", "--privileged"),
    ("BACKEND_IMAGE", "Repo/Backend"),
    ("DOMAIN_NAME", None),
    ("DOMAIN_NAME", "'a.example.org; return 200'"),
    ("PROTOCOL", "gopher"),
    ("DATABASE_PATH", None),
    ("DATABASE_PATH", "data/ark.db"),
    ("DATABASE_PATH", "/ark.db"),
    ("DATABASE_PATH", "/srv/ark/"),
    ("DATABASE_PATH", "/srv/a:b/ark.db"),
    ("DATABASE_PATH", '"/srv/a\\nb/ark.db"'),
    ("UPLOADS_PATH", None),
    ("UPLOADS_PATH", "/srv/a,b"),
    ("UPLOADS_PATH", "/"),
    ("CONFIG_PATH", "'/srv/a b'"),
    ("DATABASE_BACKUP_PATH", "backups"),
    ("MAX_UPLOAD_SIZE", "1XB"),
    ("BACKEND_PORT", "web"),
    ("BACKEND_PORT", "45536"),
    ("NGINX_PORT", "0"),
    ("HTTPS_PORT", "70000"),
    ("JWT_SECRET_KEY", None),
    ("JWT_SECRET_KEY", ""),
    ("ADMIN_EMAIL", "nobody"),
    ("CLOUDFLARE_ACCESS_CERT_URL", "team.example.org"),
    ("MAX_CONCURRENT_UPLOADS", "many"),
    ("WORKER_PROCESSES", "0"),
    ("WORKER_CONNECTIONS", "-1"),
    ("ENABLE_CACHE", "maybe"),
    ("CACHE_TTL", "soon"),
    ("REDIS_URL", "localhost:6379"),
    ("LOG_LEVEL", "'info;'"),
    ("LOG_FILE", "logs/app.log"),
    ("METRICS_PORT", "http"),
    ("HEALTH_CHECK_INTERVAL", "0"),
    ("HEALTH_CHECK_TIMEOUT", "30 seconds"),
    ("HEALTH_CHECK_START_PERIOD", "1y"),
    ("HEALTH_CHECK_RETRIES", "0"),
    ("RESTART_POLICY", "sometimes"),
    ("BACKUP_RETENTION_DAYS", "forever"),
    ("AUTO_BACKUP_ENABLED", "daily"),
    ("BACKUP_SCHEDULE", "at night"),
    ("BACKEND_MEMORY_LIMIT", "lots"),
    ("BACKEND_MEMORY_LIMIT", "1M"),
    ("BACKEND_CPU_LIMIT", "half"),
    ("FRONTEND_CPU_LIMIT", "0"),
    ("NGINX_IMAGE", "'a b'"),
    ("NGINX_MEMORY_LIMIT", "big"),
    ("NGINX_CPU_LIMIT", "x"),
    ("MAINTENANCE_MODE", "2"),
    ("SLACK_WEBHOOK", "hooks.example.org"),
    ("WEBHOOK_URL", "file:///etc/passwd"),
    ("SMTP_HOST", "'mail;'"),
    ("SMTP_PORT", "smtp"),
    ("SMTP_FROM", "nobody"),
    ("SMTP_TO", "a@example.org;b@example.org"),
    ("SMTP_SECURITY", "ssl3"),
    ("NOTIFY_LANGUAGE", "klingon!"),
]


@pytest.mark.parametrize(("key", "value"), ENV_MISTAKES)
def test_load_wrong_value_is_one_mistake_at_its_key(project: Project, key: str, value: str | None) -> None:
    project.env({key: value})

    mistakes = project.mistakes()

    places = {(mistake.file, mistake.path) for mistake in mistakes}
    missing_version = {(ENV_FILE, "BACKEND_IMAGE"), (ENV_FILE, "FRONTEND_IMAGE")}
    assert places == (missing_version if key == "APP_VERSION" else {(ENV_FILE, key)})
    assert len(mistakes) == len(places)
    assert all(mistake.expected and mistake.found for mistake in mistakes)


def test_load_unusable_version_is_a_mistake_where_it_is_the_tag(project: Project) -> None:
    project.env({"APP_VERSION": "2.0.1+build;reboot"})

    assert project.places() == [(ENV_FILE, "APP_VERSION")]


@pytest.mark.parametrize(
    ("line", "place", "found"),
    [
        ("NGINX_PORT=80\nNGINX_PORT=81", "line 11", "NGINX_PORT a second time"),
        ("NGINX_PORT", "line 10", "NGINX_PORT without ="),
        ("\n\n= 3", "line 12", "text that is not a setting"),
        ("A-KEY=1", "line 10", "the key 'A-KEY'"),
        ('LOG_LEVEL="info', "line 10", "text that is not a setting"),
    ],
)
def test_load_malformed_line_is_a_mistake_at_its_line(
    project: Project, line: str, place: str, found: str
) -> None:
    project.env(extra=line)

    (mistake,) = project.mistakes()

    assert (mistake.file, mistake.path, mistake.found) == (ENV_FILE, place, found)


@pytest.mark.parametrize("value", ['"two\\nlines"', '"two\nlines"', '"a\\rb"', '"a\0b"'])
def test_load_value_for_a_container_in_several_lines_is_a_mistake(project: Project, value: str) -> None:
    project.env({"JWT_SECRET_KEY": value})

    (mistake,) = project.mistakes()

    assert (mistake.file, mistake.path) == (ENV_FILE, "JWT_SECRET_KEY")
    assert "one line" in mistake.expected
    assert "two" not in mistake.found


def test_load_https_without_a_certificate_names_both_keys(project: Project) -> None:
    project.env({"PROTOCOL": "https"})

    assert project.places() == [(ENV_FILE, "SSL_CERT_PATH"), (ENV_FILE, "SSL_KEY_PATH")]


@pytest.mark.parametrize(
    ("changes", "key", "found"),
    [
        ({"FRONTEND_PORT": "8080"}, "FRONTEND_PORT", "port 8080, which BACKEND_PORT has"),
        ({"BACKEND_PORT": "80"}, "BACKEND_PORT", "port 80, which NGINX_PORT has"),
        ({"FRONTEND_PORT": "18080"}, "BACKEND_PORT", "port 18080, which FRONTEND_PORT has"),
        (
            {"FRONTEND_PORT": "18081", "BACKEND_PORT": "8081"},
            "BACKEND_PORT",
            "port 18081, which FRONTEND_PORT has",
        ),
        ({"NGINX_PORT": "28080"}, "BACKEND_PORT", "port 28080, which NGINX_PORT has"),
    ],
)
def test_load_two_uses_of_one_port_are_a_mistake(
    project: Project, changes: dict[str, str], key: str, found: str
) -> None:
    project.env(changes)

    mistakes = project.mistakes()

    assert (ENV_FILE, key, found) in {(mistake.file, mistake.path, mistake.found) for mistake in mistakes}


def test_load_https_port_that_is_taken_is_a_mistake(project: Project) -> None:
    tls = {"PROTOCOL": "https", "SSL_CERT_PATH": "/etc/ssl/a.crt", "SSL_KEY_PATH": "/etc/ssl/a.key"}
    project.env({**tls, "HTTPS_PORT": "80"})

    assert project.places() == [(ENV_FILE, "HTTPS_PORT")]


def test_load_https_port_of_a_plain_site_is_free(project: Project) -> None:
    project.env({"HTTPS_PORT": "80"})

    assert project.load().targets[0].application.tls is None


def test_load_unknown_key_when_strict_is_a_mistake_with_the_nearest_name(project: Project) -> None:
    project.env({"BACKND_PORT": "8090"})

    assert project.mistakes(strict=True) == [
        Mistake(ENV_FILE, "BACKND_PORT", "an unknown key", "a known key; the nearest is BACKEND_PORT")
    ]


HOSTS_MISTAKES = [
    ("  demo:\n", "  demo:\n    usr: ark\n", "environments.demo.usr", "nearest is user"),
    ("  demo:\n", "  demo:\n    user: 'a;b'\n", "environments.demo.user", "login name"),
    ("  demo:\n", "  demo:\n    port: ssh\n", "environments.demo.port", "a port"),
    ("  demo:\n", "  demo:\n    jump: '-oProxyCommand=x'\n", "environments.demo.jump", "host"),
    (
        "  demo:\n",
        "  demo:\n    rollout: {batchs: 1}\n",
        "environments.demo.rollout.batchs",
        "nearest is batch",
    ),
    ("  demo:\n", "  demo:\n    rollout: {batch: 0%}\n", "environments.demo.rollout.batch", "percentage"),
    ("  demo:\n", "  demo:\n    rollout: fast\n", "environments.demo.rollout", "keys and values"),
    (
        "  demo:\n",
        "  demo:\n    rollout: {bake_seconds: long}\n",
        "environments.demo.rollout.bake_seconds",
        "a duration",
    ),
    ("  demo:\n", "  demo:\n    rollout: {parallel: 0}\n", "environments.demo.rollout.parallel", "1 to 256"),
    (
        "  demo:\n",
        "  demo:\n    rollout: {confirm: perhaps}\n",
        "environments.demo.rollout.confirm",
        "true or",
    ),
    ("  demo:\n", "  demo:\n    identity_file: nokey\n", "environments.demo.identity_file", "private key"),
    (
        "address: 192.0.2.12",
        "adress: 192.0.2.12",
        "environments.demo.hosts.web2.adress",
        "nearest is address",
    ),
    ("192.0.2.12", "'a b'", "environments.demo.hosts.web2.address", "an IP address"),
    ("192.0.2.12", "-oProxyCommand=x", "environments.demo.hosts.web2.address", "an IP address"),
    ("192.0.2.12", "192.0.2.11", "environments.demo.hosts.web2", "each host once"),
    ("192.0.2.12, roles: [web]", "192.0.2.12, roles: web", "environments.demo.hosts.web2.roles", "a list"),
    (
        "192.0.2.12, roles: [web]",
        "192.0.2.12, roles: ['a b']",
        "environments.demo.hosts.web2.roles[0]",
        "a letter",
    ),
    ("groups: [canary]", "groups: [web2]", "environments.demo.hosts.web1", "another name"),
    ("      web2:", "      'web 2':", "environments.demo.hosts.web 2", "a letter"),
    (
        "192.0.2.12",
        "192.0.2.12, env: {APP_NAME: x}",
        "environments.demo.hosts.web2.env.APP_NAME",
        "all hosts",
    ),
    (
        "192.0.2.12",
        "192.0.2.12, env: {BACKND_PORT: 1}",
        "environments.demo.hosts.web2.env.BACKND_PORT",
        "nearest is BACKEND_PORT",
    ),
    (
        "192.0.2.12",
        "192.0.2.12, env: {BACKEND_PORT: x}",
        "environments.demo.hosts.web2.env.BACKEND_PORT",
        "a port",
    ),
    (
        "192.0.2.12",
        "192.0.2.12, env: {LOG_LEVEL: [a]}",
        "environments.demo.hosts.web2.env.LOG_LEVEL",
        "text",
    ),
    ("environments:\n", "enviroments: {}\nenvironments:\n", "enviroments", "nearest is environments"),
    ("environments:\n", "environments:\n  'a b': {hosts: {x: }}\n", "environments.a b", "a letter"),
    ("environments:\n", "environments:\n  empty: {}\n", "environments.empty.hosts", "at least one host"),
    ("      web2:", "      web1:", "line 5", "each key once"),
    ("      web2:", "\tweb2:", "line 5", "spaces"),
    ("      web2:", "      [a, b]:", "line 5", "plain text"),
    ("roles: [web]}\n", "roles: [web}\n", "line 5", "valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "path", "expected"), HOSTS_MISTAKES)
def test_load_wrong_inventory_is_one_mistake_at_its_place(
    project: Project, old: str, new: str, path: str, expected: str
) -> None:
    project.edit("hosts.yaml", old, new)

    (mistake,) = project.mistakes()

    assert (mistake.file, mistake.path) == ("hosts.yaml", path)
    assert expected in mistake.expected


def test_load_same_address_in_another_letter_case_is_a_duplicate(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.11", "WEB.example.org")
    project.edit("hosts.yaml", "192.0.2.12", "web.example.org")

    assert project.places() == [("hosts.yaml", "environments.demo.hosts.web2")]


def test_load_same_address_with_another_port_is_another_host(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12", "192.0.2.11, port: 2222")

    assert len(project.load().targets) == 2


SERVICES_MISTAKES = [
    ("    alias: backend ", "    allias: backend ", "services[0].allias", "nearest is alias"),
    ("passes: 3, interval_seconds: 1, deadline_seconds: 120", "pases: 3", "services[0].gate.pases", "passes"),
    ("deadline_seconds: 120", "deadline_seconds: 2h", "services[0].gate.deadline_seconds", "a duration"),
    ("name: backend", "name: Back_End", "services[0].name", "a lower-case letter"),
    ("    image: BACKEND_IMAGE\n", "", "services[0].image", "a value"),
    ("image: BACKEND_IMAGE", "image: 'repo:tag'", "services[0].image", "env key"),
    ("container_port: 8080", "container_port: 80800", "services[0].container_port", "a port"),
    ("default_port: 8080", "default_port: 50000", "services[0].default_port", "colors"),
    ("health: /api/health", "health: api", "services[0].health", "a path"),
    ("prefix: /ws,", "prefix: '/ws; }',", "services[0].routes[1].prefix", "a path"),
    ("prefix: /ws,", "prefix: /api/,", "services[0].routes[1].prefix", "each once"),
    ("prefix: /}", "prefix: /ws}", "services[1].routes[0].prefix", "each once"),
    ("stream: true}   #", "strem: true}   #", "services[0].routes[0].strem", "nearest is stream"),
    ("target: /app/uploads", "target: /app/data", "services[0].mounts[1].target", "each once"),
    ("target: /app/uploads", "target: 'app:rw'", "services[0].mounts[1].target", "absolute path"),
    ("parent: true", "parent: 7", "services[0].mounts[0].parent", "true or false"),
    ("name: frontend", "name: backend", "services[1].name", "each once"),
    ("alias: frontend", "alias: backend", "services[1].alias", "each once"),
    ("{service: frontend, path", "{service: fronted, path", "full_chain.service", "one of backend, frontend"),
    ("path: /api/health}", "path: health}", "full_chain.path", "a path"),
    ("      - REDIS_URL", "      - 'REDIS URL'", "services[0].env[19]", "env key"),
    ("services:\n", "services: []\nservices_:\n", "services", "at least one"),
    ("services:\n", "Services:\n", "services", "a value"),
    ("    alias: backend ", "    alias: backend\n    alias: b ", "line 25", "each key once"),
    ("    alias: backend ", "\talias: backend ", "line 24", "spaces"),
]


@pytest.mark.parametrize(("old", "new", "path", "expected"), SERVICES_MISTAKES)
def test_load_wrong_services_are_a_mistake_at_their_place(
    project: Project, old: str, new: str, path: str, expected: str
) -> None:
    project.edit(SERVICES, old, new)

    mistakes = project.mistakes()

    assert {mistake.file for mistake in mistakes} == {SERVICES}
    assert any(mistake.path == path and expected in mistake.expected for mistake in mistakes)


def test_load_service_without_a_port_and_a_default_misses_its_key(project: Project) -> None:
    project.edit(SERVICES, "    default_port: 7001\n", "")

    assert project.places() == [(ENV_FILE, "FRONTEND_PORT")]


def test_load_mistakes_of_all_files_come_at_once(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12", "'a b', port: x")
    project.edit(SERVICES, "    alias: frontend", "    allias: frontend")
    project.env(
        {"APP_NAME": None, "BACKEND_IMAGE": "a b", "DOMAIN_NAME": None, "HEALTH_CHECK_TIMEOUT": "soon"}
    )

    error = project.refused(hosts=("web9",), tag="-x")

    assert {(mistake.file, mistake.path) for mistake in error.mistakes} == {
        ("hosts.yaml", "environments.demo.hosts.web2.address"),
        ("hosts.yaml", "environments.demo.hosts.web2.port"),
        (SERVICES, "services[1].allias"),
        (ENV_FILE, "APP_NAME"),
        (ENV_FILE, "BACKEND_IMAGE"),
        (ENV_FILE, "DOMAIN_NAME"),
        (ENV_FILE, "HEALTH_CHECK_TIMEOUT"),
        ("--hosts", ""),
        ("--tag", ""),
    }
    assert error.exit_code == ExitCode.USAGE
    assert "has 9 mistakes. Nothing was contacted." in str(error)


def test_load_inventory_that_is_not_yaml_still_checks_the_other_files(project: Project) -> None:
    project.write("hosts.yaml", "environments: [")
    project.edit(SERVICES, "health: /health", "health: health")
    project.env({"NGINX_PORT": "x"})

    assert {file for file, _ in project.places()} == {"hosts.yaml", SERVICES, ENV_FILE}


def test_load_services_that_are_not_yaml_still_check_the_env_file(project: Project) -> None:
    project.write(SERVICES, "services: [")
    project.env({"NGINX_PORT": "x", "BACKND_PORT": "1"})

    assert project.places() == [(SERVICES, "line 1"), (ENV_FILE, "NGINX_PORT")]


def test_load_faulty_service_left_out_brings_no_mistakes_of_its_own(project: Project) -> None:
    project.edit(SERVICES, "name: frontend\n", "name: Front\n")

    assert project.places() == [(SERVICES, "services[1].name")]


@pytest.mark.parametrize("path", [ENV_FILE, SERVICES])
def test_load_missing_file_is_a_mistake(project: Project, path: str) -> None:
    (project.root / path).unlink()

    (mistake,) = project.mistakes()

    assert (mistake.file, mistake.found) == (path, "no such file")


@pytest.mark.parametrize("path", [ENV_FILE, SERVICES, "hosts.yaml"])
def test_load_file_that_is_not_text_is_a_mistake(project: Project, path: str) -> None:
    project.write(path, b"\xff\xfe\x00")

    (mistake,) = project.mistakes()

    assert (mistake.file, mistake.found) == (path, "bytes that are not UTF-8")


@pytest.mark.parametrize("path", [ENV_FILE, SERVICES, "hosts.yaml"])
def test_load_unreadable_file_is_a_mistake(project: Project, path: str) -> None:
    (project.root / path).unlink()
    (project.root / path).mkdir()

    (mistake,) = project.mistakes()

    assert mistake.file == path
    assert "cannot be read" in mistake.found


@pytest.mark.parametrize("content", ["", "just text", "- a\n- b", "a: b\n---\nc: d", "[" * 5000, "a: \x07"])
def test_load_inventory_of_another_shape_is_a_mistake(project: Project, content: str) -> None:
    project.write("hosts.yaml", content)

    assert {file for file, _ in project.places()} == {"hosts.yaml"}


def test_load_secret_in_a_mistake_is_hidden(project: Project) -> None:
    project.env({"SLACK_WEBHOOK": "T000/B000/hush", "REDIS_URL": "http://:hush@cache"})
    project.edit("hosts.yaml", "192.0.2.12", "192.0.2.12, env: {JWT_SECRET_KEY: [hush]}")

    error = project.refused()

    assert len(error.mistakes) == 3
    assert "hush" not in str(error)
    assert "a hidden value of 14 characters" in str(error)


def test_load_long_value_in_a_mistake_is_shortened_and_escaped(project: Project) -> None:
    project.env({"DOMAIN_NAME": '"\\x1b[31m' + "a" * 500 + '"'})

    (mistake,) = project.mistakes()

    assert len(mistake.found) <= 80
    assert mistake.found.isprintable()


def test_load_unknown_host_lists_the_words_there_are(project: Project) -> None:
    assert project.mistakes(hosts=("web1", "web9")) == [
        Mistake("--hosts", "", "'web9'", "hosts, groups or roles of: web1, web2, canary, web")
    ]


def test_load_unusable_tag_is_a_mistake(project: Project) -> None:
    (mistake,) = project.mistakes(tag="v1;reboot")

    assert (mistake.file, mistake.found) == ("--tag", "'v1;reboot'")


def test_load_no_environment_lists_those_there_are(project: Project) -> None:
    project.write(".lab/lab/hosts.yaml", "environments: {lab: {hosts: {web1: }}}")

    error = project.refused(None)

    assert error.exit_code == ExitCode.USAGE
    assert "Environments: demo, lab." in str(error)
    assert "--env" in error.next_step


def test_load_unknown_environment_names_the_nearest(project: Project) -> None:
    error = project.refused("demoo")

    assert "There is no environment 'demoo' (nearest: demo)." in str(error)


def test_load_environment_in_two_files_is_a_mistake(project: Project) -> None:
    project.write(".lab/demo/hosts.yaml", "environments: {demo: {hosts: {web1: }}}")

    (mistake,) = project.mistakes()

    assert mistake.file == "hosts.yaml and .lab/demo/hosts.yaml"
    assert mistake.path == "environments.demo"


def test_load_without_any_inventory_says_so(project: Project) -> None:
    (project.root / "hosts.yaml").unlink()

    error = project.refused(None)

    assert config.environments(project.root) == ()
    assert "Environments: none." in str(error)
    assert error.mistakes[0].file == "hosts.yaml"


def test_load_mistakes_of_each_host_are_kept_once(project: Project) -> None:
    project.env({"BACKEND_PORT": "x"})

    error = project.refused()

    assert isinstance(error, ConfigError)
    assert len(error.mistakes) == 1
