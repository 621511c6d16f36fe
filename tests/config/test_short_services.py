"""A short services.yaml: assigned ports, routes and mounts as text, and the forms of environment variables."""

from __future__ import annotations

import re
from itertools import permutations

import pytest

from rolling_upgrade.config.ports import assigned, uses
from rolling_upgrade.engine.model import Application, Gate, Mount, Route
from tests.support.project import ROOT, Project

SERVICES_FILE = "deploy/services.yaml"
ENV_FILE = "deploy/demo.env"


def short(project: Project, *services: str) -> Project:
    """Write a services file with these services, and an env file with the required keys alone."""
    lines = "".join(f"  - {{{service}}}\n" for service in services)
    project.write(SERVICES_FILE, f"services:\n{lines}")
    project.write(ENV_FILE, "APP_NAME=shop\nDOMAIN_NAME=shop.example.org\nSECRET_KEY=correct-horse\n")
    return project


WEB = "name: web, image: 'ghcr.io/acme/shop:v1', container_port: 8000, health: /up, routes: [/], env: [SECRET_KEY]"
API = "name: api, image: 'ghcr.io/acme/api:v1', container_port: 8000"
DOCS = "name: docs, image: 'ghcr.io/acme/docs:v1', container_port: 8000"


def append(project: Project, lines: str) -> None:
    """Add lines to the env file."""
    with (project.root / ENV_FILE).open("a") as file:
        file.write(lines)


def ports(app: Application) -> dict[str, int]:
    return {service.name: service.service_port for service in app.services}


def test_one_line_and_three_keys_are_an_application(project: Project) -> None:
    environment = short(project, WEB).load(strict=True)

    app = environment.targets[0].application
    (web,) = app.services
    assert environment.warnings == ()
    assert (app.name, app.environment) == ("shop", "demo")
    assert (web.routes, web.gate.path, web.env) == ((Route("/"),), "/up", (("SECRET_KEY", "correct-horse"),))
    assert (web.gate.passes, web.memory_bytes, web.mounts) == (Gate.passes, None, ())


COMPLETE = """\
services:
  - name: web
    image: ghcr.io/acme/shop
    container_port: 8000
    health: /up
    routes: [/]
    env: [SECRET_KEY, DATABASE_URL]
  - {name: worker, image: ghcr.io/acme/shop, command: celery -A shop worker, env: [SECRET_KEY, DATABASE_URL]}
"""


def test_web_and_worker_are_an_application(project: Project) -> None:
    short(project, WEB)
    project.write(SERVICES_FILE, COMPLETE)
    append(project, "DATABASE_URL=mysql://shop:pass-word@db/shop\n")

    environment = project.load(strict=True, tag="v1")

    web, worker = environment.targets[0].application.services
    assert environment.warnings == ("no backup contains the database of web, worker in DATABASE_URL (db/shop)",)
    assert (worker.is_worker, worker.command) == (True, ("celery", "-A", "shop", "worker"))
    assert (web.image, worker.image.reference) == (worker.image, "ghcr.io/acme/shop:v1")
    assert (
        web.env
        == worker.env
        == (
            ("SECRET_KEY", "correct-horse"),
            ("DATABASE_URL", "mysql://shop:pass-word@db/shop"),
        )
    )


PAGE = (ROOT / "docs/guides/first-configuration.md").read_text("utf-8")
BLOCKS = [
    block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "services:" in block
]


@pytest.mark.parametrize("block", BLOCKS)
def test_example_of_the_documentation_is_valid(project: Project, block: str) -> None:
    short(project, WEB)
    project.write(SERVICES_FILE, block)
    keys = ["DATABASE_URL", "WEB_DATABASE_URL", "REDIS_PASSWORD", "WEB_CPUS=1", "CERTIFICATES=/srv/certificates"]
    append(project, "".join(f"{key if '=' in key else f'{key}=mysql://x'}\n" for key in keys))

    assert project.load(tag="v1").targets[0].application.services


