"""`inv report`: one run in lines, as JSON, or as one HTML page for a browser, a phone or a printer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console.output import Output, print_lines, print_result
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.local_file import replace_text
from rolling_upgrade.engine.model import StepRecord
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, PreflightError, usage_error
from rolling_upgrade.features.access.keys import key_names
from rolling_upgrade.features.history import workflow as history
from rolling_upgrade.features.history.workflow import HostHistory
from rolling_upgrade.features.report import shell
from rolling_upgrade.features.report.run_report import Requests, RunRecord, newest, run_report
from rolling_upgrade.features.report.view import html_values, report_lines
from rolling_upgrade.ssh.fleet import Fleet, opened


def report(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    release: str = "",
    last: bool = False,
    html: str = "",
    load: str = "",
    json: bool = False,
) -> ExitCode:
    """Report a run. FAILED when a host is unreachable. Raises PreflightError when no history holds the run."""
    _check(release, html, last=last)
    environment = config.load(env, root=root, hosts=hosts)
    requests = _requests(load)
    names = key_names(environment.access_directory)
    with opened(environment) as fleet:
        histories, unreachable = fleet.on_reachable(lambda host: history.read(host, fleet, names))
        run = release or newest(histories.values())
        _require_run(run, histories, unreachable, environment.name)
        reached = [host for host in fleet.hosts if host.name in histories]
        steps, lost = fleet.on_reachable(lambda host: _steps(host, fleet, run), hosts=reached)
    unreachable |= lost
    record = RunRecord(environment.name, run, histories, steps, unreachable, requests)
    output = Output(sys.stdout, environment.secrets)
    # Masked before texts are cut to size: a part of a secret would no longer be recognized.
    masked = output.masked(run_report(record))
    if html:
        replace_text(Path(html).expanduser(), rendering.report_page(html_values(masked)))
        print_lines([f"{html}: {masked.action} {run}, {masked.outcome.value}"], environment.secrets, stream=sys.stderr)
    if json or not html:
        print_result(masked if json else report_lines(masked), environment.secrets)
    return ExitCode.FAILED if unreachable else ExitCode.DONE


def _check(release: str, html: str, *, last: bool) -> None:
    issues = []
    if last and release:
        issues.append(("--last", "--release beside it", "one of them"))
    directory = Path(html).expanduser().parent
    if html and not directory.is_dir():
        issues.append(("--html", repr(html), f"a file in an existing directory, not {directory}"))
    if html and Path(html).expanduser().is_dir():
        issues.append(("--html", repr(html), "a file, not a directory"))
    if issues:
        raise usage_error(*issues)


def _requests(file: str) -> Requests | None:
    """Read a file of requests. Raises ConfigError for a missing or invalid file."""
    if not file:
        return None
    try:
        with Path(file).expanduser().open(encoding="utf-8") as lines:
            return Requests.read(lines)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise usage_error(("--load", repr(file), f"a file of requests, a JSON object each ({reason})")) from error


def _require_run(
    run: str, histories: Mapping[str, HostHistory], unreachable: Mapping[str, str], environment: str
) -> None:
    if any(release.id == run for history in histories.values() for release in history.releases):
        return
    if unreachable and not histories:
        raise HostUnreachable("\n".join(unreachable.values()))
    what = f"no host's history has a run {run!r}." if run else "nothing was deployed yet: the histories are empty."
    raise PreflightError(what, next_step=f"{PROGRAM} history --env {environment} shows the runs and their ids")


def _steps(host: Host, fleet: Fleet, run: str) -> tuple[StepRecord, ...]:
    script = shell.read(fleet.targets[host.name].application.home, run)
    answer = host.run(script, timeout_seconds=history.READ_SECONDS)
    try:
        return shell.parse(answer.output)
    except ValueError as error:
        raise HostUnreachable(f"{host.name}: {error}: {answer.output_tail}") from error
