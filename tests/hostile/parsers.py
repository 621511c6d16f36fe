"""Every parser of answers from hosts and registries, with a valid answer and the code that uses the result.

`show` is the code of the project that uses the parsed value: it must not fail for any value that the parser returns.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolling_upgrade.console.live import Board
from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.console.reporter import event_json, event_lines
from rolling_upgrade.engine import (
    accessory,
    history,
    image_push,
    jobs,
    lock_file,
    observation,
    podman,
    preflight,
    progress,
    resource,
    untrusted,
)
from rolling_upgrade.engine.locking import held_error
from rolling_upgrade.engine.masking import clean
from rolling_upgrade.engine.model import (
    Environment,
    Event,
    HealthReport,
    HostState,
    Job,
    Phase,
    Release,
    StepRecord,
    Target,
)
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.features.access import plan as access_plans
from rolling_upgrade.features.access import shell as access
from rolling_upgrade.features.access.keys import Access
from rolling_upgrade.features.backup import manifest
from rolling_upgrade.features.backup.manifest import HostBackups
from rolling_upgrade.features.backup.workflow import backup_json, backup_lines
from rolling_upgrade.features.build import builder
from rolling_upgrade.features.doctor import diagnosis
from rolling_upgrade.features.health import shell as health
from rolling_upgrade.features.health.workflow import health_json, health_lines
from rolling_upgrade.features.history.workflow import HostHistory, history_json, history_lines
from rolling_upgrade.features.inspect import shell as inspection
from rolling_upgrade.features.inspect.workflow import Inspection, inspect_json, inspect_lines
from rolling_upgrade.features.job import shell as job_scripts
from rolling_upgrade.features.job.workflow import ListedJob, job_json, job_lines
from rolling_upgrade.features.logs import shell as logs
from rolling_upgrade.features.logs.workflow import LogWriter
from rolling_upgrade.features.prune import retention
from rolling_upgrade.features.prune.workflow import prune_json, prune_lines
from rolling_upgrade.features.report import shell as journal
from rolling_upgrade.features.report.run_report import Requests, RunRecord, run_report
from rolling_upgrade.features.report.view import html_values, report_lines
from rolling_upgrade.features.rollback import selection
from rolling_upgrade.features.status.workflow import status_json, status_lines
from rolling_upgrade.features.watchdog import alerts, state_store
from rolling_upgrade.features.watchdog.policy import RecoveryState
from rolling_upgrade.features.watchdog.shell import WatchdogStatus, parse_status
from rolling_upgrade.features.watchdog.workflow import watchdog_json, watchdog_lines
from rolling_upgrade.rendering import report_page
from tests.engine import test_observation
from tests.engine.test_history import RELEASE
from tests.features.health import test_shell_parse
from tests.support.builders import environment
from tests.support.history_line import history_line
from tests.support.sample import application

HOME = application().home
APP = application(auto_backup=True)
ENVIRONMENT = environment("web1")
TARGET = Target("web1", "10.0.0.1", "deploy", APP)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti ann"
LINE = history_line(RELEASE)[:-1] + ', "key": "", "client": "", "previous": ""}'
HELD = (
    "token=r1\nowner=ann\nworkstation=laptop\npid=12\nreason=a deploy\nacquired_at=1795403500\nexpires_at=1795403700\n"
)
CHECKSUM = "0" * 64
ID = "20261123T020000Z-abcdef"
MANIFEST = json.dumps(
    {
        "format": 1, "id": ID, "kind": "manual", "app": "shop", "time": "2026-11-23T02:00:00Z", "release": "r1",
        "services": {"backend": "shop/backend:v1"}, "database": "sqlite", "journal_mode": "wal", "rows": 3,
        "databases": [
            {"accessory": "db", "kind": "postgres", "name": "shop", "file": "db.pgdump", "tables": 2, "rows": 7}
        ],
        "uploads": 2, "uploads_bytes": 90,
        "files": [
            {"path": name, "bytes": 9, "sha256": CHECKSUM}
            for name in ("database.db", "rows", "db.pgdump", "uploads.sums")
        ],
    }
)  # fmt: skip
ACCESSORY = test_observation.row(name="shop-accessory-db", service="", color="", digest="", accessory="db")
STATE = test_observation.text(
    facts="now=1795403565\nfree_kib=900\ntotal_kib=1000\nfree_inodes=7\nlast_backup=1795400000 shop-1\npodman=4.3.1",
    containers="\n".join((test_observation.row(), ACCESSORY)),
    active="backend.green",
    listening="127.0.0.1:8080",
    releases=LINE,
    lock=HELD.rstrip(),
    probes="backend\thttp://127.0.0.1:8080/\t200\t0.012\t127.0.0.1:1",
)
FACTS = (
    "@@doctor\nclock=1795403565.123\nnginx_version=1.22.1\ncurl_version=7.88\npodman_info=overlay v2 memory,cpu,\n"
    "subuid=65536\nsubgid=65536\ncertificate=1799999999\nsudo=x\n"
)
WATCHDOG = (
    "installed=yes\nversion=v1\nuptime=900\nActiveState=active\nNRestarts=1\nActiveEnterTimestampMonotonic=4000000\n"
    "memory_kb=20000\nticks=12\nticks_a_second=100\nalive=3\n"
    'memory={"memory": {"recoveries": [1], "given_up": false}}\n'
)


@dataclass(frozen=True)
class Parser:
    """One parser: its call, a valid answer, and the code that uses its result."""

    call: Callable[[str], Any]
    good: str
    show: Callable[[Any], object] = repr


def _printed(lines: Sequence[str], content: object) -> None:
    """Print a view in both forms, as a task does."""
    print_lines(lines, ENVIRONMENT.secrets, stream=io.StringIO())
    print_result(content, ENVIRONMENT.secrets, stream=io.StringIO())


def _state(state: HostState) -> None:
    pages = {"web1": Inspection(state, {"host": ("a",)}, "")}
    _printed(status_lines(ENVIRONMENT, {"web1": state}, {}), status_json(ENVIRONMENT, {"web1": state}, {}))
    _printed(inspect_lines(ENVIRONMENT, pages, {}, ["backend"]), inspect_json(ENVIRONMENT, pages, {}, ["backend"]))
    preflight.findings(state, APP)
    preflight.backup(state, APP)


def _health(report: HealthReport) -> None:
    lines, content = health_lines({"web1": report}, "production", verbose=True), health_json({"web1": report}, "x")
    _printed(lines, content)
    for line in (*lines, json.dumps(to_plain(content))):
        clean(line).encode()
    _state(report.state)


def _facts(facts: dict[str, str]) -> None:
    state = observation.parse(APP.name, "web1", STATE)
    diagnosis.diagnose(state, replace(APP, tls=None), diagnosis.HostFacts(facts, 0.0, 1.0))


def _history(releases: Sequence[Release]) -> None:
    histories = {"web1": HostHistory(tuple(releases))}
    _printed(history_lines(histories, {}, limit=0, verify=True), history_json("production", histories, {}, limit=0))
    selection.bad(releases)


def _steps(steps: Sequence[StepRecord]) -> None:
    histories = {"web1": HostHistory((RELEASE,))}
    report = run_report(RunRecord("production", RELEASE.id, histories, {"web1": steps}, {}))
    _printed(report_lines(report), report)
    assert "<script" not in report_page(html_values(report))


def _backups(backups: HostBackups) -> None:
    hosts = {"web1": backups}
    _printed(backup_lines(hosts, {}), backup_json("production", hosts, {}))


def _access(observed: access.HostAccess) -> None:
    desired = access_plans.DesiredAccess("production", TARGET, Access((), ()))
    access_plans.holders(desired, observed)
    access_plans.faults(desired, observed)
    desired.text(observed)


def _lock(lock: Any) -> None:
    str(held_error("web1", lock, "production", 1))


def _log(line: Any) -> None:
    for as_json in (False, True):
        LogWriter(io.StringIO(), io.StringIO(), hosts=["web1"], json=as_json, environ={}).line(line)


def _watchdog(status: WatchdogStatus) -> None:
    _printed(watchdog_lines({"web1": status}, {}, "production"), watchdog_json({"web1": status}, {}, "production"))


def _pruned(result: Any) -> None:
    _printed(prune_lines({"web1": result}), prune_json({"web1": result}))


def _progress(found: progress.Progress | None) -> None:
    """Show it as the consoles do, and as JSON."""
    if found is None:
        return
    event = Event(1.0, Phase.PROGRESS, "a step", "web1", "a", 1.0, found.text, found.sent, found.total)
    board = Board()
    board.apply(replace(event, phase=Phase.STARTED))
    board.apply(event)
    ((row,), _) = board.visible(1)
    assert len(event_lines(event)) == 1
    _printed([row.activity, *event_lines(event)], event_json(event))


def _access_answer() -> str:
    content = base64.b64encode(f"{KEY}\n".encode()).decode()
    path = f"{HOME}/.ssh/authorized_keys"
    head = f"home={HOME}\nsetting passwordauthentication no\ndirectory=d 700\n"
    return f"{head}file={path}\nstate=d 600\ncontent={content}\nend\n"


def _jobs(state: HostState) -> None:
    job = Job("clean", "backend", ("true",), "@daily", ("*-*-* 00:00:00",))
    rows = tuple(
        ListedJob(job, found, job_scripts.next_start(state, "clean"), state.now)
        for found in jobs.states(state, replace(APP, jobs=(job,)))
    )
    environment = Environment("production", (Target("web1", "192.0.2.1", "deploy", APP),))
    print_result(job_lines(environment, {"web1": rows}, {}), stream=io.StringIO())
    print_result(job_json(environment, {"web1": rows}, {}), stream=io.StringIO())


def _load_state(text: str) -> RecoveryState:
    """Load the watchdog's state file."""
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "watchdog").mkdir()
        (Path(home) / "watchdog" / "memory.json").write_text(text, "utf-8", errors="surrogatepass")
        return state_store.load_state(Path(home))