def test_environment_of_the_env_file_is_used(project: Project) -> None:
    short(project, WEB)
    append(project, "ENVIRONMENT=production\n")

    assert project.application().environment == "production"


def test_assigned_ports_do_not_depend_on_the_other_services(project: Project) -> None:
    alone = {**ports(short(project, WEB).application()), **ports(short(project, API).application())}

    for order in permutations((WEB, API, DOCS)):
        found = ports(short(project, *order).application())
        assert {name: found[name] for name in alone} == alone
        assert len(set(found.values())) == 3


def test_assigned_ports_differ_between_applications_and_environments_share_them() -> None:
    assert assigned("shop", ["web"], ()) == assigned("shop", ["web"], ())
    assert assigned("shop", ["web"], ()) != assigned("shop2", ["web"], ())


def test_assigned_ports_never_clash() -> None:
    names = [f"service-{number}" for number in range(500)]

    found = assigned("shop", names, taken=range(4000, 6000))

    used = [use for port in found.values() for use in uses(port)]
    assert len(used) == len(set(used)) == 1500
    assert not set(used) & {*range(6000), 6379, 8080, 8443, 9100, 15672, 27017}
    assert max(used) < 32_768


def test_assigned_port_avoids_a_configured_one(project: Project) -> None:
    usual = ports(short(project, WEB).application())["web"]

    found = ports(short(project, WEB, f"{API}, port: {usual}").application())
    assert found["api"] == usual
    assert found["web"] != usual

    found = ports(short(project, WEB, f"{API}, port: {usual + 10_000}").application())
    assert usual + 10_000 not in uses(found["web"])


def test_port_of_a_key_without_a_value_is_still_required(project: Project) -> None:
    short(project, f"{WEB}, port: WEB_PORT")

    assert project.places() == [(ENV_FILE, "WEB_PORT")]


def test_mounts_as_text(project: Project) -> None:
    mounts = "mounts: ['/srv/shop:/data', 'MEDIA_PATH:/media:ro', '/srv/a:/b:rw']"
    short(project, f"{WEB}, {mounts}")
    append(project, "MEDIA_PATH=/srv/media\n")

    assert project.application().services[0].mounts == (
        Mount("/srv/shop", "/data"),
        Mount("/srv/media", "/media", read_only=True),
        Mount("/srv/a", "/b"),
    )


ENV = """\
      - PLAIN
      - RENAMED: OTHER_KEY
      - LITERAL: debug, if any
      - CAPITALS: {value: DEBUG}
      - URL: postgresql://app:${DB_PASSWORD}@db:5432/${DB_NAME:-shop}
      - DOLLAR: {value: "$HOME $${X}"}
      - EMPTY: {value: ""}
      - SAME:
"""


def with_env(project: Project, env: str) -> Project:
    short(project, "name: api, image: 'x/y:1', container_port: 80")
    project.write(SERVICES_FILE, f"services:\n  - name: web\n    image: x/y:1\n    container_port: 80\n    env:\n{env}")
    append(project, "PLAIN=a\nOTHER_KEY=b\nDB_PASSWORD=pass-word\nSAME=c\nUNUSED=\n")
    return project


def test_forms_of_environment_variables(project: Project) -> None:
    environment = with_env(project, ENV).load()

    assert environment.targets[0].application.services[0].env == (
        ("PLAIN", "a"),
        ("RENAMED", "b"),
        ("LITERAL", "debug, if any"),
        ("CAPITALS", "DEBUG"),
        ("URL", "postgresql://app:pass-word@db:5432/shop"),
        ("DOLLAR", "$HOME ${X}"),
        ("EMPTY", ""),
        ("SAME", "c"),
    )
    assert "postgresql://app:pass-word@db:5432/shop" in environment.secrets
    assert [
        warning for warning in environment.warnings if "UNUSED" not in warning and "SECRET_KEY" not in warning
    ] == []


