"""The tasks that look into what runs: health, logs, exec, shell, inspect. Signatures and help only."""

from __future__ import annotations

import sys
from typing import Any

from invoke.exceptions import Exit

from fabfile.tasks.ending import ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task

_ENV = {"env": "the environment in hosts.yaml to act on (there is no default)"}
_HOSTS = {
    "host": "only these hosts, groups or roles, separated by commas",
    "hosts": "the same as --host",
}
_SERVICE = {"service": "only these services, separated by commas; may be given more than once"}


def words_of(given: list[str]) -> tuple[str, ...]:
    """What an option that may repeat and takes commas was given, one after the other."""
    return tuple(word.strip() for value in given for word in value.split(",") if word.strip())


@task(
    iterable=["service"],
    help=_ENV
    | _HOSTS
    | {
        "service": f"{_SERVICE['service']}; also nginx, and units for the application's systemd units",
        "since": "90s, 10m, 2h, 1d or a time such as 2026-11-23T07:00:00",
        "lines": "how many lines of each log at the most; 100 without --since, 0 for all",
        "tail": "the same as --lines",
        "follow": "go on as lines come, from color to color, until Ctrl-C (exit 0)",
        "grep": "only lines in which this regular expression is found",
        "color": "blue or green instead of the color that serves",
        "all-colors": "both colors, a failed candidate that was kept too",
        "json": "one JSON object per line on stdout",
    },
)
def logs(
    context: Any,
    service: list[str],
    env: str | None = None,
    host: str | None = None,
    hosts: str | None = None,
    since: str = "",
    lines: str = "",
    tail: str = "",
    follow: bool = False,
    grep: str = "",
    color: str = "",
    all_colors: bool = False,
    json: bool = False,
) -> None:
    """Show what the services of all hosts log, merged by time, or follow it."""
    from fabfile.workflows.logs import Request
    from fabfile.workflows.logs import logs as run

    request = Request(
        env,
        ROOT,
        chosen_hosts(context, _both(host, hosts)),
        words_of(service),
        since,
        lines or tail,
        grep,
        color,
        all_colors=all_colors,
        follow=follow,
        json=json,
    )
    end_with(lambda: run(request))


def _both(host: str | None, hosts: str | None) -> str | None:
    named = [words for words in (host, hosts) if words is not None]
    return ",".join(named) if named else None


@task(
    name="exec",
    help=_ENV | _HOSTS | {"service": "in which service's container; without it the first one of services.yaml"},
)
def execute(
    context: Any, env: str | None = None, service: str = "", host: str | None = None, hosts: str | None = None
) -> None:
    """Run the command behind `--` in the active container of each host."""
    from fabfile.workflows.inside import Request
    from fabfile.workflows.inside import execute as run

    request = Request(env, ROOT, chosen_hosts(context, _both(host, hosts)), service, _remainder())
    end_with(lambda: run(request))
    # `fab` takes what is behind `--` for a command of its own on the host: it does not get there.
    raise Exit(code=0)


@task(help=_ENV | {"host": "the host", "service": "in which service's container; without it the first one"})
def shell(context: Any, env: str | None = None, service: str = "", host: str | None = None) -> None:
    """Open a shell in the active container of one host."""
    from fabfile.workflows.inside import Request
    from fabfile.workflows.inside import shell as run

    request = Request(env, ROOT, chosen_hosts(context, host), service)
    end_with(lambda: run(request))


def _remainder() -> tuple[str, ...]:
    """The words behind `--` as they were typed: invoke's own remainder is joined by blanks, their bounds lost."""
    return tuple(sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else ()


@task(iterable=["service"], help=_ENV | _HOSTS | _SERVICE | {"json": "one JSON object on stdout"})
def inspect(
    context: Any,
    service: list[str],
    env: str | None = None,
    host: str | None = None,
    hosts: str | None = None,
    json: bool = False,
) -> None:
    """Show one page per host: containers, ports, images, resources, health, logs, the last run."""
    from fabfile.workflows.inspect import inspect as run

    chosen = chosen_hosts(context, _both(host, hosts))
    end_with(lambda: run(env, root=ROOT, hosts=chosen, services=words_of(service), json=json))


@task(
    help={
        **WHERE,
        "once": "look once; otherwise again every HEALTH_CHECK_INTERVAL, where there is a terminal",
        "interval": "look again after so long, without a terminal too: 10s, 1m",
        "max-failures": "end with 1 after so many bad looks in a row; without it, only Ctrl-C ends",
        "auto-recovery": "make sure that the watchdog runs on the hosts first: it recovers what stays bad",
        "verbose": "every check with its answer and time, not only what is wrong",
        "json": "one JSON object on stdout, once",
    }
)
def health(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    once: bool = False,
    verbose: bool = False,
    json: bool = False,
    interval: str = "",
    max_failures: str = "",
    auto_recovery: bool = False,
) -> None:
    """Check every host: containers, HTTP, database, disk, memory, certificate, clock, backup."""
    from fabfile.workflows.health import Request
    from fabfile.workflows.health import health as run

    chosen = chosen_hosts(context, hosts)
    request = Request(
        env,
        ROOT,
        chosen,
        once,
        verbose,
        json,
        interval=interval,
        max_failures=max_failures,
        auto_recovery=auto_recovery,
    )
    end_with(lambda: run(request))
