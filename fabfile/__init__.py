"""The tasks that `inv` and `fab` load in this repository: the product's own, and those of the lab."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke.collection import Collection

# `fab` finds this package without looking at the folder that it is in.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from fabfile import lab
from rolling_upgrade import tasks

namespace = Collection(
    *tasks.namespace.tasks.values(),
    *tasks.namespace.collections.values(),
    Collection.from_module(lab, name="lab"),
)

__all__ = ["namespace"]
