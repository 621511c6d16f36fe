"""`inv full`, `build` and `promote` with real images, registries and hosts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import laboratory
from lab.host import Host
from lab.laboratory import Lab
from rolling_upgrade.ssh import agent
from tests.deploy.conftest import PROJECT, TASK_SECONDS, Site, fingerprint, shorten_waits, succeeded, task, wait_until
from tests.deploy.login_registry import PASSWORD, PORT, USERNAME, start_login_registry, stop_login_registry

_RUNS = "podman container inspect --format '{{.ImageDigest}}' $(podman ps -q --filter label=rolling.service=backend)"


@dataclass(frozen=True)
class Pipeline:
    """Two environments with one host each, and the source of their application."""

    site: Site
    source: Path

    @property
    def staging(self) -> str:
        """The name of the environment of the first host."""
        return self.site.lab.name

    @property
    def live(self) -> str:
        """The name of the environment of the second host."""
        return f"{self.staging}-live"

    @property
    def hosts(self) -> tuple[Host, Host]:
        """The hosts of both environments."""
        first, second = self.site.lab.hosts
        return first, second

    def run_ok(self, *words: str) -> str:
        """Run a task that has to succeed. Return its output."""
        return succeeded(task(*words))

    def git(self, *words: str) -> str:
        """Run git in the source. Return its output."""
        who = ["-c", "user.name=ann", "-c", "user.email=ann@lab.test"]
        return subprocess.run(
            ["git", *who, *words], cwd=self.source, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, version: str, *, builds: str = "true", suite: str = "exit 0") -> str:
        """Commit a backend of this version to the source. Return the hash of the commit."""
        address = self.site.lab.registry.address
        for service in ("backend", "frontend"):
            (self.source / service).mkdir(exist_ok=True)
            (self.source / service / "Containerfile").write_text(
                # The two base images are nearly identical, and Podman's cache would confuse them.
                f"FROM {address}/memoryark/{service}:v1\nLABEL service={service}\nARG BUILD_TYPE\n"
                f"RUN test $BUILD_TYPE = release && {builds}\nENV VERSION={version}\n"
            )
        (self.source / "suite.sh").write_text(f"echo $IMAGE_BACKEND in $ENVIRONMENT\n{suite}\n")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", version)
        return self.git("rev-parse", "HEAD")

    def edit_services(self, **values: object) -> None:
        """Set top-level keys of services.yaml."""
        with self.site.edited_services() as content:
            content |= values

    def report(self) -> dict[str, Any]:
        """Return the newest report."""
        newest = max((self.site.directory / "reports").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        found: dict[str, Any] = json.loads(newest.read_text())
        return found

    def digest(self, host: Host) -> str:
        """Return the digest of the running backend from Podman on the host."""
        return host.sh(_RUNS, user="deploy").stdout.strip()


@pytest.fixture(scope="module")
def both(worker_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Fresh hosts in two environments after setup and one `inv full`, with images from the source."""
    for host in worker_lab.hosts:
        worker_lab.reset_host(host.name)
    lab = laboratory.up(2, name=worker_lab.name)
    pipeline = Pipeline(Site(lab), tmp_path_factory.mktemp("source"))
    pipeline.git("init", "--quiet", "--initial-branch", "trunk")
    with pipeline.site.unchanged_files():
        shorten_waits(pipeline.site)
        trust(pipeline)
        declare(pipeline)
        divide(pipeline)
        for name in (pipeline.staging, pipeline.live):
            pipeline.run_ok("setup", "--env", name, "--force")
        pipeline.commit("first")
        pipeline.run_ok("full", "--env", pipeline.staging, "--tag", "first")
        yield pipeline
    shutil.rmtree(lab.root / "reports")
    made = lab.machine.podman("images", "--quiet", "--filter", "label=rolling.build-type").stdout.split()
    bases = [f"{lab.registry.address}/memoryark/{service}:v1" for service in ("backend", "frontend")]
    lab.machine.podman("rmi", "--force", *dict.fromkeys(made), *bases, check=False)


