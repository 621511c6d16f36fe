"""Hosts with a site of an earlier version: the ports that root grants do not depend on files of the deploy user."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine.nginx import site_file
from rolling_upgrade.engine.site import client as commands
from tests.support.sample import application, backend, frontend
from tests.support.shell import sh

FORMER = Path(__file__).parents[2] / "deploy/earlier_site.conf"
APP = application(backend(), frontend())


def named(text: str, tmp_path: Path) -> str:
    """Return the ports that the script finds in the text of a site."""
    file = tmp_path / "site.conf"
    file.write_text(text)
    done = sh(commands.ports_of_earlier_version(APP).text.replace(site_file(APP.name), str(file)))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_ports_of_the_former_site_are_those_of_its_listeners_and_upstreams(tmp_path: Path) -> None:
    found = named(FORMER.read_text(), tmp_path)

    assert found.split() == ["17001", "18080", "27001", "28080", "7001", "8080"]
    assert commands.is_site_of(APP, found)


@pytest.mark.parametrize("port", [25, 5432, 9100])
def test_forged_release_definition_adds_no_port(port: int, tmp_path: Path) -> None:
    forged = application(backend(), frontend(), frontend(name="more", service_port=port, routes=()))

    assert not commands.is_site_of(forged, named(FORMER.read_text(), tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "    # server 127.0.0.1:5432;\n",
        "    listen 5432;\n",
        "    server 192.0.2.1:5432;\n",
        "    proxy_pass http://127.0.0.1:5432;\n",
        "    server 127.0.0.1:25 max_fails=0;\n",
        "    server 127.0.0.1:54321x;\n",
    ],
)
def test_other_numbers_in_a_site_are_not_ports(text: str, tmp_path: Path) -> None:
    assert named(text, tmp_path) == ""


def test_missing_site_has_no_ports(tmp_path: Path) -> None:
    text = commands.ports_of_earlier_version(APP).text.replace(site_file(APP.name), str(tmp_path / "none"))

    assert sh(text).stdout == ""
