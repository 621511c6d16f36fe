"""`inv doctor` on real hosts: a healthy host passes, and the next deploy refuses the same faults."""

from __future__ import annotations

import json

from lab.host import Host
from tests.deploy.conftest import Site, fingerprint


def files_and_containers(host: Host) -> list[str]:
    """Return the host's fingerprint without its units, which still change after a boot."""
    return [row for row in fingerprint(host).splitlines() if not row.endswith(".service")]


def findings(output: str, level: str, host: str = "web1") -> list[str]:
    rows = json.loads(output)["findings"]
    return [row["what"] for row in rows if row["level"] == level and row["host"] == host]


def test_doctor_healthy_host_passes_and_is_unchanged(site: Site) -> None:
    before = files_and_containers(site.lab.hosts[0])

    code, output = site.run("doctor", "--json")

    assert code == 0, output
    assert findings(output, "refused") == []
    assert {"ready for a deploy: tools, directories, rights, ports, names, space"} < set(findings(output, "ok"))
    # A lab host shares the clock and the cgroups of its machine.
    assert [row for row in findings(output, "warning") if "synchronised" not in row and "cgroup" not in row] == []
    assert files_and_containers(site.lab.hosts[0]) == before


def test_doctor_broken_host_fails_as_the_next_deploy_does(site: Site) -> None:
    host = site.lab.hosts[0]
    host.sh("cp -p /usr/local/lib/memoryark/site /root/site.kept; echo '# mine' >> /usr/local/lib/memoryark/site")
    host.sh("chmod 750 /var/lib/memoryark/live; chmod 644 /usr/local/lib/memoryark/site")
    try:
        code, output = site.run("doctor", "--json", "--hosts", "web1")
        deploy_code, deploy_output = site.deploy("v2", "--hosts", "web1")
    finally:
        host.sh("mv /root/site.kept /usr/local/lib/memoryark/site; chmod 755 /var/lib/memoryark/live")

    assert (code, deploy_code) == (3, 3), output
    assert findings(output, "refused") == [
        "the Nginx site helper or its sudo rule is missing",
        "Nginx's workers cannot access /var/lib/memoryark/live, so they would treat every service as blue",
    ]
    assert all(problem in deploy_output for problem in findings(output, "refused"))
    warnings = " ".join(findings(output, "warning"))
    assert "another version of the site helper" in warnings


def test_doctor_stopped_nginx_and_missing_tag_are_reported(site: Site) -> None:
    host = site.lab.hosts[0]
    site.edit_env(BACKEND_IMAGE="registry:5000/memoryark/backend:no-such-tag")
    host.sh("systemctl stop nginx")
    try:
        code, output = site.run("doctor", "--hosts", "web1")
    finally:
        host.sh("systemctl start nginx")

    assert (code, "Nginx is inactive" in output, "no digest for" in output) == (3, True, True), output
