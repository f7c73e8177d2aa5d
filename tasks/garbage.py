"""What processes that serve do about Python's garbage collection."""

import gc

THRESHOLDS = 10_000, 20, 50
"""As gc.set_threshold takes them: nearly all that a callback or a page is made of is freed without it."""


def spare() -> None:
    """Leaves out what there is now, which lives as long as the process, and looks at the rest less often.

    Looking through all of it took a tenth of a worker's time, and made every tenth page of the console twice as slow.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
