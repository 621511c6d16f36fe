"""Canary secrets of every kind stay in their expected places while every task that uses them runs.

The searches compare bytes: plain, percent-encoded and base64. The env file is encrypted with age, and its key is one
more canary.
"""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from lab.host import Host
from rolling_upgrade.engine.model import Security
from tests.deploy.canaries import EXPECTED_PATHS, NOBODY, Canaries, files_here, files_on, journal_of, sampled
from tests.deploy.conftest import PROJECT, Site
from tests.deploy.login_registry import PASSWORD as REGISTRY_PASSWORD
from tests.deploy.test_images import LOGIN_REGISTRY, login_site  # noqa: F401 - a fixture
from tests.support.certificate import Authority
from tests.support.encryption_keys import age_key
from tests.support.mailbox import PASSWORD as MAIL_PASSWORD
from tests.support.mailbox import USER as MAIL_USER
from tests.support.mailbox import mailbox
from tests.support.receiver import closed_port, receiving, slack

#: A deploy with a defect: its exception contains the whole environment.
_BROKEN = """\
import sys
from pathlib import Path
from rolling_upgrade.engine import preflight
from rolling_upgrade.console.task import exit_with
from rolling_upgrade.features.deploy.workflow import deploy
def broken(state, app, **asked):
    raise RuntimeError(f"a defect: {app!r} {state!r} {asked!r}")
preflight.findings = broken
exit_with(lambda: deploy(sys.argv[1], root=Path.cwd(), tag="v2", force=True))
"""


@dataclass
class Disclosed:
    """Everything visible to people and processes: task output, messages, and process lists."""

    canaries: Canaries
    outputs: dict[str, str] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    sampled: list[str] = field(default_factory=list)

    def hits(self) -> dict[str, list[str]]:
        """Return the canaries found in each task or message."""
        hits = {name: self.canaries.found_in(output) for name, output in self.outputs.items()}
        hits |= {f"message {number}": self.canaries.found_in(raw) for number, raw in enumerate(self.messages)}
        return {name: forms for name, forms in hits.items() if forms}


@dataclass(frozen=True)
class EncryptedEnvFile:
    """The env file of the site, encrypted for one key outside its directory."""

    site: Site
    key: Path

    @classmethod
    def create(cls, site: Site, key: Path) -> EncryptedEnvFile:
        """Generate a key and list it as the only recipient."""
        recipient = age_key(key)
        recipients = site.directory / "deploy" / "recipients" / f"{site.lab.name}.txt"
        recipients.parent.mkdir(parents=True)
        recipients.write_text(f"{recipient.line}\n")
        return cls(site, key)

    @property
    def secret(self) -> str:
        """The private key's text."""
        return self.key.read_text().splitlines()[-1]

    def encrypt(self) -> None:
        """Encrypt the env file in place."""
        code, output = self.site.run("secrets.encrypt")
        assert (code, self.site.env_file.read_bytes()[:10]) == (0, b"-----BEGIN"), output


def new_canaries() -> Canaries:
    """Generate random secrets. The passwords of the mail server and the registry are fixed."""
    kinds = ("JWT_SECRET_KEY", "DATABASE_URL", "REDIS_URL", "SLACK_WEBHOOK", "WEBHOOK_URL")
    values = {kind: f"cAnArY{secrets.token_hex(12)}" for kind in kinds}
    values["JWT_SECRET_KEY"] += "'\"$x &%"
    return Canaries(values | {"SMTP_PASSWORD": MAIL_PASSWORD, "REGISTRY_PASSWORD": REGISTRY_PASSWORD})


