"""Waiting for what happens by itself."""

import time
from typing import Callable, TypeVar

T = TypeVar("T")


def within(seconds: float, what: str, look: Callable[[], T]) -> T:
    """Looks until there is something to see, and gives it. `what` is what was waited for in vain."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
