"""Its pages."""

from django.urls import path

from .notes import views

urlpatterns = [
    path(f"{name}/", getattr(views, name)) for name in "plain modern stream bridge threads two fails forever".split()
]
