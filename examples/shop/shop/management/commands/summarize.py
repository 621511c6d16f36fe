"""The job: store the number of orders."""

from django.core.management.base import BaseCommand

from shop.models import Order, Summary


class Command(BaseCommand):
    """Store a summary."""

    help = "Store the number of orders."

    def handle(self, *_: object, **__: object) -> None:
        """Count the orders and store the number."""
        summary = Summary.objects.create(orders=Order.objects.count())
        self.stdout.write(f"{summary.orders} orders")
