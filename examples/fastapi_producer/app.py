"""A backend that sends messages, and writes each change of their status into the outbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from database import Message, Outbox, Session, engine
from dispatcher import Status


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Closes the connections to the database at the end."""
    yield
    engine.dispose()


app = FastAPI(lifespan=lifespan)


class NewMessage(BaseModel):
    """What a customer wants to be sent."""

    workspace: str
    src: str
    dest: str


class Report(BaseModel):
    """What a carrier says about a message."""

    status: Status


@app.post("/messages", status_code=201)
def send(new: NewMessage) -> dict[str, str]:
    """Takes a message."""
    message = Message(uuid=str(uuid4()), status=Status.SUBMITTED, **new.model_dump())
    try:
        change = Outbox.of(message)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    with Session.begin() as session:  # one transaction: the message and its status change, or neither
        session.add_all([message, change])
        return {"uuid": message.uuid}


@app.post("/messages/{uuid}/status", status_code=204)
def report(uuid: str, report: Report) -> None:
    """Takes a carrier's delivery report."""
    with Session.begin() as session:
        # Locked, so that two reports of one message get into the outbox in the order of their commits.
        message = session.get(Message, uuid, with_for_update=True)
        if message is None:
            raise HTTPException(404, "no such message")
        message.status = report.status
        session.add(Outbox.of(message))
