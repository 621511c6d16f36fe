"""The collection of tasks that `inv`, `fab` and `rolling-upgrade` show."""

from __future__ import annotations

from invoke.collection import Collection

from rolling_upgrade.features.access import tasks as access
from rolling_upgrade.features.accessory import tasks as accessory
from rolling_upgrade.features.attach import tasks as attach
from rolling_upgrade.features.backup import tasks as backup
from rolling_upgrade.features.build import tasks as build
from rolling_upgrade.features.completion import tasks as completion
from rolling_upgrade.features.configuration import tasks as configuration
from rolling_upgrade.features.deploy import tasks as deploy
from rolling_upgrade.features.doctor import tasks as doctor
from rolling_upgrade.features.exec import tasks as exec_
from rolling_upgrade.features.full import tasks as full
from rolling_upgrade.features.health import tasks as health
from rolling_upgrade.features.history import tasks as history
from rolling_upgrade.features.init import tasks as init
from rolling_upgrade.features.inspect import tasks as inspect
from rolling_upgrade.features.job import tasks as job
from rolling_upgrade.features.lock import tasks as lock
from rolling_upgrade.features.logs import tasks as logs
from rolling_upgrade.features.maintenance import tasks as maintenance
from rolling_upgrade.features.monitor import tasks as monitor
from rolling_upgrade.features.notify import tasks as notify
from rolling_upgrade.features.observe import tasks as observe
from rolling_upgrade.features.promote import tasks as promote
from rolling_upgrade.features.prune import tasks as prune
from rolling_upgrade.features.registry import tasks as registry
from rolling_upgrade.features.report import tasks as report
from rolling_upgrade.features.restore import tasks as restore
from rolling_upgrade.features.rollback import tasks as rollback
from rolling_upgrade.features.secrets import tasks as secrets
from rolling_upgrade.features.setup import tasks as setup
from rolling_upgrade.features.status import tasks as status
from rolling_upgrade.features.suites import tasks as suites
from rolling_upgrade.features.trust import tasks as trust
from rolling_upgrade.features.watchdog import tasks as watchdog

namespace = Collection(
    build.build,
    suites.run_suites,
    full.full,
    promote.promote,
    deploy.deploy,
    rollback.rollback,
    attach.attach,
    setup.teardown,
    trust.trust,
    status.status,
    health.health,
    history.history,
    report.report,
    maintenance.maintenance,
    logs.logs,
    exec_.execute,
    exec_.run_once,
    exec_.shell,
    inspect.inspect,
    backup.backups,
    restore.restore,
    prune.prune,
    doctor.doctor,
    completion.completion,
    init.init,
    setup=Collection("setup", setup.setup, setup.check),
    config=Collection.from_module(configuration, name="config"),
    access=Collection.from_module(access, name="access"),
    accessory=Collection.from_module(accessory, name="accessory"),
    job=Collection.from_module(job, name="job"),
    lock=Collection.from_module(lock, name="lock"),
    backup=Collection("backup", backup.backup, backup.verify, backup.fetch),
    notify=Collection.from_module(notify, name="notify"),
    monitor=Collection(
        "monitor", monitor.monitor, watchdog.install, watchdog.uninstall, watchdog.status, watchdog.logs
    ),
    observe=Collection.from_module(observe, name="observe"),
    registry=Collection.from_module(registry, name="registry"),
    secrets=Collection.from_module(secrets, name="secrets"),
)

#: The tasks by purpose, in the order of `--help`; the most important tasks come first.
GROUPS = {
    "Start here": ("init", "setup", "deploy", "status", "logs", "rollback"),
    "Release": (
        "build",
        "test",
        "full",
        "promote",
        "attach",
        "history",
        "report",
        "maintenance",
        "lock.status",
        "lock.acquire",
        "lock.release",
    ),
    "Accessories": (
        "accessory.up",
        "accessory.status",
        "accessory.logs",
        "accessory.exec",
        "accessory.restart",
        "accessory.upgrade",
        "accessory.down",
    ),
    "Jobs": ("job.list", "job.run"),
    "Data": ("backup", "backups", "backup.verify", "backup.fetch", "restore", "prune"),
    "Hosts": (
        "trust",
        "setup.check",
        "access.list",
        "access.grant",
        "access.revoke",
        "access.sync",
        "registry.login",
        "registry.logout",
        "inspect",
        "exec",
        "run",
        "shell",
        "teardown",
    ),
    "Secrets": (
        "secrets.encrypt",
        "secrets.decrypt",
        "secrets.edit",
        "secrets.rotate",
        "secrets.recipients",
        "secrets.check",
    ),
    "Monitoring": (
        "health",
        "doctor",
        "monitor",
        "monitor.install",
        "monitor.uninstall",
        "monitor.status",
        "monitor.logs",
        "observe.render",
        "observe.install",
        "observe.uninstall",
        "notify",
        "notify.test",
    ),
    "Configuration": ("config.check", "config.show", "config.schema", "completion"),
}
