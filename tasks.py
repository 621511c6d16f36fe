"""The tasks that `inv` loads here: the product's own, and those of the lab."""

from fabfile import namespace

__all__ = ["namespace"]
