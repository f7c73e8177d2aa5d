"""What processes that serve do about Python's garbage collection."""

import gc

THRESHOLDS = 2_000, 5, 1_000
"""As gc.set_threshold takes them. Nearly all that a callback or a page is made of is freed without it.

Nothing else runs meanwhile, so the first two have it look at 10,000 objects at once at most: 5 ms. The last one has it
look at all as rarely as it can: once for ten million.
"""


def spare() -> None:
    """Leaves out what there is now, which lives as long as the process, and looks at the rest less often.

    Looking through all of it took a tenth of a worker's time, and made every tenth page of the console twice as slow.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
