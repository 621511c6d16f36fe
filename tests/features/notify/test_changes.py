"""The version changes of a run, as messages show them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import HostResult, Image, Outcome, Release
from rolling_upgrade.features.notify.changes import version_changes
from tests.support.scripted_host import NEW, OLD, replacing_plan, three_steps


def test_version_changes_group_hosts_with_the_same_change() -> None:
    other = Image("registry.test:5000/shop/backend", "v0", "sha256:" + "0" * 64)
    found = list(version_changes([replacing_plan("web1"), replacing_plan("web2"), replacing_plan("web3", other)]))

    assert [(change.before, change.after, change.hosts) for change in found] == [
        ("v1", "v2", ("web1", "web2")),
        ("v0", "v2", ("web3",)),
    ]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (None, NEW, ("", "registry.test:5000/shop/backend:v2")),
        (OLD, Image("elsewhere/backend", "v2"), ("registry.test:5000/shop/backend:v1", "elsewhere/backend:v2")),
        (OLD, OLD.with_digest("sha256:" + "3" * 64), (f"v1 {'1' * 12}", f"v1 {'3' * 12}")),
        (OLD, OLD, ("v1", "v1")),
        (replace(OLD, tag=""), NEW, ("1" * 12, "v2")),
    ],
)
def test_version_changes_show_the_parts_of_images_that_differ(
    before: Image | None, after: Image, shown: tuple[str, str]
) -> None:
    (found,) = version_changes([replacing_plan("web1", before, after)])

    assert (found.before, found.after) == shown


def test_version_changes_of_a_restore_name_the_backup() -> None:
    record = Release("r2", "", "restore", Outcome.GOOD, (), target="20261122T020000Z-ab12cd")
    plan = replace(three_steps(), result=HostResult.RESTORED, record=record)

    (found,) = version_changes([plan])

    assert (found.what, found.after) == ("data", "20261122T020000Z-ab12cd")
