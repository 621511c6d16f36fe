"""The collection of tasks that `inv` and `fab` show."""

from __future__ import annotations

from invoke.collection import Collection

from fabfile.tasks import (
    access,
    completing,
    configuration,
    data,
    lab,
    locking,
    looking,
    main,
    messages,
    pipeline,
    preparing,
    registry,
    reporting,
    secrets,
    upkeep,
    watching,
)

namespace = Collection(
    pipeline.build,
    pipeline.run_suites,
    pipeline.full,
    pipeline.promote,
    main.deploy,
    main.rollback,
    preparing.teardown,
    access.trust,
    main.status,
    looking.health,
    main.history,
    reporting.report,
    upkeep.maintenance,
    looking.logs,
    looking.execute,
    looking.shell,
    looking.inspect,
    data.backups,
    data.restore,
    upkeep.prune,
    upkeep.doctor,
    completing.completion,
    setup=Collection("setup", preparing.setup, preparing.check),
    config=Collection.from_module(configuration, name="config"),
    access=Collection("access", access.show, access.grant, access.revoke, access.sync),
    lock=Collection.from_module(locking, name="lock"),
    backup=Collection("backup", data.backup, data.verify, data.fetch),
    notify=Collection("notify", messages.notify, messages.try_out),
    monitor=Collection.from_module(watching, name="monitor"),
    registry=Collection.from_module(registry, name="registry"),
    secrets=Collection.from_module(secrets, name="secrets"),
    lab=Collection.from_module(lab, name="lab"),
)
