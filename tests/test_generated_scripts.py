"""ShellCheck accepts every script that the project sends to hosts or installs there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine import (
    accessory_database,
    executor,
    history,
    image_push,
    jobs,
    lock_file,
    locking,
    maintenance,
    observation,
    podman,
    remote_run,
)
from rolling_upgrade.engine.host_run import RunDocument
from rolling_upgrade.engine.model import (
    AccessoryContainer,
    AccessoryDatabase,
    Application,
    Assets,
    Certificate,
    Color,
    Container,
    ContainerOptions,
    DatabaseServer,
    Environment,
    Firewall,
    Handoff,
    HostState,
    Job,
    Lock,
    Login,
    Mount,
    Outcome,
    Overlap,
    Preparation,
    RolloutPolicy,
    SecretFile,
    Target,
    Tls,
    Volume,
)
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.prune_entry import Mode
from rolling_upgrade.engine.resource import Resource, as_root, check
from rolling_upgrade.engine.shell import Script, direct, quote
from rolling_upgrade.features.access import shell as access
from rolling_upgrade.features.access.keys import Access
from rolling_upgrade.features.accessory import plan as accessories
from rolling_upgrade.features.backup import manifest
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, DatabaseBackup
from rolling_upgrade.features.deploy import shell as deploy_shell
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec
from rolling_upgrade.features.doctor import diagnosis
from rolling_upgrade.features.exec import shell as inside
from rolling_upgrade.features.health import shell as health
from rolling_upgrade.features.inspect import shell as inspection
from rolling_upgrade.features.job import shell as job_scripts
from rolling_upgrade.features.logs import shell as logs
from rolling_upgrade.features.observe import files as prometheus
from rolling_upgrade.features.observe import monitoring_host
from rolling_upgrade.features.prune import retention
from rolling_upgrade.features.registry import workflow as registry
from rolling_upgrade.features.restore import plan as restore
from rolling_upgrade.features.setup import resources as setup
from rolling_upgrade.features.setup import teardown
from rolling_upgrade.features.watchdog import shell as watchdog
from rolling_upgrade.features.watchdog.loop import recovery_script
from rolling_upgrade.features.watchdog.policy import RecoveryAction
from tests.support.sample import application, backend, database, frontend, image, worker
from tests.support.ssh_keys import key as public_key
from tests.support.states import RUN

#: Disabled warnings of ShellCheck, with the reason.
MEANT = {
    "SC1091": "/etc/os-release is a file of the host",
    "SC2016": "text in single quotes is for an inner shell: sh -c under another user",
    "SC2129": "a line per image is generated, and every line stands alone",
    "SC2024": "the deploy user may read the site text; only the helper behind sudo needs root",
}

#: A quoted program for `sh -c` in another namespace.
_IN_THE_NAMESPACE = re.compile(r"<<'END-OF-THE-PROGRAM'\n(.*?)\nEND-OF-THE-PROGRAM\n", re.DOTALL)

IN_ACCESSORIES = (
    AccessoryDatabase("db", "postgres", "it's shop", "shop", 5432, "pass'word"),
    AccessoryDatabase("redis", "mysql", "it's `legacy`", "old", 3306, "pass'word"),
)
KERNEL = (("fs.file-max", "100000"), ("vm.swappiness", "10"))
EVERY_PREPARATION = tuple(
    Preparation(wall, source, "a@b.test", "https://ca.test/dir", KERNEL, True, 14, True, True, "192.0.2.9")
    for wall, source in zip(Firewall, Certificate, strict=True)
)
KEYS = Access((("ann", public_key(1)),))
HOLDER = Lock("run", "ann", "laptop", 41, "deploy 'v2' \"now\"", 0, 0)


def container(service: str, color: Color) -> Container:
    known = image("worker" if service == "scheduler" else service)
    return Container(f"shop-{service}-{color.value}", service, color, True, "running", image=known, spec="x")


def host_states() -> dict[str, HostState]:
    """A bare host, one on which everything is replaced while another color still runs, and one with kept containers."""
    workers = (container("worker", Color.BLUE), container("scheduler", Color.BLUE), container("scheduler", Color.GREEN))
    running = (
        *(container("backend", Color.GREEN), container("frontend", Color.BLUE), container("frontend", Color.GREEN)),
        *workers,
    )
    stopped = tuple(
        replace(container(one.name, Color.GREEN), image=one.image, running=False, spec=spec_hash("shop", one))
        for one in (backend(), frontend())
    )
    kept = (container("backend", Color.BLUE), container("frontend", Color.BLUE), *stopped)
    return {
        "first": HostState("web1"),
        "replace": HostState("web1", active=(("backend", Color.GREEN),), containers=running, live_site_hash="old"),
        "kept": HostState("web1", containers=kept, live_site_hash="old"),
    }


def applications() -> dict[str, Application]:
    secured = replace(
        application(), tls=Tls("/etc/c", "/etc/k", "/etc/chain"), config_path="/srv/shop/it's", uploads="/srv/up loads"
    )
    bare = application(backend(alias="", mounts=(), env=(), memory_bytes=None, cpus=None), frontend(), database="")
    server = DatabaseServer("postgresql://ark@db.test/ark?sslmode=require", "it's:a\\secret")
    served = replace(
        secured, database="", database_server=server, auto_backup=True, backup_calendar=("*-*-* 02:00:00",)
    )
    options = ContainerOptions(volumes=(Volume("media", "/app/media"),), labels=(("team", "it's us"),), init=True)
    redis = database(name="redis", env=(), ports=(), options=ContainerOptions(), health=(), command=("it's", "$HOME"))
    secrets = (SecretFile("CERT", "/run/secrets/CERT", "two\nlines"),)
    owned, env = (Mount("/srv/it's", "/app/m", owner="999:999"),), (("KEY", "two\nlines"),)
    mounted = backend(options=options, mounts=owned, env=env, secret_files=secrets)
    schedule = Job(
        "clean", "backend", ("sh", "-c", "it's $HOME"), "@daily", ("*-*-* 00:00:00",), overlap=Overlap.REPLACE
    )
    counted = replace(
        application(mounted, frontend()), request_metrics=True, metrics_dir="/srv/it's metrics", jobs=(schedule,)
    )
    handed_over = worker(
        name="scheduler", command=("it's", "$HOME"), entrypoint=("python3", "-c"), handoff=Handoff.EXCLUSIVE, alias="s"
    )
    checked = worker(name="checked", gate=replace(worker().gate, ready=("test", "-e", "/it's here")))
    both = replace(backend().gate, ready=("true",))
    workers = application(backend(gate=both, handoff=Handoff.EXCLUSIVE), frontend(), worker(), checked, handed_over)
    return {
        "counted": counted,
        "with-accessories": replace(application(), accessories=(database(), redis), databases=IN_ACCESSORIES),
        "workers": workers,
        "with-assets": application(backend(), frontend(assets=Assets("/app/assets", "/assets"))),
        "plain": application(),
        "secured": secured,
        "bare": replace(bare, full_chain=None),
        "served": served,
    }


def every_step(plan: Plan) -> tuple[Step, ...]:
    return (*plan.acquire, *plan.prepare, *plan.release, *plan.steps, *plan.finalize, *plan.abort)


def of_a_step(step: Step) -> Iterator[tuple[str, Script]]:
    yield step.id, step.script
    if step.undo is not None:
        yield f"{step.id}-undo", step.undo


def of_a_deploy(app: Application, found: HostState) -> Iterator[tuple[str, Script]]:
    site = rendering.nginx_site(app)
    wanted = DeploySpec("production", app, site, rendering.site_hash(site), RUN, HOLDER)
    plan = plan_deploy(found, wanted, RolloutPolicy())
    for step in every_step(plan):
        yield from of_a_step(step)
    ended = history.ending(Outcome.UNDONE, "it's broken", 3)
    yield from (("ended", Script(f"{ended}\n{step.script.text}")) for step in plan.abort)
    yield "undo-all", executor.undo_all([step.undo for step in plan.steps if step.undo])


def of_a_rollback(app: Application, found: HostState) -> Iterator[tuple[str, Script]]:
    """A rollback to a kept container, and one to a new container from the host's record."""
    kept = history.parse_definition(history.dump_definition(app), app.home)
    site = rendering.nginx_site(kept)
    wanted = DeploySpec("production", kept, site, rendering.site_hash(site), RUN, HOLDER)
    plan = plan_deploy(found, replace(wanted, record=replace(RUN, action="rollback", target="r0")), RolloutPolicy())
    for step in every_step(plan):
        yield from of_a_step(step)


