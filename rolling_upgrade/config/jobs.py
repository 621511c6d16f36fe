"""The models of `jobs` in `deploy/services.yaml`, their resolution, and the hosts on which they run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rolling_upgrade.config import schedule, validators
from rolling_upgrade.config.issues import Issues, Strict
from rolling_upgrade.config.values import Values, named_keys
from rolling_upgrade.engine import model

if TYPE_CHECKING:
    from rolling_upgrade.config.services import Services

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}(?<!-blue)(?<!-green)")
ONE, ALL = "one", "all"


class Job(Strict):
    """A command on a schedule, in a one-off container of the current release of a service."""

    name: Annotated[
        str,
        validators.Validator(
            "a lower-case letter, then up to 30 of a-z, 0-9 and -, without -blue or -green at the end",
            lambda text: text if _NAME.fullmatch(text) else None,
        ),
    ] = Field(description="Name of the job, part of the names of its timer and its container.")
    service: Annotated[str, validators.SERVICE_NAME] = Field(
        description="Service whose image, environment, mounts, limits and options the container has."
    )
    schedule: Annotated[str, validators.TEXT] = Field(
        description="Five cron fields such as `0 3 * * *`, or @daily, in the host's time zone; or an env key."
    )
    command: Annotated[tuple[str, ...], validators.COMMAND] = Field(
        description="Command in the container: a list of arguments, or a string for its sh."
    )
    entrypoint: Annotated[tuple[str, ...], validators.ENTRYPOINT] | None = Field(
        default=None, description="Program before the command. Empty: the command itself. Default: the service's."
    )
    hosts: Annotated[str, validators.one_of(ONE, ALL)] = Field(
        default=ONE, description="`one`: the first host in hosts.yaml with the service. `all`: every host with it."
    )
    timeout_seconds: Annotated[float, validators.duration(1, 604_800)] = Field(
        default=model.Job.timeout_seconds, description="Time after which a run is ended, and counts as failed."
    )
    overlap: Annotated[model.Overlap, validators.one_of(*(overlap.value for overlap in model.Overlap))] = Field(
        default=model.Overlap.SKIP,
        description="If a run is due while the last one has not ended: `skip` it, or `replace` the last one.",
    )

    def named_keys(self) -> Iterator[str]:
        """Yield every env key that the job names."""
        yield from named_keys(self.schedule)


def check_jobs(services: Services, file: str, complete: bool, issues: Issues) -> None:
    """Check that names are unique, and that the services exist unless the file is not `complete`."""
    seen: set[str] = set()
    known = [service.name for service in services.services]
    for index, job in enumerate(services.jobs):
        if job.name in seen:
            issues.add(file, f"jobs[{index}].name", found=f"{job.name!r} again", expected="a unique value")
        seen.add(job.name)
        if complete and job.service not in known:
            expected = f"one of {', '.join(known)}"
            issues.add(file, f"jobs[{index}].service", found=repr(job.service), expected=expected)


def resolve_jobs(declared: Iterable[Job], values: Values) -> tuple[model.Job, ...]:
    """Build the jobs of a host, as if it were the only one; invalid ones are left out."""
    jobs = []
    for index, job in enumerate(declared):
        text = values.resolve(job.schedule, validators.SCHEDULE, f"jobs[{index}].schedule", required=True)
        if text is not None:
            calendar = schedule.on_calendar(text)
            jobs.append(
                model.Job(
                    name=job.name,
                    service=job.service,
                    command=job.command,
                    schedule=text,
                    calendar=calendar,
                    timeout_seconds=job.timeout_seconds,
                    overlap=job.overlap,
                    entrypoint=job.entrypoint,
                )
            )
    return tuple(jobs)


def place_jobs(declared: Iterable[Job], hosts: Mapping[str, model.Application]) -> dict[str, model.Application]:
    """Leave each job on its hosts: the first one with its service, or all with it; `hosts` are in their order."""
    on_one = {job.name for job in declared if job.hosts == ONE}
    placed: set[str] = set()
    result = {}
    for name, app in hosts.items():
        services = {service.name for service in app.services}
        jobs = tuple(job for job in app.jobs if job.service in services and job.name not in placed)
        placed |= {job.name for job in jobs} & on_one
        result[name] = replace(app, jobs=jobs)
    return result
