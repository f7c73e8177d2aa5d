"""What an error of a command is to who ran it: one line and an exit code."""

from redis.exceptions import RedisError

from dispatcher.errors import DispatcherError, visible
from tasks import console


def report(error: Exception) -> int:
    """Prints the line; the exit code. Raises what is none of the expected errors: a bug."""
    match error:
        case DispatcherError():
            console.err.print(f"error: {visible(error)}", markup=False)
            return console.code_of(error)
        case OSError():
            console.err.print(f"error: {visible(error)}", markup=False)
            return console.NO
        case RedisError():  # a key that somebody wrote over
            hint = (
                "; see docs/operations.md, A key was written over by hand"
                if "WRONGTYPE" in str(error)
                else ""
            )
            console.err.print(f"error: Redis: {visible(error)}{hint}", markup=False)
            return console.NO
    raise error