def of_a_run(app: Application) -> Iterator[tuple[str, Script]]:
    document = RunDocument(Plan("web1", "deploy", "run", home=app.home), "basis", app.name, 60)
    for with_engine in (True, False):
        yield f"run-{with_engine}", remote_run.start(document, b"engine", 0, with_engine=with_engine)
    yield "follow", remote_run.follow(app.home, "run", 0)
    yield "executing", direct(lock_file.executing(app.home))
    yield "lock-show", direct(lock_file.show(app.home))
    yield "lock-force-release", direct(lock_file.force_release(app.home, "token"))
    yield "release", direct(lock_file.release(app.home, "token"))


def of_looking(app: Application) -> Iterator[tuple[str, Script]]:
    images = [service.image for service in app.services]
    for verify in (True, False):
        yield f"pull-signed-{verify}", deploy_shell.pull_signed(images, "KEY", verify_present=verify)
    yield "observe", direct(observation.shell_text(app))
    yield "examine", diagnosis.fact_script(app)
    pushes = [
        image_push.Push(service.name, service.image, f"sha256:{'e' * 64}", 3, 1, 5000) for service in app.services
    ]
    fetch = image_push.fetch(pushes, f"{app.home}/journal/run/images")
    yield "fetch", Script(image_push.prologue(40001, "pass word").text + "\n" + fetch.text)
    yield "fetch-as-shown", fetch
    yield "read-layers", image_push.read_layers()
    wanted = Login("registry.test:5000", "it's me", 'pa"ss $word')
    yield "login", registry.login_script(wanted, always_ask=False)
    yield "login-again", registry.login_script(wanted, always_ask=True)
    yield "logout", registry.logout_script(wanted.registry)
    yield "resolve", direct(podman.resolve([service.image for service in app.services]))
    tags = [replace(service.image, digest="") for service in app.services]
    yield "resolve-tags", direct(podman.resolve(tags))
    for service in app.services:
        name = podman.one_off_name(app.name, f"{service.name}-release")
        yield f"one-off-{service.name}", podman.one_off(app, service, ["echo", "it's", "$HOME"], name=name)
    yield "history", direct(history.read(app.home))
    yield "definition", direct(history.read_definition(app.home, "r1"))
    yield "available", direct(history.available(app))


