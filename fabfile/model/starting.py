"""What a starting configuration is made of: the answers of `inv init`. Every text in it has its strict form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StartingService:
    """One service; `key` begins the names of its env keys: SHOP makes SHOP_IMAGE and SHOP_PORT."""

    name: str
    image: str
    container_port: int
    health: str
    routes: tuple[str, ...]
    key: str
    stable_port: int


@dataclass(frozen=True)
class Starting:
    """An application, its one environment, and the hosts of that by name and address.

    `certificate` is that of `setup` in hosts.yaml, or `none` for a site without one; `email` is for `acme` alone.
    """

    app: str
    domain: str
    environment: str
    user: str
    certificate: str
    email: str
    services: tuple[StartingService, ...]
    hosts: tuple[tuple[str, str], ...]

    @property
    def needs_version(self) -> bool:
        """Whether an image names neither tag nor digest."""
        return any("@" not in one.image and ":" not in one.image.rpartition("/")[2] for one in self.services)

    @property
    def entrance(self) -> StartingService:
        """The service that answers visitors at `/`; the last one where none does."""
        return next((one for one in self.services if "/" in one.routes), self.services[-1])

    @property
    def home(self) -> str:
        """The home directory of the user on the hosts."""
        return "/root" if self.user == "root" else f"/home/{self.user}"