def _requests(text: str) -> Requests:
    return Requests.read(text.split("\n"))


PARSERS: dict[str, Parser] = {
    "features.access.shell.parse": Parser(access.parse, _access_answer(), _access),
    "features.access.shell.entries": Parser(access.entries, f"{KEY}\n"),
    "features.access.shell.unparsed_lines": Parser(access.unparsed_lines, f"{KEY}\n"),
    "features.build.builder.platforms_of": Parser(
        builder.platforms_of, '{"manifests": [{"platform": {"os": "linux", "architecture": "arm64"}}]}'
    ),
    "features.build.builder.pushed_digest": Parser(builder.pushed_digest, f"latest: digest: sha256:{CHECKSUM} size: 9"),
    "engine.history.parse_definition": Parser(
        lambda text: history.parse_definition(text, HOME), history.dump_definition(APP), to_plain
    ),
    "features.doctor.diagnosis.parse_facts": Parser(diagnosis.parse_facts, FACTS, _facts),
    "features.prune.retention.parse": Parser(retention.parse, "free\t10\ngone\timage\tx\t3.5\nfree\t12\n", _pruned),
    "features.inspect.shell.parse": Parser(inspection.parse, "@@part host\n a\n@@part logs\n b\n@@end\n"),
    "engine.accessory.parse_checks": Parser(
        lambda text: accessory.parse_checks(untrusted.lines(text)), "db\t1\tno connection\nredis\t0\t\n"
    ),
    "features.job.shell.parse": Parser(
        lambda text: job_scripts.parse("web1", text),
        "now=1795403565\njobs=abc\nnext.clean=1795403600\n"
        "job.clean=inactive/exit-code 7 1795403500 1795403530 r1/1795403500 r1\n",
        _jobs,
    ),
    "engine.lock_file.host_time": Parser(lock_file.host_time, "now=12\n"),
    "engine.lock_file.parse": Parser(lock_file.parse, HELD, _lock),
    "engine.lock_file.is_executing": Parser(lock_file.is_executing, "executing=yes\n"),
    "engine.lock_file.is_step_running": Parser(lock_file.is_step_running, "step=yes\n"),
    "features.logs.shell.parse": Parser(
        lambda text: logs.parse("web1", text), "backend\tblue\t2026-11-23T03:00:00.123456789+00:00 a line", _log
    ),
    "features.backup.manifest.parse": Parser(
        lambda text: manifest.parse(APP, text),
        f"@@now\n1795403565\n@@backup shop-{ID}\n{MANIFEST}\n\n@@verdict\ngood 1795403000 x\n@@end\n",
        _backups,
    ),
    "features.backup.manifest.read": Parser(
        lambda text: manifest.read("shop", ID, text), MANIFEST, lambda backup: _backups(HostBackups(1, (backup,)))
    ),
    "features.report.shell.parse": Parser(
        journal.parse, "@@step 1795403500.5 1795403501.5 0 backup\n a line\n@@end\n", _steps
    ),
    "engine.progress.parse": Parser(progress.parse, "@@progress bytes 12 34", _progress),
    "engine.podman.registry_answer": Parser(
        podman.registry_answer,
        f'{{"Digest": "sha256:{CHECKSUM}", "Labels": {{"org.opencontainers.image.revision": "1234abc"}}}}',
    ),
    "engine.history.parse": Parser(history.parse, LINE + "\n", _history),
    "engine.history.split": Parser(history.split, f"{LINE}\n@@head\n{CHECKSUM}\n"),
    "engine.history.verify": Parser(lambda text: history.verify(text, CHECKSUM), LINE + "\n"),
    "engine.observation.parse": Parser(lambda text: observation.parse(APP.name, "web1", text), STATE, _state),
    "engine.observation.sections": Parser(observation.sections, STATE),
    "engine.image_push.parse": Parser(image_push.parse, f"x86_64\nsha256:{CHECKSUM}\n"),
    "features.health.shell.parse": Parser(
        lambda text: health.parse(test_shell_parse.APP, "web1", text, 1_795_403_565.0), test_shell_parse.text(), _health
    ),
    "engine.untrusted.json_object": Parser(untrusted.json_object, '{"a": [1, 2.5, "x"]}', json.dumps),
    "engine.untrusted.json_value": Parser(untrusted.json_value, "[1, 2.5, null]", json.dumps),
    "engine.untrusted.lines": Parser(untrusted.lines, "a\nb\n"),
    "engine.untrusted.rows": Parser(untrusted.rows, "a\nb\n"),
    "features.watchdog.alerts.load_tracked": Parser(
        alerts.load_tracked,
        '[{"alert": {"host": "web1", "check": "disk", "cause": "", "next_command": "", "level": "warning", '
        '"given_up": false}, "thread": "t", "since": 1.5, "told_at": 2, "seen_at": 3, "times": 1, "open": true}]',
        alerts.dump_tracked,
    ),
    "features.rollback.selection.unavailable": Parser(
        lambda text: selection.unavailable("web1", RELEASE, APP, text), "backend env yes\nbackend image yes\n"
    ),
    "engine.resource.parse_check": Parser(resource.parse_check, "user ok\npackages drift\n"),
    "features.report.run_report.Requests.read": Parser(
        _requests, '{"at": 1795403500.5, "ms": 12.5, "ok": true}', lambda requests: requests.figures(0, 2e9)
    ),
    "features.watchdog.shell.parse_status": Parser(lambda text: parse_status(text, "v1"), WATCHDOG, _watchdog),
    "features.watchdog.state_store.load_state": Parser(_load_state, '{"boot": "b", "memory": {}}'),
}

#: Functions with a parameter of such a name that do not read an answer of a host, with the origin of the text.
NOT_OF_A_HOST = {
    "engine.openssh.read_public_key": "a key file of this workstation, or a checked line of ssh-keyscan",
    "features.init.answers.read_routes": "an option of the operator",
    "features.init.compose_values.secrets_in": "a Compose file of the operator",
    "features.logs.shell.since": "an option of the operator",
    "features.logs.shell.after": "a parsed line",
    "engine.model.parse": "an image reference, from a configuration or a parsed field",
    "engine.maintenance.is_supported": "the site text that this program rendered",
}