def of_upkeep(app: Application) -> Iterator[tuple[str, Script]]:
    for name, body in (
        ("on", maintenance.enable_verified(app, rendering.maintenance_page(app))),
        ("off", maintenance.disable_verified(app)),
    ):
        yield f"maintenance-{name}", body
        yield f"locked-maintenance-{name}", locking.under_lock(app, HOLDER, body, seconds=9)


def of_logs(app: Application) -> Iterator[tuple[str, Script]]:
    service = app.services[0].name
    for name, wanted in {
        "plain": logs.LogQuery(),
        "since": logs.LogQuery(logs.Since(600), 0, Color.GREEN),
        "both": logs.LogQuery(logs.Since(moment="2026-11-23T07:00:00Z"), both=True),
    }.items():
        job = logs.job_source("clean")
        yield f"logs-{name}", logs.fetch(app, [service, logs.NGINX, logs.UNITS, job], wanted)
        for source in (service, logs.NGINX, logs.UNITS, job):
            yield f"follow-{source.replace('/', '-')}-{name}", logs.follow(app, source, wanted)
    for with_input in (True, False):
        words = ["echo", "it's", "$HOME"]
        yield f"exec-{with_input}", inside.execute(app, service, words, with_input=with_input)
        once = inside.run_once(app, app.services[0], words, release="r1", entrypoint=(), with_input=with_input)
        yield f"run-{with_input}", once
    yield "run-on-terminal", Script(inside.run_on_terminal(app, app.services[0], ["echo", "it's"], release="r1"))
    yield "shell", Script(inside.shell(app, service))
    yield "inspect", inspection.inspect(app, [service])
    for key, text in inspection._parts(app, [service]):
        yield f"inspect-{key}", Script(text)


def of_backups(app: Application) -> Iterator[tuple[str, Script]]:
    kind = "postgres" if app.database_server else "sqlite" if app.database else ""
    files = tuple(BackupFile(name, 7, "ab" * 32) for name in (*manifest.DATABASE_FILES[kind], "configuration.tar.gz"))
    inside = tuple(
        DatabaseBackup(one.accessory, one.kind, one.name, accessory_database.file_name(app.databases, one), 3, 7)
        for one in app.databases
    )
    taken = Backup(
        "20261123T020000Z-abcdef", database=kind, journal_mode="wal", databases=inside, uploads=3, files=files
    )
    yield "scheduled", Script(backup.scheduled(app))
    yield "backups", manifest.read_all(app)
    yield "verify", direct(backup.verify(app, taken))
    yield "archive", direct(backup.archive(app, taken))
    wanted = restore.RestoreSpec(
        "production",
        restore.DataRestore(app, taken, RUN.id, database=bool(kind), files=bool(app.uploads)),
        replace(RUN, action="restore"),
        HOLDER,
    )
    plan = restore.plan_restore(host_states()["replace"], wanted, RolloutPolicy())
    for step in every_step(plan):
        yield from ((f"restore-{name}", script) for name, script in of_a_step(step))


