"""The queue of orders in Redis: web pushes the id of an order, the worker moves it to a second list while it works."""

import redis
from django.conf import settings

QUEUE, IN_WORK = "orders", "orders:in-work"


def connect() -> redis.Redis:
    """Connect to Redis."""
    return redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
