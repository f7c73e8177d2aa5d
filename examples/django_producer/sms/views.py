"""What is answered over HTTP. Each view writes in one transaction: the message and its status change, or neither."""

import json
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from dispatcher import Status
from sms.models import Message


@require_POST
def send(request: HttpRequest) -> HttpResponse:
    """Takes a message."""
    try:
        new = json.loads(request.body)
        message = Message(
            workspace=new["workspace"], src=new["src"], dest=new["dest"], status=Status.SUBMITTED
        )
        with transaction.atomic():
            message.save_with_status_change()
    except (ValueError, KeyError, TypeError) as error:
        return refused(error)
    return JsonResponse({"uuid": str(message.uuid)}, status=201)


@require_POST
def report(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Takes a carrier's delivery report."""
    try:
        status = Status(json.loads(request.body)["status"])
    except (ValueError, KeyError, TypeError) as error:
        return refused(error)
    with transaction.atomic():
        # Locked, so that two reports of one message get into the outbox in the order of their commits.
        message = get_object_or_404(Message.objects.select_for_update(), pk=uuid)
        message.status = status
        message.save_with_status_change()
    return HttpResponse(status=204)


def refused(error: Exception) -> HttpResponse:
    """Says what is wrong with a request's body."""
    match error:
        case KeyError():
            detail = f"{error.args[0]}: is required"
        case TypeError():
            detail = "send a JSON object, with text in its fields"
        case _:
            detail = str(error)
    return JsonResponse({"detail": detail}, status=422)