def of_accessories(app: Application) -> Iterator[tuple[str, Script]]:
    """Every task, on a host without the accessories and on one that runs older ones."""
    older = tuple(
        AccessoryContainer(one.name, f"{app.name}-accessory-{one.name}", True, "running", "", 0, 0, one.image, spec="x")
        for one in app.accessories
    )
    for action in accessories.Action:
        for state in (HostState("web1"), HostState("web1", accessories=older)):
            spec = accessories.AccessorySpec(
                *(action, app, "production", "run", HOLDER, 60),
                accessories=app.accessories,
                removed=tuple(one.name for one in app.accessories),
                data=True,
            )
            for step in every_step(accessories.plan(state, spec)):
                yield from ((f"{action.value}-{len(state.accessories)}-{name}", text) for name, text in of_a_step(step))
    for one in app.accessories:
        yield f"exec-{one.name}", inside.execute_in_accessory(app, one.name, ["echo", "it's"])
        yield f"exec-terminal-{one.name}", Script(inside.interactive_in_accessory(app, one.name, ["psql"]))


def of_jobs(app: Application) -> Iterator[tuple[str, Script]]:
    """The scripts of jobs, and of the programs that the timers run."""
    jobs_of = app.jobs or (
        Job("clean", app.services[0].name, ("echo", "it's", "$HOME"), "@daily", ("*-*-* 00:00:00",)),
    )
    app = replace(app, jobs=jobs_of)
    yield "job-install", jobs.install(app, "run")
    yield "job-restore", jobs.restore(app, "run")
    yield "job-remove", jobs.remove(app)
    yield "job-pause", direct(jobs.pause(app))
    yield "job-resume", direct(jobs.resume(app))
    yield "job-list", job_scripts.listing(app)
    yield "job-run", job_scripts.run(app, app.jobs[0])
    for name, text in jobs.files(app, "run").items():
        if name.endswith(".sh"):
            # Without `exec`, which would bypass the stand-ins of tests/injection.
            program = text.replace("exec podman run ", "podman run ")
            yield f"job-program-{name}", Script(f"set -- run\n{program}")


def of_retention(app: Application) -> Iterator[tuple[str, Script]]:
    green = tuple((service, Color.GREEN) for service in ("backend", "former"))
    old = HostState("web1", active=green, containers=(replace(container("backend", Color.BLUE), running=False),))
    for mode in Mode:
        yield (
            f"prune-{mode.value}",
            Script("\n".join((retention.free_bytes(), retention.prune(old, app, RolloutPolicy(), mode)))),
        )


def of_watching(app: Application) -> Iterator[tuple[str, Script]]:
    yield "health", health.check(app)
    files = watchdog.Files(b"PK\x03\x04", '{"token": "it\'s $HOME"}\n', "[Service]\nExecStart=/bin/true\n")
    yield "watchdog-install", watchdog.install(app, files)
    yield "watchdog-uninstall", watchdog.uninstall(app)
    yield "watchdog-status", watchdog.status(app)
    yield "watchdog-log", watchdog.log(app, 100)
    yield (
        "watchdog-act",
        recovery_script(app.home, app.name, RecoveryAction.ROLL_BACK, "backend", 42.0, 'it\'s "bad" $HOME\n-x'),
    )


def of_setup(app: Application, wanted: Sequence[Preparation] = ()) -> Iterator[tuple[str, Script]]:
    """Every kind of setup, or the given ones, and the teardown."""
    dog = watchdog.install(app, watchdog.Files(b"program", "settings", "unit"))
    target = Target("web1", "web1", "deploy", app)
    for rules in wanted or EVERY_PREPARATION:
        items = setup.resources(target, rules, access=KEYS, block="shop production", watchdog=(dog, "1"))
        wall = rules.firewall.value
        yield f"check-{wall}", as_root(check(items), user="root")
        yield f"check-by-sudo-{wall}", as_root(check(items), user="admin")
        yield from ((f"{name}-{wall}", text) for name, text in of_items(items))
    yield from ((f"teardown-{name}", text) for name, text in of_items(teardown.resources(app, "deploy", data=True)))


