"""The tasks that `inv` and `fab` load in this repository: the tasks of the product and of the lab."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke.collection import Collection

# `fab` loads this package without adding its parent directory to the path.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from fabfile import lab
from rolling_upgrade import tasks

namespace = Collection(
    *tasks.namespace.tasks.values(),
    *tasks.namespace.collections.values(),
    Collection.from_module(lab, name="lab"),
)
