"""The report of one run: in lines, as JSON, or as one page for a browser, phone or printer. The story only."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config, render
from fabfile.commands import passage as commands
from fabfile.config.access import key_names
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, Mistake, PreflightError
from fabfile.model import Stage
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report import tell
from fabfile.report.history import Told
from fabfile.report.json_lines import masked
from fabfile.report.output import Output
from fabfile.report.page import page
from fabfile.report.passage import Passage, newest, told_of
from fabfile.report.passage_lines import passage_lines
from fabfile.report.requests import Requests
from fabfile.workflows import history
from fabfile.workflows.fleet import Fleet, opened
from fabfile.workflows.replacing import replace_text


@dataclass(frozen=True)
class Request:
    """What the operator asked for; without a release it is the last run."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    release: str = ""
    last: bool = False
    html: str = ""
    load: str = ""
    json: bool = False


def report(request: Request) -> ExitCode:
    """Tell how a run passed. FAILED when a host cannot be reached. Raises PreflightError without such a run."""
    _check(request)
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    requests = _requests(request.load)
    names = key_names(environment.access_folder)
    with opened(environment) as fleet:
        parallel = environment.rollout.parallel
        found = observe.on_each(fleet.hosts, parallel, lambda host: history.read(host, fleet, names))
        told = {name: one for name, one in found.items() if isinstance(one, Told)}
        lost = {name: str(one) for name, one in found.items() if isinstance(one, HostUnreachable)}
        run = request.release or newest(told.values())
        _refuse_unknown(run, told, lost, environment.name)
        hosts = [host for host in fleet.hosts if host.name in told]
        stages = observe.on_each(hosts, parallel, lambda host: _stages(host, fleet, run))
    lost |= {name: str(one) for name, one in stages.items() if isinstance(one, HostUnreachable)}
    seen = {name: one for name, one in stages.items() if not isinstance(one, HostUnreachable)}
    output = Output(sys.stdout, environment.secrets)
    content = masked(told_of(Passage(environment.name, run, told, seen, lost, requests)), output)
    if request.html:
        replace_text(Path(request.html).expanduser(), render.report_page(page(content)))
        tell([f"{request.html}: {content['action']} {run}, {content['outcome']}"], sys.stderr, environment.secrets)
    if request.json:
        output.write(json.dumps(content, indent=2) + "\n")
        output.flush()
    elif not request.html:
        output.show(passage_lines(content))
    return ExitCode.FAILED if lost else ExitCode.DONE


def _check(request: Request) -> None:
    mistakes = []
    if request.last and request.release:
        mistakes.append(Mistake("command line", "--last", "--release beside it", "one of them"))
    folder = Path(request.html).expanduser().parent
    if request.html and not folder.is_dir():
        mistakes.append(
            Mistake("command line", "--html", repr(request.html), f"a file in a folder that is there, not {folder}")
        )
    if request.html and Path(request.html).expanduser().is_dir():
        mistakes.append(Mistake("command line", "--html", repr(request.html), "a file, not a folder"))
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)


def _requests(file: str) -> Requests | None:
    """What a load run saw. Raises ConfigError for a file that is missing or none."""
    if not file:
        return None
    try:
        with Path(file).expanduser().open(encoding="utf-8") as lines:
            return Requests.read(lines)
    except (OSError, ValueError) as error:
        mistake = Mistake("command line", "--load", repr(file), f"a file of requests, a JSON object each ({error})")
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake]) from error


def _refuse_unknown(run: str, told: Mapping[str, Told], lost: Mapping[str, str], environment: str) -> None:
    if any(release.id == run for one in told.values() for release in one.releases):
        return
    if lost and not told:
        raise HostUnreachable("\n".join(lost.values()))
    what = f"no host's history has a run {run!r}." if run else "nothing was deployed yet: the histories are empty."
    raise PreflightError(what, next_step=f"inv history --env {environment} shows the runs and their ids")


def _stages(host: Host, fleet: Fleet, run: str) -> tuple[Stage, ...]:
    script = commands.read(fleet.targets[host.name].application.home, run)
    answer = host.run(script, timeout_seconds=history.READ_SECONDS)
    try:
        return commands.parse(answer.output)
    except ValueError as error:
        raise HostUnreachable(f"{host.name}: {error}: {answer.last_words}") from error
