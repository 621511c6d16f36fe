"""Tasks of root below directories in which the deploy user put links, pipes and false programs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from lab.host import Host
from tests.deploy.bare_host import SECURE, bare_host, edit_setup, host, run_setup
from tests.deploy.conftest import PROJECT, Site, wait_until

__all__ = ["host"]

HOME = "/var/lib/memoryark"


@pytest.fixture(scope="module")
def bare(worker_id: str) -> Iterator[Site]:
    """One host after setup, in a separate lab."""
    for site in bare_host("trixie", f"rootfiles-{worker_id}"):
        site.edit_env(PROTOCOL="http")
        edit_setup(site)
        run_setup(site)
        yield site


def processes_of_root(host: Host) -> set[str]:
    """Return the command lines of root's processes."""
    return set(host.sh("ps -U root -o args=").stdout.splitlines())


def test_certificate_below_another_users_directory_is_refused_and_no_link_is_followed(bare: Site, host: Host) -> None:
    """The configuration check refuses what it can see, setup refuses the rest on the host. No victim file changes."""
    host.sh("echo victim > /etc/victim.conf; mkdir -p /srv/tls; chown deploy: /srv/tls")
    for name in ("cert.pem", "key.pem"):
        host.sh(
            f"ln -sfn /etc/victim.conf /srv/tls/{name}; ln -sfn /etc/victim.conf /srv/tls/{name}.new", user="deploy"
        )
    host.sh("mkdir -p ~/tls; ln -sfn /etc/victim.conf ~/tls/key.pem", user="deploy")
    edit_setup(bare, certificate="self-signed")
    try:
        for directory, code in (("/home/deploy/tls", 2), ("/srv/tls", 3), ("/tmp/tls", 2)):
            bare.edit_env(PROTOCOL="https", SSL_CERT_PATH=f"{directory}/cert.pem", SSL_KEY_PATH=f"{directory}/key.pem")
            found, output = bare.run("setup")
            assert (found, "SSL_KEY_PATH" in output, "/etc/ssl" in output) == (code, True, True), output
        assert host.sh("cat /etc/victim.conf").stdout == "victim\n"
        assert "PRIVATE KEY" not in host.sh("cat /srv/tls/* /home/deploy/tls/* 2>/dev/null || :").stdout
    finally:
        bare.edit_env(**SECURE | {"PROTOCOL": "http"})
        edit_setup(bare)
        run_setup(bare)


def test_renewal_hook_follows_no_link_of_another_user(bare: Site, host: Host) -> None:
    """Root owned the certificate's directory when setup wrote the hook. At the renewal the deploy user owns it."""
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
    assert (done.returncode, "root does not use paths below it" in done.stdout + done.stderr) == (1, True), done
    assert host.sh("cat /etc/victim.conf").stdout == "victim\n"
    host.sh(f"rm -rf {hook} /srv/renewed /root/lineage")


def test_check_of_a_path_that_is_not_a_file_neither_hangs_nor_leaves_a_process(bare: Site, host: Host) -> None:
    edit_setup(bare, watchdog="true")
    run_setup(bare)
    paths = (f"{HOME}/watchdog/version", f"{HOME}/lock/held", f"{HOME}/live/maintenance.html")

    def put_back() -> None:
        for path in paths:
            put = f"rm -f {path}; mv {path}.kept {path} 2>/dev/null || :"
            host.sh(f"if [ -e {path}.kept ] || [ ! -f {path} ]; then {put}; fi", user="deploy")

    try:
        for kind in ("mkfifo", "ln -s /dev/zero", "ln -s /dev/tty"):
            before = processes_of_root(host)
            for path in paths:
                host.sh(f"mv {path} {path}.kept 2>/dev/null || :; {kind} {path}", user="deploy")
            code, output = bare.run("setup.check")
            assert (code, "watchdog" in output) == (1, True), (kind, output)
            wait_until(partial(ended, host, before), "the end of root's processes")
            put_back()
    finally:
        put_back()
        edit_setup(bare)
        run_setup(bare)


def ended(host: Host, before: set[str]) -> bool:
    """Return whether no process of root that began later uses the application's directory."""
    return not {line for line in processes_of_root(host) - before if HOME in line}


def test_setup_does_not_read_a_pipe_in_place_of_its_files(bare: Site, host: Host) -> None:
    """The deploy user replaced the boot unit's link with a pipe."""
    host.sh("echo victim > /etc/victim.conf")
    host.sh(
        """
        cd; wants=.config/systemd/user/default.target.wants
        rm -f $wants/memoryark-boot.service; mkfifo $wants/memoryark-boot.service
        """,
        user="deploy",
    )
    bare.run_ok("setup")
    assert host.sh("cat /etc/victim.conf").stdout == "victim\n"


def test_program_named_sshd_opens_no_port_in_the_firewall(bare: Site, host: Host) -> None:
    """Three impostors: a process with that name, another program at that path, and the real sshd run by a user."""
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
        edit_setup(bare, firewall="nftables")
        bare.run_ok("setup")
        opened = host.sh("nft list set inet rolling open").stdout
        assert ("22" in opened, [port for port in ("2299", "2298", "2297") if port in opened]) == (True, []), opened
    finally:
        host.sh(
            "pkill -u deploy -f 'listener.py|sshd -D -p 2297'; rm -f /tmp/sshd /tmp/listener.py /home/deploy/key*",
            check=False,
        )
        edit_setup(bare)
        run_setup(bare)


def test_teardown_removes_nothing_behind_a_link(bare: Site, host: Host) -> None:
    """This test has to be the last one: it removes the application from the host."""
    uploads = next(
        line.partition("=")[2]
        for line in (bare.directory / f"{bare.lab.name}.env").read_text().splitlines()
        if line.startswith("UPLOADS_PATH=")
    )
    host.sh("mkdir -p /srv/victim/empty; echo victim > /srv/victim/file")
    host.sh(f"rm -rf {uploads}; ln -s /srv/victim/empty {uploads}", user="deploy")
    host.sh(f"rm -rf {HOME}/journal; ln -s /srv/victim {HOME}/journal", user="deploy")
    bare.run("teardown", "--data", "--confirm", "memoryark")
    assert host.sh("ls /srv/victim").stdout.split() == ["empty", "file"]
    assert host.sh("test -e /etc/nginx/conf.d/memoryark.conf", check=False).returncode != 0