def trust(pipeline: Pipeline) -> None:
    """Trust the lab's registry over HTTP, by its address, on this machine and on the hosts."""
    registry = pipeline.site.lab.registry.host.address
    registries = (pipeline.site.lab.registry.address, f"{registry}:{PORT}")
    trusted = "".join(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n' for address in registries)
    (pipeline.site.directory / "registries.conf").write_text(trusted)
    for host in pipeline.hosts:
        host.sh(f"printf %s {shlex.quote(trusted)} >/etc/containers/registries.conf.d/address.conf")


def declare(pipeline: Pipeline) -> None:
    """Configure builds and test suites in services.yaml."""
    machine, directory = pipeline.site.lab.machine, pipeline.site.directory
    *words, engine = [*machine.sudo, *machine.podman_command()]
    words.append(f"CONTAINERS_REGISTRIES_CONF={directory / 'registries.conf'}")
    services = yaml.safe_load((directory / "services.yaml").read_text())["services"]
    for service in services:
        service["build"] = {"context": str(pipeline.source / service["name"])}
    unit = {"kind": "unit", "command": ["sh", "suite.sh"], "folder": str(pipeline.source)}
    load = {"kind": "load", "command": "echo a load", "folder": str(pipeline.source)}
    building = {"engine": shlex.join([*words, engine]), "scan": 'case "$IMAGE" in *:refused) echo bad; exit 9;; esac'}
    pipeline.edit_services(services=services, suites=[unit, load], building=building)


def divide(pipeline: Pipeline) -> None:
    """Move the second host to a separate environment."""
    directory, address = pipeline.site.directory, pipeline.site.lab.registry.address
    images = {f"{name.upper()}_IMAGE": f"{address}/memoryark/{name}:v1" for name in ("backend", "frontend")}
    pipeline.site.edit_env(**images, ENVIRONMENT="staging")
    content = yaml.safe_load((directory / "hosts.yaml").read_text())
    entry = content["environments"][pipeline.staging]
    second = pipeline.hosts[1].name
    live = {**entry, "env_file": f"{pipeline.live}.env", "hosts": {second: entry["hosts"].pop(second)}}
    live["rollout"] = entry["rollout"] | {"confirm": True}
    content["environments"][pipeline.live] = live
    (directory / "hosts.yaml").write_text(yaml.safe_dump(content))
    values = (
        (directory / f"{pipeline.staging}.env").read_text().replace("ENVIRONMENT=staging", "ENVIRONMENT=production")
    )
    (directory / f"{pipeline.live}.env").write_text(values)
    (directory / f"{pipeline.live}.env").chmod(0o600)


def test_full_builds_tests_deploys_and_watches_a_commit(both: Pipeline) -> None:
    revision = both.commit("second")
    host, _ = both.hosts

    code, output = task("full", "--env", both.staging, "--tag", "second")

    assert code == 0, output
    digest = both.site.lab.registry.digest("backend", "second")
    assert (both.site.version(host), both.digest(host)) == ("second", digest)
    assert f"unit | {both.site.lab.registry.address}/memoryark/backend:second in staging" in output
    labels = host.sh(_RUNS.replace("{{.ImageDigest}}", "{{json .Config.Labels}}"), user="deploy").stdout
    assert all(
        f'"org.opencontainers.image.{name}"' in labels for name in ("revision", "created", "version", "ref.name")
    )
    assert revision in labels
    report = both.report()
    assert [stage["result"] for stage in report["stages"]] == ["done"] * 6
    assert [stage["stage"] for stage in report["stages"]] == ["build", "test", "push", "deploy", "health", "monitor"]
    assert {image["service"]: image["digest"] for image in report["images"]}["backend"] == digest
    assert report["sources"]["backend"] == {"revision": revision, "branch": "trunk", "changed": []}
    assert (report["outcome"], report["tag"], report["hosts"]) == ("done", "second", [host.name])
    both.run_ok("monitor.status", "--env", both.staging)

    before = fingerprint_without_watchdog(host)
    code, output = task("full", "--env", both.staging, "--tag", "third", "--dry-run")
    assert (code, "push" in output, "000000000000" in output) == (0, True, True), output
    assert (fingerprint_without_watchdog(host), both.site.lab.registry.digest("backend", "third")) == (before, "")


def fingerprint_without_watchdog(host: Host) -> list[str]:
    """Return everything on a host that a task could change, without the files of the watchdog, which change always."""
    return [line for line in fingerprint(host).splitlines() if "/watchdog/" not in line]


@pytest.mark.parametrize(
    ("tag", "faults", "stage", "said"),
    [
        ("unbuilt", {"builds": "echo broken-here && false"}, "build", "broken-here"),
        *(
            pytest.param(*values, marks=pytest.mark.extended)
            for values in (
                ("untested", {"suite": "echo no; exit 3"}, "test", "unit: status 3"),
                ("refused", {}, "build", "the scan refused"),
            )
        ),
    ],
)
def test_full_stops_at_the_first_phase_that_fails(
    both: Pipeline, tag: str, faults: dict[str, str], stage: str, said: str
) -> None:
    host, _ = both.hosts
    before = both.digest(host)
    both.commit(tag, **faults)

    code, output = task("full", "--env", both.staging, "--tag", tag)

    assert (code, said in output) == (1, True), output
    assert (both.site.lab.registry.digest("backend", tag), both.digest(host)) == ("", before)
    report = both.report()
    results = {stage["stage"]: stage["result"] for stage in report["stages"]}
    assert (report["outcome"], results[stage], results["push"], results["deploy"]) == (
        "failed", "failed", "not run", "not run",
    )  # fmt: skip


#: Leaves a daemon that searches every reachable SSH agent for the key in its second argument.
_THIEF = """
import glob, os, signal, subprocess, sys, time
kept, wanted = sys.argv[1:]
if os.fork():
    while not os.path.exists(kept + ".pid"):
        time.sleep(0.02)
    sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
with open(kept + ".half", "w") as file:
    file.write(str(os.getpid()))
os.rename(kept + ".half", kept + ".pid")
while not os.path.exists(kept + ".stolen"):
    sockets = set(glob.glob("/tmp/rolling-agent-*/agent") + glob.glob("/tmp/ssh-*/agent.*"))
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                words = file.read().split(b"\\0")
        except OSError:
            continue
        sockets |= {word[14:].decode() for word in words if word.startswith(b"SSH_AUTH_SOCK=")}
    for path in sockets:
        done = subprocess.run(["ssh-add", "-L"], env={**os.environ, "SSH_AUTH_SOCK": path}, capture_output=True)
        if wanted.encode() in done.stdout:
            open(kept + ".stolen", "w").close()
    time.sleep(0.02)
"""


@pytest.fixture
def deploy_key(both: Pipeline) -> Iterator[str]:
    """The lab's private key, which hosts.yaml does not name during the test."""
    path = both.site.directory / "hosts.yaml"
    before = path.read_text()
    content = yaml.safe_load(before)
    for entry in content["environments"].values():
        entry.pop("identity_file", None)
    path.write_text(yaml.safe_dump(content))
    yield (both.site.directory / "id_ed25519").read_text()
    path.write_text(before)


def test_daemon_of_a_test_suite_cannot_reach_the_agent_of_its_job(
    both: Pipeline, deploy_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_SSH_KEY", deploy_key)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "thief.py").write_text(_THIEF)
    key = subprocess.run(
        ["ssh-keygen", "-y", "-f", both.site.directory / "id_ed25519"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    attack = [sys.executable, str(tmp_path / "thief.py")]
    both.commit("stolen", suite=f"exec {shlex.join([*attack, str(tmp_path / 'suite'), key])}")

    command = [sys.executable, "scripts/job.py", "full", "--env", both.staging, "--tag", "stolen", "--force"]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "CI": "true", "HOME": str(tmp_path)},
        timeout=TASK_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert both.site.version(both.hosts[0]) == "stolen"
    assert not Path(f"/proc/{(tmp_path / 'suite.pid').read_text()}").exists()
    assert not (tmp_path / "suite.stolen").exists()

    # Without the protection the attack succeeds: it finds the agent of the deploy.
    with agent.with_deploy_key():
        subprocess.run([*attack, str(tmp_path / "free"), key], stdin=subprocess.DEVNULL, check=True, timeout=60)
        wait_until((tmp_path / "free.stolen").exists, "the key that the daemon stole")


def test_full_dirty_work_tree_is_refused_and_built_when_forced(both: Pipeline) -> None:
    both.commit("clean")
    (both.source / "backend" / "left-over").write_text("x")
    try:
        code, output = task("build", "--env", both.staging, "--service", "backend")
        assert (code, "left-over" in output) == (3, True), output
        code, output = task("build", "--env", both.staging, "--service", "backend", "--force", "--json")
    finally:
        (both.source / "backend" / "left-over").unlink()
    assert code == 0, output
    content = json.loads(output[output.index("{\n") :])
    assert content["tag"].endswith(f"-{both.git('rev-parse', 'HEAD')[:8]}-dirty")
    assert content["images"][0]["bytes"] > 0
    assert content["images"][0]["bytes_before"] > 0


def test_promote_deploys_the_tested_digest_even_after_the_tag_moved(both: Pipeline) -> None:
    staging, live = both.hosts
    both.commit("proved")
    both.run_ok("full", "--env", both.staging, "--tag", "release")
    tested = both.digest(staging)
    both.commit("moved")
    both.run_ok("build", "--env", both.staging, "--tag", "release", "--push")
    assert both.site.lab.registry.digest("backend", "release") not in ("", tested)

    before = fingerprint(live)
    code, output = task("promote", "--from", both.staging, "--to", both.live, "--dry-run")
    assert (code, tested in output, fingerprint(live)) == (0, True, before), output
    assert task("promote", "--from", both.staging, "--to", both.live)[0] == 2
    code, output = task("promote", "--from", both.staging, "--to", both.live, "--force")

    assert code == 0, output
    assert (both.digest(live), both.site.version(live)) == (tested, "proved")


@pytest.mark.extended
def test_promote_of_a_stopped_release_is_refused(both: Pipeline) -> None:
    staging, _ = both.hosts
    # The watchdog would start the container again before the promotion observes it.
    staging.sh("systemctl --user stop memoryark-watchdog", user="deploy")
    staging.sh("podman stop --time 0 --ignore memoryark-frontend-blue memoryark-frontend-green", user="deploy")
    code, output = task("promote", "--from", both.staging, "--to", both.live, "--force")
    assert (code, "has not proved one release" in output) == (3, True), output
    both.run_ok("deploy", "--env", both.staging, "--force")
    staging.sh("systemctl --user start memoryark-watchdog", user="deploy")


#: An attacker with the deploy user's key makes the container and the history name another digest than the running one.
_FORGE = """
import json, pathlib, re, subprocess, sys
forged, history = sys.argv[1], pathlib.Path("/var/lib/memoryark/releases.jsonl")
def podman(*words):
    return subprocess.run(["podman", *words], check=True, capture_output=True, text=True).stdout
name = podman("ps", "--format", "{{.Names}}", "--filter", "label=rolling.service=backend").split()[0]
found = json.loads(podman("container", "inspect", name))[0]
true = found["Config"]["Labels"]["rolling.digest"]
command = found["Config"]["CreateCommand"]
command = [f"rolling.digest={forged}" if word.startswith("rolling.digest=") else word for word in command]
podman("rm", "--force", "--time", "0", name)
subprocess.run(command, check=True)
podman("network", "disconnect", "memoryark-network", name)
podman("network", "connect", "--alias", "backend", "memoryark-network", name)
*older, last = history.read_text().splitlines()
last = last.replace(true, forged)
for tag in sys.argv[2:]:
    last = re.sub(r'(/backend)(?::[\\w.-]+)?"', lambda match: match[1] + tag + '"', last)
history.write_text("\\n".join([*older, last]) + "\\n")
"""


@pytest.fixture(scope="module")
def forged(both: Pipeline) -> Callable[..., None]:
    """A function that makes the staging host report this digest, and optionally a tag such as `:v1`."""
    staging, _ = both.hosts
    staging.sh("systemctl --user stop memoryark-watchdog", user="deploy")

    def forge(digest: str, *tag: str) -> None:
        words = " ".join(shlex.quote(word) for word in (digest, *tag))
        staging.sh(f"python3 -c {shlex.quote(_FORGE)} {words}", user="deploy")
        wait_until(lambda: task("health", "--env", both.staging)[0] == 0, "the forged host's health")

    return forge


def test_promote_digest_invented_by_a_staging_host_is_refused(both: Pipeline, forged: Callable[[str], None]) -> None:
    _, live = both.hosts
    before = fingerprint_without_watchdog(live)
    forged(f"sha256:{'1' * 64}")
    code, output = task("promote", "--from", both.staging, "--to", both.live, "--force")
    assert (code, f"backend@sha256:{'1' * 64}" in output, fingerprint_without_watchdog(live)) == (3, True, before), (
        output
    )


@pytest.mark.extended
def test_promote_staging_digest_unlike_its_registry_is_reported(both: Pipeline, forged: Callable[[str], None]) -> None:
    _, live = both.hosts
    registry, before = both.site.lab.registry, fingerprint_without_watchdog(live)
    older, tag = registry.digest("backend", "v2"), registry.digest("backend", "v1")
    assert older not in ("", tag)
    forged(older)
    code, output = task("promote", "--from", both.staging, "--to", both.live, "--dry-run")
    assert (code, fingerprint_without_watchdog(live)) == (0, before), output
    assert f"backend: {both.staging} runs {older}, but its tag " in output
    assert "digests: " in output


def test_promote_image_only_in_the_production_registry_is_refused(
    both: Pipeline, forged: Callable[[str], None]
) -> None:
    """An attacker pushed the image to production's registry, past staging."""
    staging, live = both.hosts
    address = both.site.lab.registry.address
    running = both.digest(staging).removeprefix("sha256:")
    frontend = staging.sh(_RUNS.replace("backend", "frontend"), user="deploy").stdout.strip()
    copy = "skopeo copy --quiet --all --src-tls-verify=false --dest-tls-verify=false"
    staging.sh(
        f"{copy} docker://{address}/memoryark/frontend@{frontend} docker://{address}/live/frontend:x\n"
        f"{copy} --format v2s2 docker://{address}/memoryark/backend:v3 docker://{address}/live/backend:x",
        user="deploy",
    )
    ask = f"skopeo inspect --no-tags --tls-verify=false --format '{{{{.Digest}}}}' docker://{address}/live/backend:x"
    smuggled = staging.sh(ask, user="deploy").stdout.strip()
    assert smuggled.removeprefix("sha256:") != running
    path = both.site.directory / f"{both.live}.env"
    content, before = path.read_text(), fingerprint_without_watchdog(live)
    path.write_text(content.replace(f"{address}/memoryark/", f"{address}/live/"))
    try:
        for tag in ((), ("",), (":made-up",)):
            forged(smuggled, *tag)
            code, output = task("promote", "--from", both.staging, "--to", both.live, "--force")
            assert (code, f"memoryark/backend@{smuggled}" in output, fingerprint_without_watchdog(live)) == (
                3,
                True,
                before,
            ), output
    finally:
        path.write_text(content)


def test_push_logs_in_and_leaves_no_password_behind(both: Pipeline) -> None:
    registry = both.site.lab.registry
    address = f"{registry.host.address}:{PORT}"
    path = both.site.directory / f"{both.staging}.env"
    before = path.read_text()
    both.commit("guarded")
    start_login_registry(registry.host)
    try:
        wait_until(lambda: registry.host.sh(f"curl -s {address}/v2/", check=False).returncode == 0, "the registry")
        login = {"REGISTRY": address, "REGISTRY_USERNAME": USERNAME}
        images = {f"{name.upper()}_IMAGE": f"{address}/memoryark/{name}" for name in ("backend", "frontend")}
        words = ("build", "--env", both.staging, "--tag", "guarded", "--push", "--service", "frontend")
        both.site.edit_env(**login, **images, REGISTRY_PASSWORD=f"not-{PASSWORD}")
        code, output = task(*words)
        assert (code, f"{address} refused {USERNAME}" in output, PASSWORD in output) == (3, True, False), output
        assert registry.digest("frontend", "guarded") == ""
        both.site.edit_env(REGISTRY_PASSWORD=PASSWORD)
        code, output = task(*words)
    finally:
        path.write_text(before)
        stop_login_registry(registry.host)
    digest = registry.digest("frontend", "guarded")
    assert (code, f"pushed as {digest}" in output, PASSWORD in output) == (0, True, False), output
    assert not list(Path(tempfile.gettempdir()).glob("rolling-login-*"))


@pytest.mark.extended
def test_load_suite_is_skipped_for_production(both: Pipeline) -> None:
    code, output = task("test", "--suite", "all", "--env", both.live)
    assert (code, "load tests do not run against production" in output, "a load\n" in output) == (0, True, False), (
        output
    )
    code, output = task("test", "--test-suite", "load", "--env", both.staging)
    assert (code, "load | a load" in output) == (0, True), output