def of_monitoring(environment: Environment) -> Iterator[tuple[str, Script]]:
    """The scripts that install and remove the monitoring of an environment."""
    name = prometheus.name_of(environment)
    items = monitoring_host.resources(name, "#!/bin/sh\n", prometheus.heads(), prometheus.parts(environment))
    yield "check", as_root(check(items), user="root")
    yield from of_items(items)
    yield from ((f"gone-{title}", text) for title, text in of_items(monitoring_host.removal(name)))


def of_items(items: tuple[Resource, ...]) -> Iterator[tuple[str, Script]]:
    for item in items:
        if item.apply is not None:
            yield item.id.replace(" ", "_").replace("/", "_"), as_root(item.apply, user="root")


def of_access(app: Application) -> Iterator[tuple[str, Script]]:
    found = access.HostAccess("/home/de ploy", {}, "", ())
    yield "access-read", as_root(access.read_files("deploy"), user="root")
    yield "access-read-by-sudo", as_root(access.read_files("deploy"), user="admin")
    yield "access-write", as_root(access.write("deploy", found, f"# {app.name}'s\n"), user="root")
    yield "access-session-key", direct(access.session_key())


def generated() -> Iterator[tuple[str, str]]:
    """The name and text of every script."""
    for kind, app in applications().items():
        for look, found in host_states().items():
            for name, script in of_a_deploy(app, found):
                yield f"{kind}-{look}-{name}", script.text
            for name, script in of_a_rollback(app, found):
                yield f"{kind}-{look}-back-{name}", script.text
        every = (
            *(of_a_run, of_looking, of_logs, of_backups, of_accessories, of_upkeep, of_retention, of_jobs, of_watching),
            *(of_setup, of_access),
        )
        for name, script in (row for part in every for row in part(app)):
            yield f"{kind}-{name}", script.text
        for name, script in of_monitoring(Environment("production", (Target("web1", "192.0.2.1", "deploy", app),))):
            yield f"{kind}-monitoring-{name}", script.text
    for name in ("boot", "requests", "observe"):
        yield f"installed-{name}", rendering.host_program(name)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every script as a file, named after where it comes from."""
    directory = tmp_path_factory.mktemp("scripts")
    for name, text in generated():
        (directory / f"{name}.sh").write_text(text, "utf-8")
        for number, inner in enumerate(_IN_THE_NAMESPACE.findall(text)):
            (directory / f"{name}-inner-{number}.sh").write_text(f"{inner}\n", "utf-8")
    return sorted(directory.iterdir())


def shellcheck() -> str:
    beside = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert beside, "shellcheck is missing beside this Python: make setup installs it"
    return beside


def test_generated_scripts_pass_shellcheck(scripts: list[Path]) -> None:
    command = [shellcheck(), "--shell=sh", "--severity=style", "--format=gcc", f"--exclude={','.join(MEANT)}"]
    different = list({path.read_bytes(): path for path in scripts}.values())
    cores = os.cpu_count() or 1

    def check(some: list[Path]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *some], capture_output=True, text=True, timeout=900, check=False)

    with ThreadPoolExecutor(cores) as pool:
        done = list(pool.map(check, (different[start::cores] for start in range(cores))))

    warnings = {line.rpartition("/")[2] for result in done for line in result.stdout.splitlines()}
    assert (sorted(warnings), [result.stderr for result in done if result.stderr]) == ([], [])


def test_generated_scripts_parse_with_sh(scripts: list[Path]) -> None:
    lines = "\n".join(f"sh -n {quote(str(path))} || echo {quote(path.name)}" for path in scripts)

    done = subprocess.run(["sh", "-s"], input=lines, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("", "")


def test_generated_scripts_are_complete(scripts: list[Path]) -> None:
    names = {path.stem for path in scripts}

    assert {
        "plain-first-backend.start",
        "plain-replace-drain",
        "plain-kept-back-backend.start",
        "secured-replace-undo-all",
        "plain-run-True",
    } <= names
    assert {"secured-restore-uploads-undo", "served-scheduled-inner-0", "plain-verify-inner-0"} <= names
    assert {"secured-health", "served-health", "bare-health", "plain-watchdog-install", "plain-watchdog-act"} <= names
    assert {"plain-observe", "bare-check-ufw", "plain-sudo_rule-none", "installed-boot"} <= names
    assert {"installed-requests", "counted-request_log-none", "counted-node_exporter-ufw"} <= names
