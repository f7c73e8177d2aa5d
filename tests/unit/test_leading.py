"""What is logged of how many partitions a worker leads."""

from structlog.testing import capture_logs

from dispatcher.worker.leading import STEADY_SECONDS, Leading


def test_leading() -> None:
    """It is logged what a worker has the leases of, once that has not changed for a while; what passes meanwhile is not."""
    now = 0.0
    leading = Leading(4, lambda: now)
    with capture_logs() as logged:
        for owned in (
            (),
            (0,),
            (0, 1),
            (0, 1),
            (0, 1),
            (0,),
            (0, 1),
            (0, 1),
            (0, 1),
            (2,),
            (2,),
            (2,),
            (),
            (),
            (),
        ):
            leading.note(frozenset(owned))
            now += STEADY_SECONDS / 2
    assert [("partitions.leading", count, 4) for count in (2, 1, 0)] == [
        (line["event"], line["count"], line["of"]) for line in logged
    ]
