"""The paths of the shop."""

from django.urls import path

from shop import views

urlpatterns = [path("", views.home), path("up", views.up), path("orders", views.orders)]
