"""The collection of tasks that `inv` and `fab` show."""

from __future__ import annotations

from invoke.collection import Collection

from fabfile.tasks import configuration, lab, locking, looking, main, upkeep

namespace = Collection(
    main.deploy,
    main.rollback,
    main.setup,
    main.status,
    main.history,
    upkeep.maintenance,
    looking.logs,
    looking.execute,
    looking.shell,
    looking.inspect,
    config=Collection.from_module(configuration, name="config"),
    lock=Collection.from_module(locking, name="lock"),
    lab=Collection.from_module(lab, name="lab"),
)
