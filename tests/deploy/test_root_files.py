"""What root does below directories of the deploy user, who put links, pipes and false programs in its way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.host import Host
from tests.deploy.bare import SECURE, bare_host, change, host, prepared
from tests.deploy.conftest import PROJECT, Site, wait_until

__all__ = ["host"]

HOME = "/var/lib/memoryark"


@pytest.fixture(scope="module")
def bare(worker_id: str) -> Iterator[Site]:
    """One host that setup has prepared, in a lab of its own."""
    for site in bare_host("trixie-bare", f"rootfiles-{worker_id}"):
        site.edit_env(PROTOCOL="http")
        change(site)
        prepared(site)
        yield site


def roots(host: Host) -> set[str]:
    """The command lines of root's processes."""
    return set(host.sh("ps -U root -o args=").stdout.splitlines())


def test_certificate_below_another_users_directory_is_refused_and_no_link_is_followed(bare: Site, host: Host) -> None:
    """The configuration is refused for what it shows, the host by setup for what only it shows; no victim changes."""
    host.sh("echo victim > /etc/victim.conf; mkdir -p /srv/tls; chown deploy: /srv/tls")
    for name in ("cert.pem", "key.pem"):
        host.sh(
            f"ln -sfn /etc/victim.conf /srv/tls/{name}; ln -sfn /etc/victim.conf /srv/tls/{name}.new", user="deploy"
        )
    host.sh("mkdir -p ~/tls; ln -sfn /etc/victim.conf ~/tls/key.pem", user="deploy")
    change(bare, certificate="self-signed")
    try:
        for directory, code in (("/home/deploy/tls", 2), ("/srv/tls", 3), ("/tmp/tls", 2)):
            bare.edit_env(PROTOCOL="https", SSL_CERT_PATH=f"{directory}/cert.pem", SSL_KEY_PATH=f"{directory}/key.pem")
            found, output = bare.run("setup")
            assert (found, "SSL_KEY_PATH" in output, "/etc/ssl" in output) == (code, True, True), output
        assert host.sh("cat /etc/victim.conf").stdout == "victim\n"
        assert "PRIVATE KEY" not in host.sh("cat /srv/tls/* /home/deploy/tls/* 2>/dev/null || :").stdout
    finally:
        bare.edit_env(**SECURE | {"PROTOCOL": "http"})
        change(bare)
        prepared(bare)


def test_renewal_hook_follows_no_link_of_another_user(bare: Site, host: Host) -> None:
    """The certificate's directory was root's when setup made the hook, and is the deploy user's by the next renewal."""
    from dataclasses import replace

    from rolling_upgrade import config
    from rolling_upgrade.engine.model import Certificate, Preparation, Tls
    from rolling_upgrade.features.setup import certificate

    target = config.load(bare.lab.name, root=PROJECT, hosts=()).targets[0]
    app = replace(target.application, tls=Tls("/srv/renewed/cert.pem", "/srv/renewed/key.pem", acme=True))
    rules = Preparation(certificate=Certificate.ACME, acme_email="ann@lab.test")
    (program,) = (item for item in certificate.after_site(app, rules) if item.id == "certificate hook")
    assert program.apply is not None
    host.sh(program.apply.text)
    host.sh(
        """
        mkdir -p /srv/renewed /root/lineage
        echo key > /root/lineage/privkey.pem
        echo certificate > /root/lineage/fullchain.pem
        echo victim > /etc/victim.conf
        chown deploy: /srv/renewed
        """
    )
    host.sh("cd /srv/renewed; for name in key cert; do ln -s /etc/victim.conf $name.pem.new; done", user="deploy")
    hook = "/usr/local/lib/memoryark/certificate"
    done = host.sh(f"RENEWED_LINEAGE=/root/lineage {hook}", check=False)
    assert (done.returncode, "root touches nothing below it" in done.stdout + done.stderr) == (1, True), done
    assert host.sh("cat /etc/victim.conf").stdout == "victim\n"
    host.sh(f"rm -rf {hook} /srv/renewed /root/lineage")


