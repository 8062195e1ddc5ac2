"""Waiting for facts instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    look: Callable[[], T],
    until: Callable[[T], object] = bool,
    *,
    within: float = 40.0,
    what: str = "",
) -> T:
    """Looks again and again until `until` holds of what it sees, and returns that.

    After `within` seconds it fails and shows what it saw last. The default is generous, for slow
    machines; a test that is about time compares recorded times instead.
    """
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if until(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {within} s for {what or 'something'}; last seen: {seen!r}"
            )
        time.sleep(0.05)
