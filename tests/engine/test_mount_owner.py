"""Owners of mounted directories: the check before a start, in a real shell with a stub of Podman and real users."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import mount_owner
from rolling_upgrade.engine.model import ContainerOptions, Mount, Recorded, Service
from rolling_upgrade.engine.shell import script
from tests.support.sample import backend
from tests.support.shell import Programs, sh

#: The stub runs programs as root, in place of the namespace of the deploy user.
PODMAN = """\
case "$1 $2" in
  'image inspect') echo "CONFIGURED" ;;
  'image mount') echo "ROOT" ;;
  'image unmount') ;;
  'unshare sh') shift; exec "$@" ;;
esac"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1500:1600:app:/:/bin/sh\nlone:x:1501:1501::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1600:\nmedia:x:1700:app,other\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changing to other users needs root")


def checked(
    programs: Programs, tmp_path: Path, *, user: str, owner: tuple[int, int], mode: int = 0o750, **changes: object
) -> tuple[int, str]:
    """Check a directory with this owner and mode for an image with this user. Return status and output."""
    tmp_path.chmod(0o755)
    (tmp_path / "image/etc").mkdir(parents=True, exist_ok=True)
    (tmp_path / "image/etc/passwd").write_text(PASSWD)
    (tmp_path / "image/etc/group").write_text(GROUP)
    source = tmp_path / "media"
    source.mkdir(exist_ok=True)
    os.chown(source, *owner)
    source.chmod(mode)
    programs.add("podman", PODMAN.replace("CONFIGURED", user).replace("ROOT", str(tmp_path / "image")))
    service = backend(**({"mounts": (Mount(str(source), "/app/media"),)} | changes))
    done = sh(script(mount_owner.check_writable(service)), path=programs.path)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("user", "owner", "mode"),
    [
        ("", (1234, 1234), 0o750),  # the image starts as root
        ("root", (1234, 1234), 0o750),
        ("0:0", (1234, 1234), 0o750),
        ("app", (1500, 0), 0o750),
        ("1500", (1500, 0), 0o750),
        ("4000", (4000, 0), 0o750),
        ("app", (0, 1600), 0o770),  # by the user's group
        ("app", (0, 1700), 0o770),  # by another group of the user
        ("4000", (0, 0), 0o770),  # the group of a user that the image does not list is root
        ("4000:1700", (0, 1700), 0o770),
        ("app:media", (0, 1700), 0o770),
        ("4000", (0, 0), 0o777),
        ("unknown", (0, 0), 0o750),  # Podman names the user that the image lacks
    ],
)
def test_user_that_can_write_passes(
    user: str, owner: tuple[int, int], mode: int, programs: Programs, tmp_path: Path
) -> None:
    assert checked(programs, tmp_path, user=user, owner=owner, mode=mode) == (0, "")


@pytest.mark.parametrize(
    ("user", "owner", "mode", "ids"),
    [
        ("app", (0, 0), 0o750, "1500:1600"),
        ("app", (1500, 0), 0o550, "1500:1600"),
        ("lone", (0, 1700), 0o770, "1501:1501"),
        ("4000", (0, 1700), 0o770, "4000:0"),
        ("4000:1600", (0, 1700), 0o770, "4000:1600"),
        ("app:media", (0, 1600), 0o770, "1500:1700"),
        ("app", (0, 0), 0o766, "1500:1600"),  # writable, but not searchable
    ],
)
def test_user_that_cannot_write_fails_with_the_command_that_fixes_it(
    user: str, owner: tuple[int, int], mode: int, ids: str, programs: Programs, tmp_path: Path
) -> None:
    code, output = checked(programs, tmp_path, user=user, owner=owner, mode=mode)

    name, source = user.partition(":")[0], tmp_path / "media"
    first, fix, settings = output.splitlines()
    assert code == 1
    assert first == f"backend: the image's user {name} ({ids}) cannot write {source}, which is mounted at /app/media."
    assert fix == f"On the host, as its deploy user: podman unshare chown -R {ids} {source}"
    assert f"'owner: \"{ids}\"'" in settings


def test_user_of_the_service_replaces_that_of_the_image(programs: Programs, tmp_path: Path) -> None:
    options = ContainerOptions(user="1500:1600")

    assert checked(programs, tmp_path, user="app", owner=(1500, 0), options=options)[0] == 0
    assert not [call for call in programs.calls("podman") if call[1:3] == ["image", "inspect"]]
    assert "(1500:1600)" in checked(programs, tmp_path, user="", owner=(0, 0), options=options)[1]


def test_read_only_mount_is_not_checked(programs: Programs, tmp_path: Path) -> None:
    mounts = (Mount(str(tmp_path / "media"), "/app/media", read_only=True),)

    assert checked(programs, tmp_path, user="app", owner=(0, 0), mounts=mounts) == (0, "")


def test_release_of_a_record_is_not_checked() -> None:
    service: Service = replace(backend(), recorded=Recorded("x"))

    assert mount_owner.check_writable(service) == ""


def test_missing_directory_is_left_to_podman(programs: Programs, tmp_path: Path) -> None:
    mounts = (Mount(str(tmp_path / "missing"), "/app/media"),)

    assert checked(programs, tmp_path, user="app", owner=(0, 0), mounts=mounts)[0] == 0


def test_link_in_place_of_the_images_users_is_not_followed(programs: Programs, tmp_path: Path) -> None:
    checked(programs, tmp_path, user="app", owner=(0, 0))
    passwd = tmp_path / "image/etc/passwd"
    passwd.rename(tmp_path / "elsewhere")
    passwd.symlink_to(tmp_path / "elsewhere")
    service = backend(mounts=(Mount(str(tmp_path / "media"), "/app/media"),))

    assert sh(script(mount_owner.check_writable(service)), path=programs.path).returncode == 0


@pytest.mark.parametrize(("path", "owner"), [("/srv/it's here", "1000:1000"), ("/srv/$(touch pwned)", "0:999")])
def test_owner_is_given_and_found(path: str, owner: str, programs: Programs, tmp_path: Path) -> None:
    place = tmp_path / path.strip("/").replace("/", "-")
    place.mkdir()
    (place / "link").symlink_to(tmp_path / "image")
    (tmp_path / "image").mkdir()
    programs.add("podman", 'shift; exec "$@"')
    test = f"if {{\n{mount_owner.is_owned(str(place), owner)}\n}}; then echo owned; else echo other; fi"

    assert sh(test, path=programs.path).stdout == ("other\n")
    done = sh(mount_owner.give(str(place), owner), path=programs.path)

    assert (done.returncode, done.stderr) == (0, "")
    assert sh(test, path=programs.path).stdout == "owned\n"
    assert (tmp_path / "image").stat().st_uid == 0
    assert f"{(place / 'link').lstat().st_uid}" == owner.partition(":")[0]
