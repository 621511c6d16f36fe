"""Data that a hostile container writes: none of it runs on the host, and backups still succeed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import Host
from tests.deploy.conftest import Site

_DATABASES = Path(__file__).resolve().parent.parent / "support/hostile_databases.py"
_DATABASE = "/app/data/memoryark.db"
_MARK = "/tmp/pwned-by-a-table"


def run_in_container(host: Host, program: str) -> str:
    """Run Python in the backend's container, as the application does."""
    find = "podman ps -q --filter label=rolling.service=backend | head -n 1"
    text = f"podman exec -i $({find}) python3 - <<'END-OF-THE-ATTACK'\n{program}\nEND-OF-THE-ATTACK"
    return host.sh(text, user="deploy").stdout


def poison(host: Host) -> None:
    """Write table names with commands, an endless view, and a pipe and a link among the uploaded files."""
    attack = f"""\
{_DATABASES.read_text().replace("touch pwned", f"touch {_MARK}")}
with closing(sqlite3.connect({_DATABASE!r}, timeout=10)) as database:
    for make in (cut_quote, SCHEMAS["an endless view"], SCHEMAS["a view loads a program"], table_named(NAMES[1])):
        make(database)
        database.commit()
os.mkfifo("/app/uploads/pipe")
os.symlink("/etc/passwd", "/app/uploads/link")
Path("/app/uploads/-rf --help\\n$(touch {_MARK.rpartition("/")[2]})").write_text("x")
"""
    run_in_container(host, attack.replace("import shutil\n", "import os\nimport shutil\n"))


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    host = site.lab.hosts[0]
    yield host
    host.sh("cd /home/deploy/data; if [ -e memoryark.db.away ]; then mv -fT memoryark.db.away memoryark.db; fi")


def assert_nothing_ran(host: Host) -> None:
    assert host.sh("find / -xdev -name 'pwned-by-*' -not -path '*/overlay/*'").stdout == ""


def newest(site: Site) -> dict[str, object]:
    output = site.run_ok("backups", "--hosts", "web1", "--json")
    return dict(json.loads(output)["hosts"][0]["backups"][-1])


def test_poisoned_database_is_backed_up_and_restored_without_running_its_code(site: Site, web1: Host) -> None:
    poison(web1)

    assert "\x1b" not in site.run_ok("backup", "--hosts", "web1")
    id = str(newest(site)["id"])
    for words in (("backup.verify",), ("health",), ("deploy", "--tag", "v2")):
        assert "\x1b" not in site.run_ok(*words, "--hosts", "web1")
    assert_nothing_ran(web1)

    assert (newest(site)["kind"], site.version(web1)) == ("deploy", "v2")
    output = site.run_ok("restore", id, "--hosts", "web1")
    assert "an endless view" not in output
    assert run_in_container(web1, "import os; print(os.path.islink('/app/uploads/link'))").strip() == "True"
    assert_nothing_ran(web1)


@pytest.mark.parametrize(
    "kind",
    [
        "os.mkfifo(path)",
        *(
            pytest.param(kind, marks=pytest.mark.extended)
            for kind in ("os.symlink('/app/data/memoryark.db.away', path)", "os.mkdir(path)")
        ),
    ],
)
def test_database_replaced_by_a_link_pipe_or_directory_fails_backup_and_deploy(
    kind: str, site: Site, web1: Host
) -> None:
    """A link would lead to another file of the deploy user, and a pipe would block the backup forever."""
    program = f"import os; path = {_DATABASE!r}; os.rename(path, path + '.away'); {kind}"
    run_in_container(web1, program)
    before = newest(site)["id"]

    outputs = [site.run("backup", "--hosts", "web1"), site.deploy("v2", "--hosts", "web1")]
    report = site.run("health", "--hosts", "web1")[1]
    run_in_container(
        web1, f"import os, stat; path = {_DATABASE!r}; (os.rmdir if os.path.isdir(path) else os.unlink)(path)"
    )

    for code, output in outputs:
        assert (code, "the database cannot be read" in output) == (1, True), output
    assert ("the database cannot be read" in report, newest(site)["id"], site.version(web1)) == (True, before, "v1")
