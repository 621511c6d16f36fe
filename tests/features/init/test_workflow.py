"""`inv init` without a terminal: the files load strictly, all or none are written, and no existing file is lost."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rolling_upgrade import config, rendering
from rolling_upgrade.engine import local_file
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.configuration import workflow as configuration
from rolling_upgrade.features.init.answers import SERVICE
from rolling_upgrade.features.init.workflow import init
from tests.support.project import MEMORYARK, ROOT

VALUES = {"app": "shop", "domain": "shop.example.org"}
SERVICES = ("api=reg.example.org/shop/api:v1:8000", "web=localhost:5000/shop/web:8080")
FILES = ("hosts.yaml", "deploy/services.yaml", "deploy/production.env")
SCHEMAS = ("deploy/schema/hosts.json", "deploy/schema/services.json")
#: The further files of a repository that uses the installed package.
NEW = ("tasks.py", "deploy/.gitignore", *SCHEMAS)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)


def init_in(destination: Path, **changes: Any) -> ExitCode:
    arguments = {**VALUES, "service": SERVICES, "host": ("web1=192.0.2.11", "web2=2001:db8::1"), **changes}
    return init(root=ROOT, **{"directory": str(destination), **arguments})


def files(destination: Path) -> dict[str, bytes]:
    return {str(path.relative_to(destination)): path.read_bytes() for path in destination.rglob("*") if path.is_file()}


def places(error: ConfigError) -> list[str]:
    return [issue.path for issue in error.issues]


def test_init_written_files_load_strictly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init_in(tmp_path) == ExitCode.DONE

    found = config.load("production", root=tmp_path, strict=True)
    app = found.targets[0].application
    assert (app.name, app.domain, app.environment, app.tls) == ("shop", "shop.example.org", "production", None)
    assert [(service.name, service.image.reference, service.container_port) for service in app.services] == [
        ("api", "reg.example.org/shop/api:v1", 8000),
        ("web", "localhost:5000/shop/web:latest", 8080),
    ]
    assert [[route.prefix for route in service.routes] for service in app.services] == [["/api/"], ["/"]]
    assert [(target.name, target.address, target.user) for target in found.targets] == [
        ("web1", "192.0.2.11", "deploy"),
        ("web2", "2001:db8::1", "deploy"),
    ]
    assert set(files(tmp_path)) == {*FILES, *NEW}
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in FILES]
    assert modes == [0o644, 0o644, 0o600]
    for name in FILES[:2]:
        path = tmp_path / name
        comment, _, _ = path.read_text().partition("\n")
        schema = path.parent / comment.removeprefix("# yaml-language-server: $schema=")
        assert json.loads(schema.read_text())["properties"].keys() >= yaml.safe_load(path.read_text()).keys()
    assert configuration.check("production", root=tmp_path, strict=True) == ExitCode.DONE
    output = capsys.readouterr().out
    steps = ("config.check", "trust", "setup", "deploy")
    assert all(f"rolling-upgrade {step} --env production" in output for step in steps)


def test_init_files_are_short_and_name_the_page_that_explains_them(tmp_path: Path) -> None:
    init_in(tmp_path)

    texts = [(tmp_path / name).read_text() for name in FILES]

    assert [len(text.splitlines()) for text in texts] == [7, 11, 5]
    assert all("docs/settings.md" in text for text in texts)
    page = "docs/guides/first-configuration.md"
    assert all(page in text for text in texts[:2])
    assert (ROOT / page).is_file()


@pytest.mark.parametrize("certificate", ["self-signed", "acme", "files"])
def test_init_certificate_makes_the_site_https(tmp_path: Path, certificate: str) -> None:
    email = {"email": "o'hara+#1@example.org"} if certificate == "acme" else {}
    init_in(tmp_path, certificate=certificate, **email)

    found = config.load("production", root=tmp_path, strict=True)
    assert found.preparation.certificate.value == certificate
    assert found.preparation.acme_email == email.get("email", "")
    assert found.targets[0].application.tls is not None


@pytest.mark.parametrize("name", ["yes", "no", "null", "On", "e1", "true", "y", "None", "NaN"])
def test_init_words_that_yaml_reads_as_other_types_stay_text(tmp_path: Path, name: str) -> None:
    hosts = (f"{name}=on", "1e3=0x10", "0o17=1.5", "12=::1", "2026-01-01=none")
    init_in(tmp_path, env=name, host=hosts)

    content = yaml.safe_load((tmp_path / "hosts.yaml").read_text())
    assert list(content["environments"]) == [name]
    found = {host: entry["address"] for host, entry in content["environments"][name]["hosts"].items()}
    assert found == dict(host.split("=") for host in hosts)
    assert [target.name for target in config.load(name, root=tmp_path).targets] == list(found)


def test_init_health_and_paths_of_services(tmp_path: Path) -> None:
    init_in(tmp_path, health=("api=/up",), route=("api=/,/ws", "web=none"))

    api, web = config.load("production", root=tmp_path, strict=True).targets[0].application.services
    assert (api.gate.path, web.gate.path) == ("/up", "/health")
    assert [[route.prefix for route in service.routes] for service in (api, web)] == [["/", "/ws"], []]


def test_init_service_without_paths_leaves_the_root_path_to_the_one_before_it(tmp_path: Path) -> None:
    init_in(tmp_path, service=("site=r.test/x:v1:80", "worker=r.test/y:v1:81"), route=("worker=none",))

    application = config.load("production", root=tmp_path, strict=True).targets[0].application
    assert [[route.prefix for route in service.routes] for service in application.services] == [["/"], []]


def test_init_without_answers_lists_every_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        init(root=ROOT, directory=str(tmp_path))

    assert caught.value.exit_code == ExitCode.USAGE
    assert places(caught.value) == ["--app", "--domain", "--service", "--host"]
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "places_of"),
    [
        ({"app": "Shop", "domain": "a b"}, ["--app", "--domain"]),
        (
            {"env": "a/b", "user": "no one", "certificate": "x"},
            ["--env", "--user", "--certificate"],
        ),
        ({"certificate": "acme"}, ["--email"]),
        ({"email": "a@example.org"}, ["--email"]),
        ({"app": ""}, ["--app"]),
        ({"service": ("web",)}, ["--service"]),
        ({"service": ("web=r.test/x",)}, ["--service"]),
        ({"service": ("web=r.test/x:v1",)}, ["--service"]),
        ({"service": ("web=r.test/x:70000",)}, ["--service"]),
        ({"service": ("web=r.test/x:1", "web=r.test/y:2")}, ["--service"]),
        ({"service": ("Web=r.test/x:1",)}, ["--service"]),
        ({"host": ("a=192.0.2.1", "b=192.0.2.1")}, ["--host"]),
        ({"host": ("a=192.0.2.1", "a=192.0.2.2")}, ["--host"]),
        ({"host": ("a=",)}, ["--host"]),
        ({"host": ("a=b c",)}, ["--host"]),
        ({"health": ("db=/x",)}, ["--health"]),
        ({"health": ("api=x",)}, ["--health"]),
        ({"route": ("api=/a/,/a/",)}, ["--route"]),
        ({"route": ("api=/", "web=/")}, ["--route"]),
        ({"route": ("web=/api/",)}, ["--route"]),
    ],
)
def test_init_invalid_answers_are_refused_with_their_option(
    tmp_path: Path, changes: dict[str, object], places_of: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        init_in(tmp_path, **changes)

    assert sorted(places(caught.value)) == sorted(places_of)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", FILES)
def test_init_keeps_existing_files_unless_forced(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / name).write_text("mine")
    (tmp_path / name).chmod(0o640)
    with pytest.raises(ConfigError, match=f"has {name} already"):
        init_in(tmp_path)
    assert files(tmp_path) == {name: b"mine"}

    assert init_in(tmp_path, force=True) == ExitCode.DONE
    stem, _, ending = name.rpartition(".")
    old = tmp_path / f"{stem}.bak.{ending}"
    assert (old.read_bytes(), stat.S_IMODE(old.stat().st_mode)) == (b"mine", 0o640)
    assert f"Kept: {old}" in capsys.readouterr().out

    assert init_in(tmp_path, force=True) == ExitCode.DONE
    assert old.read_bytes() == b"mine"
    assert (tmp_path / f"{stem}.bak2.{ending}").is_file()
    config.load("production", root=tmp_path, strict=True)


def test_init_kept_env_file_is_ignored_by_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    init_in(tmp_path)
    init_in(tmp_path, force=True)

    listed = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ".env" not in listed.stdout


def test_init_keeps_the_tasks_of_a_team_and_names_the_console_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tasks.py").write_text("# ours\n")

    assert init_in(tmp_path) == ExitCode.DONE

    assert set(files(tmp_path)) == {*FILES, *NEW}
    assert (tmp_path / "tasks.py").read_text() == "# ours\n"
    output = capsys.readouterr().out
    assert "  rolling-upgrade deploy --env production --dry-run " in output
    assert "  inv " not in output


def test_init_keeps_the_gitignore_of_a_team(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/.gitignore").write_text("*.env\n")

    assert init_in(tmp_path) == ExitCode.DONE

    assert set(files(tmp_path)) == {*FILES, *NEW}
    assert (tmp_path / "deploy/.gitignore").read_text() == "*.env\n"
    assert "  rolling-upgrade deploy --env production --dry-run " in capsys.readouterr().out


def test_init_in_a_clone_of_this_project_writes_only_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rolling_upgrade").mkdir()
    (tmp_path / "rolling_upgrade/__init__.py").touch()

    assert init_in(tmp_path) == ExitCode.DONE

    assert set(files(tmp_path)) == {*FILES, *SCHEMAS, "rolling_upgrade/__init__.py"}
    assert "  rolling-upgrade deploy --env production --dry-run " in capsys.readouterr().out


def test_init_in_a_new_repository_ignores_the_env_file(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    init_in(tmp_path)
    init_in(tmp_path, force=True)

    listed = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "tasks.py" in listed.stdout
    assert ".env" not in listed.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone, whose Git tracks the example configuration."""
    shutil.copytree(MEMORYARK, tmp_path, dirs_exist_ok=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "as shipped"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_init_in_a_fresh_clone_replaces_the_example(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init_in(clone) == ExitCode.DONE

    assert f"--- {clone}/hosts.yaml (replaces the example; Git has it)" in capsys.readouterr().out
    assert config.environments(clone) == ("production",)
    assert list(clone.rglob("*.bak.*")) == []


@pytest.mark.parametrize("name", FILES[:2])
def test_init_in_a_clone_keeps_an_edited_file(clone: Path, name: str) -> None:
    with (clone / name).open("a") as file:
        file.write("# mine\n")
    before = files(clone)

    with pytest.raises(ConfigError, match=name):
        init_in(clone)

    assert files(clone) == before


def test_init_in_a_clone_keeps_a_committed_inventory_with_real_hosts(clone: Path) -> None:
    path = clone / "hosts.yaml"
    path.write_text(path.read_text().replace("192.0.2.21", "10.0.0.21"))
    subprocess.run(["git", "-C", str(clone), "add", "."], check=True)
    before = files(clone)

    with pytest.raises(ConfigError, match=r"has hosts\.yaml, deploy/services\.yaml already"):
        init_in(clone)

    assert files(clone) == before


def test_init_forced_keeps_an_env_file_that_git_tracks(clone: Path) -> None:
    (clone / FILES[2]).write_text("$ANSIBLE_VAULT;1.1;AES256\n00\n")
    subprocess.run(["git", "-C", str(clone), "add", "--force", "."], check=True)
    before = files(clone)

    with pytest.raises(ConfigError, match="is tracked by Git"):
        init_in(clone, force=True)

    assert files(clone) == before


@pytest.mark.parametrize("name", ["a b/資料", "x'y", "-n", "deep/er/still"])
def test_init_directory_name_with_unusual_characters_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    init_in(tmp_path, directory=name)

    config.load("production", root=tmp_path / name, strict=True)


@pytest.mark.parametrize("name", ["a\0b", "~nobody-at-all/x", "x" * 5000])
def test_init_impossible_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError):
        init_in(tmp_path, directory=name)

    assert files(tmp_path) == {}


def test_init_name_of_a_lab_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lab/x").mkdir(parents=True)
    (tmp_path / ".lab/x/hosts.yaml").write_text("environments: {lab: {hosts: {web1: }}}\n")

    with pytest.raises(ConfigError, match="a lab here has this one"):
        init_in(tmp_path, env="lab")


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_init_failed_write_restores_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException
) -> None:
    (tmp_path / "deploy").mkdir()
    for name in FILES[:2]:
        (tmp_path / name).write_text(f"mine: {name}")
    before, real, calls = files(tmp_path), local_file._sync, []

    def sync(destination: Path) -> None:
        calls.append(destination)
        if len(calls) == at + 2:  # the old two were kept before
            raise error
        real(destination)

    monkeypatch.setattr(local_file, "_sync", sync)
    with pytest.raises(ConfigError if isinstance(error, OSError) else KeyboardInterrupt):
        init_in(tmp_path, force=True)

    assert files(tmp_path) == before


