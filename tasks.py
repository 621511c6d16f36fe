"""The `inv` namespace: `inv --list` shows it. The tasks are fabfile's own."""

from fabfile import namespace

__all__ = ["namespace"]
