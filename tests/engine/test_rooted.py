"""The check that only root can change a path, with hostile directories and symbolic links."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rolling_upgrade.engine.paths import ROOTED, rooted, rooted_or_exit
from rolling_upgrade.engine.shell import Script, quote
from tests.support.shell import sh

HERE = os.getuid()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory that stands in for `/`; its owner stands in for root."""
    place = tmp_path / "top"
    (place / "etc/ssl").mkdir(parents=True)
    (place / "home/deploy").mkdir(parents=True)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755)
    return place


def walk(path: str, top: Path) -> tuple[int, str]:
    """Return the exit status and the output of the check of a path below `top`."""
    text = ROOTED.replace("cd / ", f"cd {quote(str(top))} ").replace("'0 d'", f"'{HERE} d'")
    assert text.count(str(top)) == 2
    done = sh(f"{text}\nrooted {quote(path)}")
    assert done.stderr == ""
    return done.returncode, done.stdout


def passes(path: str, top: Path) -> bool:
    status, said = walk(path, top)
    assert (status == 0) == (said == ""), said
    return status == 0


@pytest.mark.parametrize("path", ["/etc/ssl/a.crt", "//etc//ssl/./a.crt", "/etc/ssl/new/deep/a.crt", "/a.crt", "/etc"])
def test_rooted_succeeds_if_only_root_can_write_or_path_is_missing(path: str, top: Path) -> None:
    assert passes(path, top)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o2775, 0o722])
@pytest.mark.parametrize("where", ["", "etc", "etc/ssl"])
def test_rooted_fails_if_another_user_can_write_a_parent_directory(where: str, mode: int, top: Path) -> None:
    (top / where).chmod(mode)

    status, said = walk("/etc/ssl/a.crt", top)

    assert (status, said) == (1, f"a user other than root can write to {top / where}\n")


def test_rooted_checks_only_parent_directories(top: Path) -> None:
    (top / "etc/ssl").chmod(0o777)

    assert passes("/etc/ssl", top)
    assert not passes("/etc/ssl/.", top)


@pytest.mark.skipif(HERE != 0, reason="only root can change the owner of a directory")
def test_rooted_fails_below_a_directory_owned_by_another_user(top: Path) -> None:
    os.chown(top / "home/deploy", 65534, -1)
    (top / "home/deploy").chmod(0o500)

    assert not passes("/home/deploy/tls/a.crt", top)
    assert passes("/home/deploy", top)


def link(place: str, target: str) -> Callable[[Path], None]:
    return lambda top: (top / place).symlink_to(target)


@pytest.mark.parametrize(
    ("made", "holds"),
    [
        (link("etc/tls", "ssl"), True),
        (link("etc/tls", "/etc/ssl"), True),
        (link("etc/tls", "../etc/./ssl/"), True),
        (link("etc/tls", "/home/deploy"), False),
        (link("etc/tls", "../home/deploy"), False),
        (link("etc/tls", "nowhere/yet"), True),
        (link("etc/tls", "tls"), False),
        (link("etc/tls", "/etc/tls/tls"), False),
    ],
    ids=["relative", "absolute", "dots", "absolute to another", "relative to another", "dangling", "loop", "growing"],
)
def test_rooted_checks_the_targets_of_links(made: Callable[[Path], None], holds: bool, top: Path) -> None:
    (top / "home/deploy").chmod(0o777)
    made(top)

    assert passes("/etc/tls/a.crt", top) is holds


def test_rooted_follows_a_final_link_like_those_of_certbot(top: Path) -> None:
    (top / "etc/live").mkdir()
    (top / "etc/archive").mkdir()
    (top / "etc/live/a.crt").symlink_to("../archive/a1.crt")
    assert passes("/etc/live/a.crt", top)

    (top / "etc/archive").chmod(0o777)
    assert not passes("/etc/live/a.crt", top)


def test_rooted_does_not_open_a_pipe_in_the_path(top: Path) -> None:
    os.mkfifo(top / "etc/pipe")
    done = sh(
        ROOTED.replace("cd / ", f"cd {quote(str(top))} ").replace("'0 d'", f"'{HERE} d'") + "\nrooted /etc/pipe/a"
    )
    assert done.returncode != 0
    assert passes("/etc/pipe", top)


def test_rooted_or_exit_names_the_path_the_directory_and_the_next_step() -> None:
    done = sh(Script(rooted_or_exit("/dev/shm/$(touch pwned)`/a.key") + "\necho on"))

    assert done.returncode == 1
    assert done.stdout == (
        "/dev/shm/$(touch pwned)`/a.key: a user other than root can write to /dev/shm; "
        "root does not use paths below it. Next: choose another path, or remove the write permission (chown, chmod)\n"
    )


def test_rooted_fails_if_any_path_fails() -> None:
    assert sh(f"if {rooted('/no-such', '/dev/shm/a')}; then echo yes; fi").stdout.startswith("a user other than root")
