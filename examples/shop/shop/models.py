"""Orders, each processing of an order by the worker, and the daily summaries of the job."""

from django.db import models


class Order(models.Model):
    """An order of a visitor."""

    item = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)


class Processing(models.Model):
    """One processing of an order. Each order must have exactly one."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    container = models.CharField(max_length=64)
    processed_at = models.DateTimeField(auto_now_add=True)


class Summary(models.Model):
    """The number of orders at the time of a run of the job."""

    orders = models.IntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