def test_init_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(ConfigError, match="None of them was"):
        init_in(tmp_path / "file")


def test_init_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/hosts.yaml").write_text("mine")
    (tmp_path / "hosts.yaml").symlink_to("elsewhere/hosts.yaml")

    init_in(tmp_path, force=True)

    assert (tmp_path / "hosts.yaml").is_symlink()
    assert (tmp_path / "elsewhere/hosts.bak.yaml").read_text() == "mine"


_text = st.text(max_size=12) | st.sampled_from(
    [
        "yes",
        "1e3",
        "a#b",
        "a: b",
        "'",
        '"',
        "${x}",
        "資料",
        "a b",
        "-n",
        "{{ x }}",
        "{% x %}",
        "\ud800",
        "~",
        "a\nB=c",
        "*x",
    ]
)
_word = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}", fullmatch=True)


def _near(good: str, other: st.SearchStrategy[str] = _word) -> st.SearchStrategy[str]:
    return st.just(good) | other | _text


@given(
    values=st.fixed_dictionaries(
        {"app": _near("shop"), "domain": _near("a.example.org")},
        optional={
            "env": _near("staging"),
            "user": _near("ann"),
            "certificate": st.sampled_from(["none", "self-signed", "files", "acme", "x"]),
            "email": _near("a@b.c", st.emails()),
        },
    ),
    services=st.lists(
        st.builds("{}={}:{}".format, _near("web"), _near("r.test/x:v1"), st.integers(1, 65535) | _text),
        min_size=1,
        max_size=3,
    ),
    hosts=st.lists(st.builds("{}={}".format, _near("web1"), _near("192.0.2.1")) | _text, min_size=1, max_size=3),
    routes=st.lists(st.builds("{}={}".format, st.just("web"), _near("/a/")), max_size=1),
)
@settings(max_examples=250, deadline=None)
def test_init_answers_are_written_literally_or_refused(
    values: dict[str, Any], services: list[str], hosts: list[str], routes: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        destination = Path(place)
        try:
            init(root=ROOT, directory=place, **values, service=services, host=hosts, route=routes)
        except ConfigError as error:
            str(error).encode()
            assert files(destination) == {}
            return
        env = values.get("env", "production")
        found = config.load(env, root=destination, strict=True)
        assert configuration.check(env, root=destination, strict=True) == ExitCode.DONE
        content = yaml.safe_load((destination / "hosts.yaml").read_text())["environments"]
        declared = yaml.safe_load((destination / "deploy/services.yaml").read_text())["services"]
    app = found.targets[0].application
    assert (app.name, app.domain, app.environment) == (values["app"], values["domain"], env)
    assert list(content) == [env]
    assert list(content[env]["hosts"]) == [host.partition("=")[0] for host in hosts]
    assert {target.user for target in found.targets} == {values.get("user", "deploy")}
    assert [entry["name"] for entry in declared] == [text.partition("=")[0] for text in services]
    assert [str(service.container_port) for service in app.services] == [
        str(int(text.rpartition(":")[2])) for text in services
    ]
    if values.get("certificate") == "acme":
        assert found.preparation.acme_email == values["email"]


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | _text.filter(lambda text: text.isprintable()))
@settings(max_examples=200, deadline=None)
def test_yaml_text_round_trip_keeps_the_text(text: str) -> None:
    assert yaml.safe_load(rendering.yaml_document({"a": text, text: ["b", text]})) == {"a": text, text: ["b", text]}


def test_init_service_example_of_the_help_is_valid(tmp_path: Path) -> None:
    init_in(tmp_path, service=(SERVICE.rpartition(" ")[2],))

    assert (tmp_path / FILES[0]).exists()
