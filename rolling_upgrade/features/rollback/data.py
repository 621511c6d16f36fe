"""A rollback that takes the database back too: which backup holds it, what is done around the release's steps. Pure.

Check the backup → page up → stop all writers → back up what is there → put the database back → the rollback's own
steps → page down. From the stop of the writers on only the page is served, so the colors need not prove themselves on
the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fabfile.commands import restore
from fabfile.model import Application, Backup, BackupKind, HostState, Release
from fabfile.plans import page
from fabfile.plans.preflight import Finding
from fabfile.plans.restore import RestoreSteps, unfit
from fabfile.plans.wanted import DataSteps


def choose(state: HostState, target: Release, backups: Sequence[Backup]) -> Backup | Finding:
    """The backup with the data as the target release left it: that of the run which ended its last time of service.

    When that run repeated one that was killed after a cutover, the target had ended before: it is the killed run's
    backup then, the newest that was taken while the target ran. A killed run has no line in the history.
    """
    good = [release for release in state.releases if release.good]
    served = [at for at, release in enumerate(good) if release.content == target.content]
    ended = good[served[-1] + 1].id if served and served[-1] + 1 < len(good) else ""
    if served and (not ended or any(backup.id == ended for backup in backups)):
        began = good[served[-1]].id
        since = [one for one in backups if one.id > began and (one.kind is BackupKind.DEPLOY or one.id == ended)]
        found = [one for one in since if (not ended or one.id <= ended) and _ran(target, one)]
        if found:
            return found[-1]
    when = f"the backup of {ended}" if ended else "one"
    return Finding(
        state.host,
        f"the data as release {target.id} left it cannot be had: {when} is not there, or was taken later",
        "Roll back without --restore-db, then choose a backup: inv backups, inv restore",
    )


def _ran(target: Release, backup: Backup) -> bool:
    """Whether the target's images ran when the backup was taken; one that ran none of a service says nothing of it."""
    ran = {name: image.rpartition("@")[2] for name, image in backup.services}
    return all(ran.get(name, run.digest) == run.digest for name, run in target.services)


def unfitting(state: HostState, today: Application, kept: Application, backup: Backup) -> tuple[Finding, ...]:
    """What speaks against putting the backup back; `kept` is what the earlier release was made of."""
    if kept.database != today.database:
        problem = f"the release had its database at {kept.database or 'no path'}, which is {today.database} by now"
        return (Finding(state.host, problem, "Roll back without --restore-db and move the data by hand"),)
    return unfit(state, today, backup, database=True, files=False)


def steps(state: HostState, today: Application, backup: Backup, release: str, text: str) -> DataSteps:
    """What is done before and after the release's own steps; `text` is the page that visitors get meanwhile."""
    app = replace(today, uploads="")
    data = RestoreSteps(app, backup, release, database=True, files=False)
    up, down = page.around(state, app, text)
    return DataSteps(
        prepare=(data.check(),),
        before=(*up, data.stop(state), data.save(), data.database()),
        after=down,
        tidy=restore.forget_former(app),
        note=f"the database goes back to backup {backup.id} of {backup.time}; that of now is kept as backup {release}",
    )
