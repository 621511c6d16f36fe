"""What setup prepares for the options of containers, and what a teardown keeps of them."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Application, ContainerOptions, Mount, Preparation, Target, Volume
from rolling_upgrade.engine.resource import Resource
from rolling_upgrade.features.inspect import shell as inspection
from rolling_upgrade.features.setup import teardown
from rolling_upgrade.features.setup.resources import resources
from tests.support.sample import application, backend, database, frontend
from tests.support.shell import Programs, sh

VOLUMES = ContainerOptions(volumes=(Volume("media", "/app/media"),))


def prepared(app: Application) -> dict[str, Resource]:
    return {item.id: item for item in resources(Target("web1", "web1", "deploy", app), Preparation())}


def test_mount_with_an_owner_is_created_and_given_after_the_first_podman_command() -> None:
    mounts = (Mount("/srv/own", "/own", owner="1000:1000"), Mount("/srv/shop/data", "/data", owner="999:999"))
    found = prepared(application(backend(mounts=mounts), frontend()))

    ids = list(found)
    assert ids.index("network") < ids.index("directory /srv/own") < ids.index("owner /srv/own")
    assert ids.count("directory /srv/shop/data") == 1
    give = found["owner /srv/own"].apply
    assert give is not None
    assert "chown -R -h -P 1000:1000 -- /srv/own" in give.text
    assert "owner /srv/shop/data" in found


def test_accessories_have_owners_of_mounts_too() -> None:
    one = database(mounts=(Mount("/srv/db", "/var/lib/db", owner="70:70"),))

    assert "owner /srv/db" in prepared(application(accessories=(one,)))


def test_mounts_without_an_owner_are_left_alone() -> None:
    assert not [id for id in prepared(application()) if id.startswith("owner ")]


@pytest.mark.parametrize(("init", "named"), [(True, True), (False, False)])
def test_init_needs_catatonit(init: bool, named: bool) -> None:
    app = application(backend(options=ContainerOptions(init=init)), frontend())

    assert ("catatonit" in prepared(app)["packages"].title) is named


def test_teardown_keeps_volumes_unless_data_is_deleted() -> None:
    app = application(backend(options=VOLUMES), frontend())
    ids = {data: [item.id for item in teardown.resources(app, "deploy", data=data)] for data in (True, False)}

    assert "volumes" not in ids[False]
    assert ids[True].index("containers") < ids[True].index("volumes")
    assert "the volume shop-media" in teardown.kept_note(app, data=False)
    assert "shop-media" not in teardown.kept_note(app, data=True)


def test_inspect_lists_volumes_with_their_sizes(programs: Programs) -> None:
    programs.add(
        "podman", 'case "$2" in ls) echo shop-old ;; inspect) [ "$5" != shop-media ] || exit 1; echo /nowhere ;; esac'
    )
    programs.add("du", "echo '4.0K /nowhere'")
    app = application(backend(options=VOLUMES), frontend())

    done = sh(inspection._volumes(app), path=programs.path)

    assert done.stdout.splitlines() == ["shop-media\tmissing", "shop-old\t4.0K /nowhere\t/nowhere"]