def test_environment_as_a_mapping(project: Project) -> None:
    with_env(project, "      PLAIN:\n      RENAMED: OTHER_KEY\n      FIXED: {value: x}\n")

    env = project.application().services[0].env

    assert env == (("PLAIN", "a"), ("RENAMED", "b"), ("FIXED", "x"))


def test_two_services_read_one_variable_with_different_values(project: Project) -> None:
    short(project, f"{API}, env: [{{MODE: web}}]", f"{DOCS}, env: [{{MODE: docs}}]")

    assert [service.env for service in project.application().services] == [(("MODE", "web"),), (("MODE", "docs"),)]


def test_key_of_a_mount_gives_the_path_inside_under_any_name(project: Project) -> None:
    short(project, f"{API}, mounts: ['MEDIA_PATH:/media'], env: [{{MEDIA_ROOT: MEDIA_PATH}}]")
    append(project, "MEDIA_PATH=/srv/media\n")

    assert project.application().services[0].env == (("MEDIA_ROOT", "/media"),)


@pytest.mark.parametrize(
    ("env", "place", "expected"),
    [
        ("      - {A: b, C: d}\n", "services[0].env[0]", "NAME: {value: text}"),
        ("      - {A: {text: b}}\n", "services[0].env[0]", "NAME: {value: text}"),
        ("      - [A]\n", "services[0].env[0]", "NAME: {value: text}"),
        ("      - A B\n", "services[0].env[0]", "name of an env key"),
        ('      - {A: "a\\nb"}\n', "services[0].env[0].literal", "without line breaks"),
        ("      - A: ${B\n", "services[0].env", "${KEY} or ${KEY:-default}"),
    ],
)
def test_invalid_variable_is_reported(project: Project, env: str, place: str, expected: str) -> None:
    issues = with_env(project, env).issues()

    assert [(issue.file, issue.path) for issue in issues] == [(SERVICES_FILE, place)]
    assert expected in issues[0].expected


@pytest.mark.parametrize("mount", ["/srv", "/srv:", ":/data", "/srv:/data:z", "/srv:/data:ro:rw"])
def test_invalid_mount_text_is_reported(project: Project, mount: str) -> None:
    (issue,) = short(project, f"{API}, mounts: ['{mount}']").issues()

    assert issue.file == SERVICES_FILE
    assert issue.path.startswith("services[0].mounts[0]")


def test_secret_that_several_services_lack_is_one_warning(project: Project) -> None:
    short(project, f"{API}, env: [API_TOKEN]")
    project.write(SERVICES_FILE, COMPLETE)

    environment = project.load(tag="v1")

    assert environment.warnings == (
        "deploy/demo.env: DATABASE_URL: not set, so the services web, worker start without it; "
        "write DATABASE_URL= if they need none",
    )


def test_secret_that_is_not_set_is_a_warning_and_an_error_when_strict(project: Project) -> None:
    short(project, f"{API}, env: [API_TOKEN, LOG_LEVEL, SECRET_KEY]")

    (warning,) = project.load().warnings
    assert warning == (
        "deploy/demo.env: API_TOKEN: not set, so the service api starts without it; write API_TOKEN= if it needs none"
    )
    (issue,) = project.issues(strict=True)
    assert (issue.file, issue.path, issue.expected) == (
        ENV_FILE,
        "API_TOKEN",
        "a value for the service api, or API_TOKEN= for none",
    )

    append(project, "API_TOKEN=\n")
    assert project.load(strict=True).warnings == ()


def test_variable_in_the_form_of_compose_is_refused_without_its_secret(project: Project) -> None:
    secret, literal = short(project, f"{API}, env: [API_TOKEN=correct-horse, MODE=fast]").issues()

    assert (secret.found, literal.found) == ("a secret of 23 characters", "'MODE=fast'")
    assert secret.expected.endswith("NAME: {value: text}; a colon and a space in place of =")
