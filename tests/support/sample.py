"""A sample application for tests of commands and plans."""

from __future__ import annotations

from rolling_upgrade.engine.model import (
    Accessory,
    Application,
    Confinement,
    ContainerOptions,
    Drain,
    Gate,
    Image,
    Lock,
    Mount,
    Probe,
    PublishedPort,
    Route,
    Service,
    Volume,
)

DIGEST = {"backend": "sha256:" + "a" * 64, "frontend": "sha256:" + "b" * 64, "worker": "sha256:" + "c" * 64}

#: The lock that a run asks for; the host's clock fills in its times.
LOCK = Lock("r2", "ann", "laptop", 41, "deploy v2", 0, 0)


def image(name: str, tag: str = "v2", digest: str = "") -> Image:
    return Image(f"registry.test:5000/shop/{name}", tag, digest or DIGEST[name])


def backend(**changes: object) -> Service:
    values: dict[str, object] = {
        "name": "backend",
        "image": image("backend"),
        "container_port": 8080,
        "service_port": 8080,
        "gate": Gate("/api/health", deadline_seconds=20, start_period_seconds=5),
        "drain": Drain(deadline_seconds=6, stop_seconds=4),
        "routes": (Route("/api/", stream=True),),
        "mounts": (Mount("/srv/shop/data", "/app/data"), Mount("/srv/shop/config", "/app/config", True)),
        "alias": "backend",
        "env": (("SECRET_KEY", "s3cret'x"), ("LEVEL", "info")),
        "memory_bytes": 512 * 1024**2,
        "cpus": 1.5,
        "confinement": Confinement(),
    }
    return Service(**(values | changes))  # type: ignore[arg-type]


def frontend(**changes: object) -> Service:
    values: dict[str, object] = {
        "name": "frontend",
        "image": image("frontend"),
        "container_port": 7001,
        "service_port": 7001,
        "gate": Gate("/health"),
        "routes": (Route("/"),),
        "alias": "frontend",
    }
    return Service(**(values | changes))  # type: ignore[arg-type]


def worker(**changes: object) -> Service:
    """A service without a port."""
    values: dict[str, object] = {
        "name": "worker",
        "image": image("worker"),
        "container_port": 0,
        "service_port": 0,
        "gate": Gate(passes=2, deadline_seconds=20, start_period_seconds=5, running_seconds=4),
        "drain": Drain(deadline_seconds=6, stop_seconds=4),
        "command": ("celery", "worker"),
        "confinement": Confinement(),
    }
    return Service(**(values | changes))  # type: ignore[arg-type]


def application(*services: Service, **changes: object) -> Application:
    values: dict[str, object] = {
        "name": "shop",
        "environment": "production",
        "domain": "shop.test",
        "services": services or (backend(), frontend()),
        "full_chain": Probe("frontend", "/api/health"),
        "database": "/srv/shop/data/shop.db",
    }
    return Application(**(values | changes))  # type: ignore[arg-type]


def database(**changes: object) -> Accessory:
    """An accessory: PostgreSQL with a volume, a published port and a health check."""
    values: dict[str, object] = {
        "name": "db",
        "image": Image("registry.test:5000/postgres", "17", "sha256:" + "d" * 64),
        "env": (("POSTGRES_PASSWORD", "s3cret'of it"),),
        "options": ContainerOptions(volumes=(Volume("db", "/var/lib/postgresql/data"),)),
        "ports": (PublishedPort(15432, 5432),),
        "health": ("pg_isready", "-U", "it's shop"),
        "deadline_seconds": 20.0,
    }
    return Accessory(**(values | changes))  # type: ignore[arg-type]
