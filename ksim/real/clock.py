"""The one clock of the real world."""

from __future__ import annotations

import time
from typing import Final

# A lease must run out while the machine sleeps, so the clock counts suspend where it can.
CLOCK_ID: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
NS_PER_MS: Final = 1_000_000


def now_ms() -> int:
    """Monotonic milliseconds; counts suspend where the platform has such a clock."""
    return time.clock_gettime_ns(CLOCK_ID) // NS_PER_MS
