"""The example of a shop on a bare host, as its README describes it, while strict visitors order books."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator

import pytest
import yaml

from lab import laboratory
from lab.accessory_images import publish_accessories
from lab.host import Host
from lab.shop_images import SHOP, publish_shop
from tests.deploy.conftest import KEEP_JOURNAL, Site, wait_until
from tests.deploy.shop_visitors import Visitors, fetch

PRIMARY, API, WWW = "shop.lab.test", "api.shop.lab.test", "www.shop.lab.test"
MIGRATION = '''"""{title}."""

from django.db import migrations


class Migration(migrations.Migration):
    """{title}."""

    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunSQL("{sql}")]
'''
NOTE = "shop/migrations/0002_order_note.py"
TAGS = {
    "v1": {},
    "broken": {NOTE: MIGRATION.format(title="Fails", sql="ALTER TABLE missing ADD COLUMN note text")},
    "v2": {
        NOTE: MIGRATION.format(
            title="A note of the customer", sql="ALTER TABLE shop_order ADD COLUMN note text NOT NULL DEFAULT ''"
        )
    },
}


@pytest.fixture(scope="module")
def shop(worker_id: str) -> Iterator[Site]:
    """The example's files for one bare host of a lab, with the registry and the domains of the lab."""
    name = f"shop-{worker_id}"
    laboratory.down(name)
    lab = laboratory.up(1, "trixie-bare", name)
    lab.hosts[0].sh(KEEP_JOURNAL)
    publish_accessories(lab.registry, lab.machine, "postgres", "redis")
    publish_shop(lab.registry, lab.machine, TAGS)
    site = Site(lab)
    write_example(site)
    yield site
    laboratory.down(name)


def write_example(site: Site) -> None:
    """Replace the lab's application with the example; only names and addresses differ."""
    lab_names = {
        "registry.example.com": "registry:5000",
        "docker.io/library": "registry:5000",
        "example.com": "lab.test",
    }
    for source, target in (("services.yaml", "services.yaml"), ("production.env.example", f"{site.lab.name}.env")):
        text = (SHOP / "deploy" / source).read_text()
        for public, local in lab_names.items():
            text = text.replace(public, local)
        (site.directory / target).write_text(text)
    site.edit_env(SECRET_KEY="of-the-lab-and-long-enough", DB_PASSWORD="of'the@lab")
    example = yaml.safe_load((SHOP / "hosts.yaml").read_text())["environments"]["production"]
    site.edit_environment(setup=example["setup"] | {"certificate": "self-signed"}, rollout={"bake_seconds": 0})
    keys = site.directory / "deploy" / "authorized_keys" / site.lab.name
    keys.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.directory / "id_ed25519.pub", keys / "ann.pub")


def trusted(host: Host) -> ssl.SSLContext:
    """Trust the certificate that setup made, and no other."""
    return ssl.create_default_context(cadata=host.sh("cat /etc/ssl/certs/shop.crt").stdout)


def sql(site: Site, text: str) -> str:
    """Run SQL in the database. Return its output."""
    return site.run_ok("accessory.exec", "--name", "postgres", "--", "psql", "-qAtU", "shop", "-c", text).strip()


def version(host: Host, trust: ssl.SSLContext) -> str:
    """Return the version that visitors get."""
    return str(json.loads(fetch(host, PRIMARY, trust, "/up")[1])["version"])


def test_shop_from_a_bare_host_to_a_restored_database(shop: Site) -> None:
    host = shop.lab.hosts[0]
    shop.run_ok("setup")
    shop.run_ok("accessory.up")
    shop.deploy_ok("v1")
    trust = trusted(host)
    assert version(host, trust) == "v1"

    with Visitors(host, (PRIMARY, API), trust) as visitors:
        wait_until(lambda: len(visitors.orders) > 20, "orders")
        code, output = shop.deploy("broken")
        assert (code, 'relation "missing" does not exist' in output) == (1, True), output
        assert version(host, trust) == "v1"

        output = shop.deploy_ok("v2")
        assert "Applying shop.0002_order_note... OK" in output, output
        assert version(host, trust) == "v2"

        assert "orders" in shop.run_ok("job.run", "--name", "summarize")
        shop.run_ok("rollback", "--force")
        assert version(host, trust) == "v1"
        ordered = len(visitors.orders)
        wait_until(lambda: len(visitors.orders) > ordered, "an order after the rollback")

    assert not visitors.failures, visitors.failures[:10]
    processed = "select count(*), count(distinct order_id) from shop_processing"
    count = len(visitors.orders)
    wait_until(lambda: sql(shop, processed) == f"{count}|{count}", "every order processed exactly once", 60)
    assert sorted(visitors.orders) == [int(row) for row in sql(shop, "select id from shop_order order by id").split()]
    assert sql(shop, "select count(*) from shop_summary") == "1"


@pytest.mark.extended
def test_lost_orders_come_back_from_a_backup(shop: Site) -> None:
    """After the test above: back the database up, lose the orders, and restore them."""
    orders = sql(shop, "select count(*) from shop_order")
    shop.run_ok("backup")
    sql(shop, "delete from shop_processing; delete from shop_order")
    shop.run_ok("restore", "--backup", "latest", "--only", "database", "--force")
    assert sql(shop, "select count(*) from shop_order") == orders
    assert fetch(shop.lab.hosts[0], PRIMARY, trusted(shop.lab.hosts[0]), "/up")[0] == 200


def test_second_domain_redirect_and_plain_http(shop: Site) -> None:
    host = shop.lab.hosts[0]
    curl = "curl -s -o /dev/null -w '%{http_code} %{redirect_url}' --cacert /etc/ssl/certs/shop.crt"
    at = " ".join(f"--resolve {name}:{port}:127.0.0.1" for name in (PRIMARY, API, WWW) for port in (80, 443))

    answers = [
        host.sh(f"{curl} {at} {url}").stdout
        for url in (f"https://{API}/", f"https://{WWW}/x?y=1", f"http://{PRIMARY}/x")
    ]

    assert answers == ["200 ", f"301 https://{PRIMARY}/x?y=1", f"301 https://{PRIMARY}/x"]
