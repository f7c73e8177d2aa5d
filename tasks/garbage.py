"""What processes that serve do about Python's garbage collection."""

import gc

THRESHOLDS = 5_000, 4, 500
"""As gc.set_threshold takes them. Nearly all that a callback or a page is made of is freed without it.

Nothing else runs while it looks, so it is to look at little at once: mostly at some 30,000 objects.
Smaller steps cost a burst more. At all objects it looks as rarely as it can, once for some fifteen million that are made and stay.
"""


def spare() -> None:
    """Leaves out what there is now, which lives as long as the process, and looks at the rest less often.

    Looking through all of it took a tenth of a worker's time, and made every tenth page of the console twice as slow.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
