"""Roll the database back with a release: choose the backup, and the steps around those of the release.

Check the backup → page up → stop all writers → back up the current data → restore → the steps of the rollback → page
down. Once the writers have stopped, visitors get only the page, so the former colors need not pass a proof on an undo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rolling_upgrade.engine.model import Application, HostState, Release
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.features.backup.manifest import Backup, BackupKind
from rolling_upgrade.features.deploy.spec import DataSteps
from rolling_upgrade.features.maintenance import plan as page
from rolling_upgrade.features.restore import shell as restore
from rolling_upgrade.features.restore.plan import RestoreSteps, unfit


def choose(state: HostState, target: Release, backups: Sequence[Backup]) -> Backup | Finding:
    """The backup with the data as the target release left it, taken by the run that ended its last time of service.

    If that run repeated one that was killed after a cutover, the target had ended before: then it is the backup of the
    killed run, the newest that was taken while the target ran. A killed run has no line in the history.
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
    when = f"the backup of {ended}" if ended else "a matching one"
    return Finding(
        state.host,
        f"no backup has the data as release {target.id} left it: {when} is missing, or was taken later",
        "Roll back without --restore-db, then choose a backup: inv backups, inv restore",
    )


def _ran(target: Release, backup: Backup) -> bool:
    """Whether the target's images ran when the backup was taken; a service without a container does not count."""
    ran = {name: image.rpartition("@")[2] for name, image in backup.services}
    return all(ran.get(name, run.digest) == run.digest for name, run in target.services)


def unfitting(state: HostState, today: Application, kept: Application, backup: Backup) -> tuple[Finding, ...]:
    """The problems of restoring the backup; `kept` is the application of the earlier release."""
    if kept.database != today.database:
        problem = f"the release used the database {kept.database or '(none)'}, the application now uses {today.database or '(none)'}"
        return (Finding(state.host, problem, "Roll back without --restore-db and move the data by hand"),)
    return unfit(state, today, backup, database=True, files=False)


def steps(state: HostState, today: Application, backup: Backup, release: str, text: str) -> DataSteps:
    """The steps around those of the release; `text` is the page for visitors meanwhile."""
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
