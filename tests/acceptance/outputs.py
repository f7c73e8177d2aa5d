"""Descriptors that cannot be written to: what a log meets when a disk is full or its reader has died."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_device() -> Iterator[int]:
    """Each write fails for want of room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def reader_gone() -> Iterator[int]:
    """A pipe whose reader has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@contextmanager
def unread_pipe() -> Iterator[int]:
    """A pipe that is full, and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


BAD_OUTPUTS = (full_device, reader_gone, unread_pipe)