def run_all_tasks(site: Site, disclosed: Disclosed, directory: Path, encrypted: EncryptedEnvFile) -> None:
    """Run every task that uses secrets, with every channel configured, while every process is sampled."""
    authority = Authority.create(directory)
    values = disclosed.canaries.values
    with (
        mailbox(authority.server(directory), security=Security.STARTTLS, login=True) as box,
        receiving(judge=slack) as chat,
        receiving() as hook,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setenv("SSL_CERT_FILE", str(authority.file))
        patched.setenv("ROLLING_AGE_KEY_FILE", str(encrypted.key))
        site.edit_env(
            JWT_SECRET_KEY="'" + values["JWT_SECRET_KEY"].replace("'", "\\'") + "'",
            DATABASE_URL=f"mysql://ark:{values['DATABASE_URL']}@db.test/ark",
            REDIS_URL=f"redis://:{values['REDIS_URL']}@cache.test:6379/0",
            SLACK_WEBHOOK=chat.url(f"/services/T00000001/B00000001/{values['SLACK_WEBHOOK']}"),
            WEBHOOK_URL=hook.url("/hook").replace("://", f"://ark:{values['WEBHOOK_URL']}@"),
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(box.port),
            SMTP_SECURITY="starttls",
            SMTP_USER=MAIL_USER,
            SMTP_PASSWORD=f"'{MAIL_PASSWORD}'",
            SMTP_FROM="ark@example.org",
            SMTP_TO="ann@example.org",
            REGISTRY=LOGIN_REGISTRY,
            REGISTRY_USERNAME="robot",
            REGISTRY_PASSWORD=REGISTRY_PASSWORD,
        )
        plain = site.env_file.read_text()
        with sampled(site.lab.hosts[0], disclosed.canaries, directory) as samples:
            encrypted.encrypt()
            for name, words in _tasks(site).items():
                disclosed.codes[name], disclosed.outputs[name] = site.run(*words)
            disclosed.outputs["a defect"] = _traceback(site)
            site.env_file.write_text(plain)
            site.edit_env(SLACK_WEBHOOK=f"http://127.0.0.1:{closed_port()}/services/{values['SLACK_WEBHOOK']}")
            encrypted.encrypt()
            disclosed.codes["a dead channel"], disclosed.outputs["a dead channel"] = site.run("notify.test")
        disclosed.sampled = samples
        assert len(box.raw) == len(chat.requests) + 1 == len(hook.requests)
        disclosed.messages = [*box.raw, *(request.body for request in (*chat.requests, *hook.requests))]


def _tasks(site: Site) -> dict[str, tuple[str, ...]]:
    host = ("--hosts", site.lab.hosts[0].name)
    return {
        "a good deploy": ("deploy", "--tag", "v2", *host),
        "a bad deploy": ("deploy", "--tag", "never-healthy", "--json", *host),
        "a dry run": ("deploy", "--tag", "v3", "--dry-run", *host),
        "setup": ("setup", "--dry-run", *host),
        "monitor.install": ("monitor.install", *host),
        "status": ("status", "--json"),
        "history": ("history", "--json"),
        "config.show": ("config.show",),
        "config.show --json": ("config.show", "--json"),
        "config.check": ("config.check",),
        "inspect": ("inspect", *host),
        "doctor": ("doctor", "--json"),
        "logs": ("logs", "--all-colors", "--lines", "0", *host),
        "monitor.logs": ("monitor.logs", *host),
        "backup": ("backup", *host),
        "exec": ("exec", *host, "--", "sh", "-c", "export -p"),
        "rollback": ("rollback", "--force", *host),
        "notify": ("notify", "--message", "The tea is ready."),
    }


def _traceback(site: Site) -> str:
    command = [sys.executable, "-c", _BROKEN, site.lab.name]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert "RuntimeError" in done.stderr, done
    return done.stdout + done.stderr


def test_secrets_are_only_in_their_expected_places(login_site: Site, tmp_path: Path) -> None:  # noqa: F811
    site = replace(login_site, interpreters=True)
    encrypted, host = EncryptedEnvFile.create(site, tmp_path / "age-key"), site.lab.hosts[0]
    disclosed = Disclosed(Canaries(new_canaries().values | {"AGE_KEY": encrypted.secret}))
    try:
        run_all_tasks(site, disclosed, tmp_path, encrypted)
        _assert_not_disclosed(site, disclosed, host)
    finally:
        site.run("monitor.uninstall", "--hosts", host.name)


def _assert_not_disclosed(site: Site, disclosed: Disclosed, host: Host) -> None:
    expected = {"a bad deploy": 1, "a dead channel": 1}
    assert {name: code for name, code in disclosed.codes.items() if code != expected.get(name, 0)} == {}, (
        disclosed.outputs
    )
    assert disclosed.hits() == {}
    assert disclosed.sampled == []
    assert journal_of(host, disclosed.canaries) == []
    assert files_on(host, disclosed.canaries, user=NOBODY) == []
    everywhere = files_on(host, disclosed.canaries, user=0)
    assert [path for path in everywhere if not path.startswith(EXPECTED_PATHS)] == []
    own_files = [path for path in everywhere if path.startswith(EXPECTED_PATHS[:3])]
    modes = host.sh(f"stat -c '%U %a' {' '.join(own_files)}").stdout.splitlines()
    assert (len(own_files) >= 3, set(modes)) == (True, {"deploy 600"})
    assert files_here([site.directory], disclosed.canaries) == []


def test_planted_canaries_are_found_by_each_search(site: Site, tmp_path: Path) -> None:
    canaries, host = new_canaries(), site.lab.hosts[0]
    jwt, plain = canaries.values["JWT_SECRET_KEY"], canaries.values["DATABASE_URL"]

    encoded = [base64.b64encode(f"{'x' * shift}{plain} and more".encode()).decode() for shift in range(4)]
    assert all(canaries.found_in(text) for text in (jwt, f"…{plain}…", quote(f"x{jwt}y", safe=""), *encoded))

    disclosed = Disclosed(canaries, outputs={"a task": f"it's {plain}"}, messages=[plain.encode()])
    assert set(disclosed.hits()) == {"a task", "message 0"}

    (tmp_path / "kept").write_text(plain)
    assert files_here([tmp_path], canaries) == [str(tmp_path / "kept")]

    program = "import sys, time; sys.stdin.read()"
    with sampled(host, canaries, tmp_path) as samples:
        with_argument = subprocess.Popen([sys.executable, "-c", program, plain], stdin=subprocess.PIPE)
        with_environment = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, env={"A": plain})
        as_nobody = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
        host.sh(f"sh -c 'sleep 2; :' sh {plain} & A={plain} {as_nobody} sleep 2; wait")
        for process in (with_argument, with_environment):
            process.communicate()
    kinds = {line.replace(plain, "canary").rpartition(" of ")[0] for line in samples}
    assert kinds == {"canary in cmdline", "canary in environ", "host: canary in cmdline", "host: canary in environ"}

    host.sh(f"logger {plain}; printf %s {plain} | tee /opt/planted > /root/planted; chmod 0644 /opt/planted")
    try:
        assert journal_of(host, canaries)
        assert files_on(host, canaries, user=NOBODY) == ["/opt/planted"]
        assert {"/opt/planted", "/root/planted"} <= set(files_on(host, canaries, user=0))
    finally:
        host.sh("rm -f /opt/planted /root/planted; journalctl --rotate; journalctl --vacuum-time=1s")
