"""The tables: messages, and the outbox of their status changes. `python database.py` creates them."""

import os
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Integer, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

import dispatcher

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///producer.db"))
Session = sessionmaker(engine)


class Base(DeclarativeBase):
    """What all tables have in common."""


class Message(Base):
    """A message, as this backend keeps it."""

    __tablename__ = "message"

    uuid: Mapped[str] = mapped_column(primary_key=True)
    workspace: Mapped[str]
    src: Mapped[str]
    dest: Mapped[str]
    status: Mapped[str]


class Outbox(Base):
    """A status change that is committed and not yet enqueued."""

    __tablename__ = "outbox"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    change: Mapped[str]
    """JSON, as `StatusChange.to_json` writes it; eventId and timestamp are fixed from here on."""
    problem: Mapped[str | None]
    """Why it cannot be enqueued; such a row is set aside."""

    @classmethod
    def of(cls, message: Message) -> "Outbox":
        """The row for a message whose status has just changed. Raises ValueError where it cannot be enqueued."""
        change = dispatcher.StatusChange(
            workspace=message.workspace,
            status=dispatcher.Status(message.status),
            timestamp=datetime.now(UTC),
            message=dispatcher.Message(uuid=message.uuid, src=message.src, dest=message.dest),
        )
        return cls(change=change.to_json().decode())


if __name__ == "__main__":
    Base.metadata.create_all(engine)  # a real application has migrations