@pytest.mark.parametrize("kind", ["mkfifo", "ln -s /dev/zero", "ln -s /dev/tty"])
def test_check_of_a_path_that_is_not_a_file_neither_hangs_nor_leaves_a_process(
    bare: Site, host: Host, kind: str
) -> None:
    change(bare, watchdog="true")
    prepared(bare)
    before = roots(host)
    places = (f"{HOME}/watchdog/version", f"{HOME}/lock/held", f"{HOME}/live/maintenance.html")
    try:
        for place in places:
            host.sh(f"mv {place} {place}.kept 2>/dev/null || :; {kind} {place}", user="deploy")
        code, output = bare.run("setup.check")
        assert (code, "watchdog" in output) == (1, True), output
        wait_until(lambda: not {line for line in roots(host) - before if HOME in line}, "the end of root's processes")
    finally:
        for place in places:
            host.sh(f"rm -f {place}; mv {place}.kept {place} 2>/dev/null || :", user="deploy")
        change(bare)
        prepared(bare)


def test_setup_does_not_read_a_pipe_in_place_of_its_files(bare: Site, host: Host) -> None:
    """The deploy user's units, keys and directories: each is a pipe or leads to root's own file."""
    host.sh("echo victim > /etc/victim.conf")
    host.sh(
        """
        cd; wants=.config/systemd/user/default.target.wants
        rm -f $wants/memoryark-boot.service; mkfifo $wants/memoryark-boot.service
        """,
        user="deploy",
    )
    code, output = bare.run("setup")
    assert code == 0, output
    assert host.sh("cat /etc/victim.conf").stdout == "victim\n"
    assert bare.run("setup.check")[0] == 0


def test_program_named_sshd_opens_no_port_in_the_firewall(bare: Site, host: Host) -> None:
    """A process of that name, the system's own program run by a user, and one of root's that is another program."""
    listener = "import socket, sys, time; kept = socket.create_server(('', int(sys.argv[1]))); time.sleep(600)"
    host.sh(f"cat > /tmp/listener.py <<'PYTHON'\n{listener}\nPYTHON\ncp /usr/bin/python3 /tmp/sshd")
    for start in (
        "bash -c 'exec -a sshd python3 /tmp/listener.py 2299'",
        "/tmp/sshd /tmp/listener.py 2298",
        "/usr/sbin/sshd -D -p 2297 -h /home/deploy/key -f /dev/null -o UsePAM=no",
    ):
        host.sh(
            f"test -e key || ssh-keygen -q -t ed25519 -N '' -f key; setsid {start} </dev/null >/tmp/said 2>&1 &",
            user="deploy",
        )
    try:
        wait_until(
            lambda: all(f":{port} " in host.sh("ss -Hltn").stdout for port in (2299, 2298, 2297)), "three listeners"
        )
        change(bare, firewall="nftables")
        code, output = bare.run("setup")
        assert code == 0, output
        opened = host.sh("nft list set inet rolling open").stdout
        assert ("22" in opened, [port for port in ("2299", "2298", "2297") if port in opened]) == (True, []), opened
    finally:
        host.sh(
            "pkill -u deploy -f 'listener.py|sshd -D -p 2297'; rm -f /tmp/sshd /tmp/listener.py /home/deploy/key*",
            check=False,
        )
        change(bare)
        prepared(bare)


def test_teardown_removes_nothing_behind_a_link(bare: Site, host: Host) -> None:
    """The last test: it takes the application off the host."""
    uploads = next(
        line.partition("=")[2]
        for line in (bare.folder / f"{bare.lab.name}.env").read_text().splitlines()
        if line.startswith("UPLOADS_PATH=")
    )
    host.sh("mkdir -p /srv/victim/empty; echo victim > /srv/victim/file")
    host.sh(f"rm -rf {uploads}; ln -s /srv/victim/empty {uploads}", user="deploy")
    host.sh(f"rm -rf {HOME}/journal; ln -s /srv/victim {HOME}/journal", user="deploy")
    bare.run("teardown", "--data", "--confirm", "memoryark")
    assert host.sh("ls /srv/victim").stdout.split() == ["empty", "file"]
    assert host.sh("test -e /etc/nginx/conf.d/memoryark.conf", check=False).returncode != 0
