"""What visitors see, and the health check."""

import json

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET

from shop.models import Order, Processing
from shop.orders import QUEUE, connect


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """Greet the visitor and count the visits in a session cookie."""
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(
        f'<!doctype html><title>Shop</title><p>Visit {visits}</p><p id="version">{settings.VERSION}</p>'
    )


@require_GET
def up(_: HttpRequest) -> HttpResponse:
    """Answer 200 when database and queue answer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connect().ping()
    return JsonResponse({"status": "ok", "version": settings.VERSION})


def orders(request: HttpRequest) -> HttpResponse:
    """Create an order (POST), or show the number of orders and of processings (GET)."""
    if request.method == "POST":
        order = Order.objects.create(item=json.loads(request.body)["item"])
        connect().rpush(QUEUE, order.pk)
        return JsonResponse({"id": order.pk}, status=201)
    return JsonResponse({"orders": Order.objects.count(), "processings": Processing.objects.count()})
