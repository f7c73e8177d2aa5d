"""Which URL is answered by which view."""

from django.urls import path

from sms import views

urlpatterns = [
    path("messages", views.send),
    path("messages/<uuid:uuid>/status", views.report),
]
