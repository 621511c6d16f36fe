"""Roll the database back with a release: choose the backup, and the steps around the steps of the release.

Check the backup → page up → stop all writers → back up the current data → restore → the steps of the rollback → page
down. Once the writers have stopped, visitors get only the page, so an undo flips to the former colors without a check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rolling_upgrade.engine.model import Application, HostState, Release
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.backup.manifest import Backup, BackupKind
from rolling_upgrade.features.deploy.spec import DataSteps
from rolling_upgrade.features.maintenance import plan as page
from rolling_upgrade.features.restore import plan as restore_plan
from rolling_upgrade.features.restore import shell as restore


def choose(state: HostState, target: Release, backups: Sequence[Backup]) -> Backup | Finding:
    """Return the backup that the next run took when it replaced the target release.

    A run that was killed after a cutover may have replaced the target; the next run repeated it. A killed run has no
    line in the history, so then the right backup is the newest one that was taken while the target ran.
    """
    good = [release for release in state.releases if release.good]
    served = [number for number, release in enumerate(good) if release.content == target.content]
    replaced_by = good[served[-1] + 1].id if served and served[-1] + 1 < len(good) else ""
    if served and (not replaced_by or any(backup.id == replaced_by for backup in backups)):
        started = good[served[-1]].id
        matching = [
            backup
            for backup in backups
            if backup.id > started
            and (backup.kind is BackupKind.DEPLOY or backup.id == replaced_by)
            and (not replaced_by or backup.id <= replaced_by)
            and _ran(target, backup)
        ]
        if matching:
            return matching[-1]
    missing = f"the backup of {replaced_by}" if replaced_by else "a matching one"
    return Finding(
        state.host,
        f"no backup has the data of release {target.id}: {missing} is missing, or was taken later",
        f"Roll back without --restore-db, then choose a backup: {PROGRAM} backups, {PROGRAM} restore",
    )


def _ran(target: Release, backup: Backup) -> bool:
    """Whether the target's images ran when the backup was taken; a service without a container does not count."""
    digests = {name: image.rpartition("@")[2] for name, image in backup.services}
    return all(digests.get(name, run.digest) == run.digest for name, run in target.services)


def unfit(state: HostState, current: Application, earlier: Application, backup: Backup) -> tuple[Finding, ...]:
    """Return the problems of restoring the backup; `earlier` is the application of the target release."""
    if earlier.database != current.database:
        before, now = earlier.database or "(none)", current.database or "(none)"
        problem = f"the release used the database {before}, the application now uses {now}"
        return (Finding(state.host, problem, "Roll back without --restore-db and move the data by hand"),)
    return restore_plan.unfit(state, current, backup, database=True, files=False)


def steps(state: HostState, current: Application, backup: Backup, run_id: str, text: str) -> DataSteps:
    """Return the steps around the steps of the release; `text` is the page that visitors get meanwhile."""
    app = replace(current, uploads="")
    data = restore_plan.RestoreSteps(app, backup, run_id, database=True, files=False)
    up, down = page.around(state, app, text)
    return DataSteps(
        prepare=(data.check(),),
        before=(*up, data.stop(state), data.save(), data.database()),
        after=down,
        cleanup=restore.delete_former_data(app),
        note=f"the database goes back to backup {backup.id} of {backup.time}; backup {run_id} keeps the current one",
    )
