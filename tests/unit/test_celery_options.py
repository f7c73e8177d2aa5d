"""Which worker options Celery is not given, and why."""

import pytest

from tasks.celery_options import problem


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("foo", "takes options only, not 'foo'"),
        ("-n w1@%h foo=1", "takes options only, not 'foo=1'"),
        ("-- a.b=1", "takes options only"),
        ("--statedb x", "--statedb has no effect here"),
        ("--concurency 4", "--concurrency has no effect here: set DISPATCHER_MAX_IN_FLIGHT"),
        ("--log-level=INFO", "set DISPATCHER_LOG_LEVEL"),
        ("-S x", "-S has no effect here"),
        ("-O fair", "-O has no effect here"),
        ("-Ios", "-I has no effect here"),
        ("--prefetch-multiplier 3", "--prefetch-multiplier has no effect here"),
        ("--prefetch-multiplier=3", "--prefetch-multiplier has no effect here"),
        ("--hostname w1 --loglevel DEBUG", "set DISPATCHER_LOG_LEVEL"),
        ("--pidfile /no/such/folder/x.pid", "there is no folder /no/such/folder"),
        ("--pidfile=/no/such/folder/x.pid", "there is no folder /no/such/folder"),
        ("--umask 9", "octal"),
        ("--uid no-such-user", "there is no such user"),
        ("--gid no-such-group", "there is no such group"),
        ("-P solo", "pool `threads`"),
        ("--pool=prefork", "pool `threads`"),
    ],
)
def test_refused(arguments: str, says: str) -> None:
    """What has no effect or cannot work is refused in one line."""
    found = problem(arguments.split())
    assert says in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-n w1@%h -E --without-gossip",
        "--hostname=--beat --pool threads -Pthreads",
        "-n --beat",
        "--log x",
        "--pidfile /tmp/x.pid --umask 027 --uid 0 --gid 0",
    ],
)
def test_given(arguments: str) -> None:
    """What works is not refused, nor an option's value, whatever it looks like; of what it does not know Celery says so."""
    assert "" == problem(arguments.split())
