"""The scripts about accessories, with a `podman` stub; the parser of their checks; what counts as a problem."""

from __future__ import annotations

import itertools
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from rolling_upgrade.engine import accessory
from rolling_upgrade.engine.model import (
    Accessory,
    AccessoryCheck,
    AccessoryContainer,
    ContainerOptions,
    HostState,
    Image,
    Mount,
    PublishedPort,
    Volume,
)
from rolling_upgrade.engine.shell import script
from tests.support.sample import application, backend, database
from tests.support.shell import HOSTILE, Programs, moved, sh

APP = application()


def run(programs: Programs, home: Path, one: Accessory) -> list[str]:
    """Create the container of an accessory, and return the arguments of `podman run`."""
    home.mkdir()
    programs.add("podman", 'if [ "$2" = inspect ]; then echo shop; fi')
    done = sh(moved(accessory.create(APP, one), APP, home), path=programs.path)
    assert (done.returncode, done.stderr) == (0, "")
    return next(call for call in programs.calls("podman") if call[1] == "run")


def after(words: list[str], option: str) -> list[str]:
    """Return the values of an option."""
    return [value for word, value in itertools.pairwise(words) if word == option]


def test_create_joins_the_network_under_the_name_of_the_accessory(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", database())

    assert (after(words, "--network"), after(words, "--network-alias")) == (["shop-network"], ["db"])
    assert after(words, "--name") == ["shop-accessory-db"]


def test_create_publishes_on_loopback_unless_an_address_is_given(programs: Programs, tmp_path: Path) -> None:
    ports = (PublishedPort(15432, 5432), PublishedPort(5432, 5432, "10.0.0.5"), PublishedPort(6000, 6, "2001:db8::1"))

    words = run(programs, tmp_path / "home", database(ports=ports))

    assert after(words, "--publish") == ["127.0.0.1:15432:5432", "10.0.0.5:5432:5432", "[2001:db8::1]:6000:6"]


def test_create_passes_the_environment_in_a_private_file_only(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", database())

    path = tmp_path / "home/accessories/db/env"
    assert after(words, "--env-file") == [str(path)]
    assert path.read_text() == "POSTGRES_PASSWORD=s3cret'of it\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any("s3cret" in word for call in programs.calls("podman") for word in call)


def test_create_passes_a_value_of_several_lines_and_forgets_it_later(programs: Programs, tmp_path: Path) -> None:
    kept = tmp_path / "home/accessories/db/multiline/CERTIFICATE"
    words = run(programs, tmp_path / "home", database(env=(("CERTIFICATE", "two\nlines\n"),)))
    assert (after(words, "--env"), kept.read_text()) == (["CERTIFICATE"], "two\nlines\n")

    sh(moved(accessory.create(application(), database()), application(), tmp_path / "home"), path=programs.path)
    assert not kept.exists()


@pytest.mark.parametrize("value", [value for value in HOSTILE if value and "\n" not in value])
def test_create_passes_hostile_words_unchanged(value: str, programs: Programs, tmp_path: Path) -> None:
    one = database(command=(value,), mounts=(Mount(f"/srv/{value.replace('/', '')}", "/x"),))

    words = run(programs, tmp_path / "home", one)

    assert words[-1] == value


def test_create_image_is_named_by_digest_and_never_pulled(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", database())

    assert words[-1] == f"registry.test:5000/postgres@sha256:{'d' * 64}"
    assert "--pull=never" in words
    assert after(words, "--restart") == ["unless-stopped"]


def test_create_without_a_check_leaves_that_of_the_image(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", database(health=()))

    assert not any(word.startswith("--health") for word in words)


def test_create_check_is_an_array_of_arguments_without_a_timer(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", database())

    assert after(words, "--health-cmd") == ['["pg_isready", "-U", "it\'s shop"]']
    assert after(words, "--health-interval") == ["disable"]


@pytest.mark.parametrize(
    "changes",
    [
        {"env": (("POSTGRES_PASSWORD", "other"),)},
        {"command": ("postgres", "-c", "x=1")},
        {"ports": ()},
        {"health": ("true",)},
        {"options": ContainerOptions()},
        {"mounts": (Mount("/srv/a", "/a"),)},
        {"stop_seconds": 1.0},
        {"memory_bytes": 1 << 30},
        {"cpus": 2.0},
    ],
)
def test_spec_hash_changes_with_the_definition(changes: dict[str, object]) -> None:
    assert accessory.spec_hash(APP, database(**changes)) != accessory.spec_hash(APP, database())


def test_spec_hash_is_that_of_another_image_and_deadline() -> None:
    other = database(image=Image("registry.test/postgres", "18"), deadline_seconds=5.0)

    assert accessory.spec_hash(APP, other) == accessory.spec_hash(APP, database())
    covered = {"env", "command", "ports", "health", "options", "mounts", "stop_seconds", "memory_bytes", "cpus"}
    rest = {"name", "image", "deadline_seconds", "health_timeout_seconds", "confinement"}
    assert covered | rest == {field.name for field in fields(Accessory)}


def wait(programs: Programs, checks: str, one: Accessory | None = None, state: str = "echo true 0") -> tuple[int, str]:
    """Wait for an accessory whose `podman healthcheck run` has this body. Return status and output."""
    programs.clock()
    programs.add("timeout", 'shift 3; exec "$@"')
    programs.add(
        "podman",
        f'case "$1 $2" in "container inspect") {state} ;; "healthcheck run") {checks} ;; *) echo a log ;; esac',
    )
    done = sh(script(accessory.wait_until_healthy(APP, one or database())), path=programs.path)
    return done.returncode, done.stdout


def test_wait_ends_when_the_check_passes(programs: Programs) -> None:
    body = 'echo x >>"$here/asked"; [ "$(wc -l <"$here/asked")" -gt 2 ] || { echo unhealthy; exit 1; }'

    status, output = wait(programs, body)

    assert (status, "db is healthy" in output) == (0, True)


def test_wait_fails_at_the_deadline_with_the_answer_and_the_log(programs: Programs) -> None:
    status, output = wait(programs, "echo no connection; exit 1")

    assert status == 1
    assert "db did not become healthy: no connection, after 20 s" in output
    assert "a log" in output


def test_wait_output_of_a_check_that_exits_with_0_is_no_success(programs: Programs) -> None:
    """A Podman that says `starting` exits with 0."""
    status, output = wait(programs, "echo starting")

    assert (status, "starting, after 20 s" in output) == (1, True)


@pytest.mark.parametrize("state", ["echo false 0", "echo true 1", "exit 125"])
def test_wait_container_that_exited_or_restarted_fails_at_once(state: str, programs: Programs) -> None:
    status, output = wait(programs, ":", state=state)

    assert (status, "did not become healthy" in output) == (1, True)
    assert ["podman", "healthcheck", "run", "shop-accessory-db"] not in programs.calls("podman")


def test_wait_without_a_check_takes_some_seconds_of_running(programs: Programs) -> None:
    status, _ = wait(programs, "echo no healthcheck; exit 125")

    asked = [call for call in programs.calls("podman") if call[1] == "healthcheck"]
    assert (status, len(asked)) == (0, 7)


@pytest.mark.parametrize(
    ("paths", "status"),
    [
        ("/var/lib/postgresql/data", 0),
        ("/var/lib/postgresql/data/17", 0),
        ("/var/lib/postgresql", 1),
        ("/var/lib/postgresql/data /other", 1),
        ("/cache", 0),
        ("/mounted/below", 0),
        ("", 0),
    ],
)
def test_require_volumes_refuses_data_without_a_volume(paths: str, status: int, programs: Programs) -> None:
    programs.add("podman", f"echo '{paths}'")
    options = ContainerOptions(volumes=(Volume("db", "/var/lib/postgresql/data"),), tmpfs=("/cache:size=1",))

    text = accessory.require_volumes(database(options=options, mounts=(Mount("/srv/x", "/mounted"),)))

    done = sh(script(text), path=programs.path)
    assert (done.returncode, "has no volume" in done.stdout) == (status, bool(status))


def test_keep_previous_without_a_container_does_nothing(programs: Programs) -> None:
    programs.add("podman", '[ "$2" != exists ]')

    sh(script(accessory.keep_previous(APP, "db", 5)), path=programs.path)

    assert [call[1:3] for call in programs.calls("podman")] == [["container", "exists"]]


def test_bring_back_after_an_upgrade_that_had_not_stopped_the_container_only_starts_it(programs: Programs) -> None:
    programs.add("podman", '[ "$2" != exists ]')

    sh(script(accessory.bring_back_previous(APP, database())), path=programs.path)

    assert programs.calls("podman")[-1][1:] == ["start", "shop-accessory-db"]
    assert "rm" not in [call[1] for call in programs.calls("podman")]


@pytest.mark.parametrize(("owner", "removed"), [("shop", True), ("", True), ("other", False)])
def test_remove_with_data_leaves_the_volume_of_another_application(
    owner: str, removed: bool, programs: Programs, tmp_path: Path
) -> None:
    programs.add(
        "podman", f'case "$1 $2" in "container inspect") echo "vol " ;; "volume inspect") echo "{owner}" ;; esac'
    )

    sh(moved(script(accessory.remove(APP, "db", data=True)), APP, tmp_path), path=programs.path)

    assert (["podman", "volume", "rm", "vol"] in programs.calls("podman")) is removed


def test_remove_without_data_removes_no_volume(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "accessories/db").mkdir(parents=True)
    programs.add("podman", 'if [ "$2" = inspect ]; then echo "vol "; fi')

    sh(moved(script(accessory.remove(APP, "db", data=False)), APP, tmp_path), path=programs.path)

    assert not any(call[1] == "volume" for call in programs.calls("podman"))
    assert not (tmp_path / "accessories/db").exists()


def test_check_all_asks_for_every_directory_and_reports_its_answer(programs: Programs, tmp_path: Path) -> None:
    for name in ("db", "redis", "old"):
        (tmp_path / "accessories" / name).mkdir(parents=True)
    programs.add("timeout", 'shift 3; exec "$@"')
    programs.add(
        "podman",
        'case $3 in *-db) ;; *-redis) printf "no\\tanswer\\nat all"; exit 1 ;; *) echo no check >&2; exit 125 ;; esac',
    )

    done = sh(moved(script(accessory.check_all(APP)), APP, tmp_path), path=programs.path)

    assert set(accessory.parse_checks(done.stdout.splitlines())) == {
        AccessoryCheck("db", True, ""),
        AccessoryCheck("redis", True, "no answer at all"),
        AccessoryCheck("old", False, "no check"),
    }


def test_check_all_without_accessories_asks_nothing(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman")

    done = sh(moved(script(accessory.check_all(APP)), APP, tmp_path), path=programs.path)

    assert (done.returncode, done.stdout, programs.calls()) == (0, "", [])


def test_parse_checks_ignores_other_lines() -> None:
    assert accessory.parse_checks(["", "Welcome", "../x\t0\t", "db\tno\t"]) == ()


def container(name: str = "db", **changes: Any) -> AccessoryContainer:
    image = Image("registry.test/postgres", "17")
    return replace(AccessoryContainer(name, f"shop-accessory-{name}", True, "running", "", 0, 0, image), **changes)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (HostState("web1"), "not up"),
        (HostState("web1", accessories=(container(),)), ""),
        (
            HostState("web1", accessories=(container(running=False, status="exited", exit_code=3),)),
            "exited, exit code 3",
        ),
        (
            HostState("web1", accessories=(container(),), accessory_checks=(AccessoryCheck("db", True, "refused"),)),
            "refused",
        ),
        (
            HostState("web1", accessories=(container(),), accessory_checks=(AccessoryCheck("db", False, "no check"),)),
            "",
        ),
    ],
)
def test_problem(state: HostState, problem: str) -> None:
    assert accessory.problem("db", state) == problem


def test_expected_are_the_declared_ones_and_those_of_the_host() -> None:
    app = replace(APP, accessories=(database(),))

    assert accessory.expected(app, HostState("web1", facts=(("accessories", "db redis"),))) == ("db", "redis")


def test_unreachable_urls_name_an_accessory_of_another_host() -> None:
    env = (("URL", "postgresql://a:b@db:5432/x"), ("CACHE", "redis://redis"), ("TEXT", "db"), ("BAD", "x://[db"))
    app = replace(application(backend(env=env)), accessories_elsewhere=("db",))

    assert list(accessory.unreachable_urls(app)) == [("backend", "URL", "db")]
