"""What a deploy or a rollback wants of one host. Shapes only."""

from __future__ import annotations

from dataclasses import dataclass

from fabfile.commands.transfer import Push
from fabfile.model import Application
from fabfile.plans.step import Step


@dataclass(frozen=True)
class Wanted:
    """What a run wants of one host: the application with every digest known, the site text, and the run itself.

    `target` and `left` are the releases that a rollback goes to and comes from. `page` is the maintenance page that is
    wanted, '' for none, None to leave it as it is. `pushes` come from the workstation, `data` is there when data goes
    back with the release.
    """

    environment: str
    application: Application
    site: str
    site_hash: str
    release: str
    time: str
    owner: str
    force: bool = False
    renew: frozenset[str] = frozenset()
    page: str | None = None
    action: str = "deploy"
    target: str = ""
    left: str = ""
    workstation: str = ""
    revision: str = ""
    reason: str = ""
    pushes: tuple[Push, ...] = ()
    data: DataSteps | None = None


@dataclass(frozen=True)
class DataSteps:
    """What a rollback does besides when data goes back too: all writers are stopped from `before` on.

    `prepare` changes nothing that a visitor sees; `before` and `after` stand around the steps of the services; `tidy`
    deletes what was set aside, once all is recorded. `note` says what becomes of the data.
    """

    prepare: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    tidy: str = ""
    note: str = ""
