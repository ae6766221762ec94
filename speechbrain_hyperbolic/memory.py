"""How the C library keeps memory."""

import ctypes

# Of glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Keeps in the process what is freed, for the next training step.

    Unless told so, glibc gives large blocks back to the system as soon as they
    are free, and each step of training on the CPU asks for the same ones
    again, page by page. Processes that are forked later do likewise. Where
    the C library is another one, nothing changes.

    Returns
    -------
    kept : bool
        Whether the C library has agreed.

    Example
    -------
    >>> kept = keep_freed_memory()
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows
        return False
    # No block from outside the heap, and no end of the heap given back
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
