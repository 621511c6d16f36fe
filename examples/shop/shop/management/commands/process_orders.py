"""The worker: process each order exactly once.

It relies on `handoff: exclusive`: when it starts, no other worker runs, so that orders in work belong to a dead one.
"""

import signal
import socket

from django.core.management.base import BaseCommand

from shop.models import Processing
from shop.orders import IN_WORK, QUEUE, connect


class Command(BaseCommand):
    """Process orders until SIGTERM, which lets the current order finish."""

    help = "Process orders until SIGTERM."

    def handle(self, *_: object, **__: object) -> None:
        """Take over what a dead worker left, then process the queue."""
        self.stopping = False
        signal.signal(signal.SIGTERM, self.stop)
        queue, container = connect(), socket.gethostname()
        while queue.lmove(IN_WORK, QUEUE, "RIGHT", "LEFT"):
            pass
        self.stdout.write(f"{container} processes orders")
        while not self.stopping:
            order = queue.blmove(QUEUE, IN_WORK, 1, "LEFT", "RIGHT")
            if order is not None:
                Processing.objects.create(order_id=int(order), container=container)
                queue.lrem(IN_WORK, 1, order)
        self.stdout.write(f"{container} stops")

    def stop(self, *_: object) -> None:
        """End the loop after the current order."""
        self.stopping = True
