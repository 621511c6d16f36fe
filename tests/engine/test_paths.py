"""Paths that root trusts: only root can change them, and no link leads out of a mounted directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import podman
from rolling_upgrade.engine.model import Application, Color, Mount
from rolling_upgrade.engine.paths import ROOTED, rooted, rooted_or_exit
from rolling_upgrade.engine.shell import Script, quote, script
from rolling_upgrade.features.backup.manifest import BackupKind
from rolling_upgrade.features.restore import shell as restore
from tests.features.backup.test_shell import ID, LATER, app, back_up, fill, listed, place
from tests.features.restore.test_shell import RELEASE, RunContext, run
from tests.support.sample import application, backend
from tests.support.shell import Programs, moved, sh

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


__all__ = ["app", "run"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The target of the attack: the home directory of the deploy user."""
    home = tmp_path / "victim"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    (home / "secret").write_text("secret")
    return home


def swap(path: str, target: Path) -> None:
    """Replace a directory with a link, as a container with write access to its parent can."""
    shutil.rmtree(path)
    Path(path).symlink_to(target)


@pytest.fixture
def uploading(app: Application, programs: Programs) -> Application:
    """An application with a backup of uploads that would overwrite a profile."""
    Path(app.uploads).mkdir()
    Path(app.uploads, ".bashrc").write_text("theirs")
    app = replace(app, database="")
    assert back_up(app, programs).returncode == 0
    return app


@pytest.mark.parametrize("above", [False, True])
def test_restore_of_uploads_behind_a_link_is_refused(
    above: bool, uploading: Application, run: RunContext, home: Path
) -> None:
    app, backup = uploading, listed(uploading)[ID]
    if above:
        app = replace(app, uploads=f"{app.uploads}/inner")
        home.rename(home.parent / "inner")
        home = home.parent / "inner"
        swap(str(Path(app.uploads).parent), home.parent)
    else:
        swap(app.uploads, home)

    for text in (restore.restore_uploads(app, backup, RELEASE), restore.undo_uploads(app, RELEASE)):
        done = run(text)
        assert (done.returncode, f"{app.uploads} is a link to {home}: " in done.stdout) == (1, True), done

    assert {path.name: path.read_text() for path in home.iterdir()} == {".bashrc": "mine", "secret": "secret"}


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_backup_of_uploads_behind_a_link_is_refused(
    target: str, uploading: Application, programs: Programs, home: Path
) -> None:
    swap(uploading.uploads, home.parent / target)

    done = back_up(uploading, programs, LATER)

    told = f"{uploading.uploads} is a link to {home.parent / target}: "
    assert (done.returncode, told in done.stdout) == (1, True), done
    assert not place(uploading, LATER).exists()


def test_backup_copies_the_original_uploads_if_the_directory_is_replaced_meanwhile(
    uploading: Application, programs: Programs, home: Path
) -> None:
    """The container replaces the directory between the check and the copy."""
    real = shutil.which("rsync")
    swap_it = f'mv "$here/up loads" "$here/away"; ln -s "$here/{home.name}" "$here/up loads"'
    programs.add("rsync", f'case " $* " in *" --dry-run "*) ;; *) {swap_it} ;; esac; exec {real} "$@"')

    done = back_up(uploading, programs, LATER)

    assert (done.returncode, Path(uploading.uploads).is_symlink()) == (0, True), done
    copied = Path(f"{uploading.uploads_backups}/shop-{LATER}.uploads/files")
    assert [(path.name, path.read_text()) for path in copied.iterdir()] == [(".bashrc", "theirs")]


@pytest.mark.parametrize("kind", [BackupKind.MANUAL, BackupKind.DEPLOY])
def test_database_directory_behind_a_link_is_refused(
    kind: BackupKind, app: Application, programs: Programs, run: RunContext, home: Path
) -> None:
    fill(app.database, 10)
    assert back_up(app, programs).returncode == 0
    backup = listed(app)[ID]
    fill(str(home / "shop.db"), 20)
    swap(str(Path(app.database).parent), home)
    before = sorted(path.name for path in home.iterdir())

    done = [
        back_up(app, programs, LATER, kind),
        run(restore.restore_database(app, backup, RELEASE)),
        run(restore.undo_database(app, backup, RELEASE)),
    ]

    assert [(one.returncode, f"is a link to {home}: " in one.stdout) for one in done] == [(1, True)] * 3, done
    assert sorted(path.name for path in home.iterdir()) == before


def test_delete_former_data_does_not_follow_links(uploading: Application, run: RunContext, home: Path) -> None:
    (home / f".before-{RELEASE}").mkdir()
    swap(uploading.uploads, home)

    assert run(restore.delete_former_data(uploading)).returncode == 0
    assert (home / f".before-{RELEASE}").exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_candidate_whose_mount_is_a_link_is_not_started(
    read_only: bool, programs: Programs, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "up").symlink_to(home)
    programs.add("podman")
    for source in ("up", "up/below"):
        service = backend(mounts=(Mount(f"{tmp_path}/{source}", "/up", read_only),))
        app = application(service)
        for text in (podman.run(app, service, Color.GREEN, "r2"), podman.revive(app, service, Color.GREEN)):
            done = sh(moved(script(text), app, tmp_path), path=programs.path)
            physical = f"{home}{source[2:]}"
            told = (
                f"{tmp_path}/{source} is a link to {physical}: if you created the link, configure the path {physical};"
            )
            assert (done.returncode, told in done.stdout) == (1, True), done

    assert not [call for call in programs.calls() if call[1] in {"run", "start", "rm"}]
