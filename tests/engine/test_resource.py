"""The answer of the check of a host's resources."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.resource import Resource, check, parse_check
from rolling_upgrade.engine.shell import Script
from tests.support.shell import sh


def test_parse_check_id_with_spaces_is_read_completely() -> None:
    assert parse_check("packages ok\ndirectory /var/lib/my app drift\n") == {"directory /var/lib/my app": True}


@pytest.mark.parametrize("output", ["Welcome to web1", "site perhaps", "drifting", "site drift\n\nsite ok"])
def test_parse_check_other_output_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="unexpected answer"):
        parse_check(output)


def test_parse_check_output_of_sh_names_exactly_the_missing_resources() -> None:
    resources = (
        Resource("packages", "the programs", "false", None, "install them"),
        Resource("directory /var/lib/shop", "the directory", "test -d /", Script("mkdir it")),
        Resource("site", "the site", "echo noise; echo more >&2; false", Script("install it")),
    )

    assert parse_check(sh(check(resources)).stdout) == {"packages": False, "site": True}


@pytest.mark.parametrize(("tool", "applicable"), [("sh", True), ("no-such-program", False)])
def test_parse_check_resource_without_its_program_needs_manual_work(tool: str, applicable: bool) -> None:
    resource = Resource(
        "packages", "the programs", "false", Script("install"), "by hand", possible=f"command -v {tool} >/dev/null"
    )

    assert parse_check(sh(check((resource,))).stdout) == {"packages": applicable}
