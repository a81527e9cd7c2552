"""How often somebody may ask: buckets of tokens, in the memory of one process.

A bucket holds a minute's requests and fills up again within a minute. Several processes behind one address count each
for itself.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """One bucket for everybody who asks.

    Args:
        most: how many are kept; whoever has not asked for longest is forgotten first.
        clock: seconds, for ever upwards.
    """

    def __init__(self, most: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens at that time

    def take(self, who: str, per_minute: float) -> float | None:
        """Take one token.

        Args:
            who: whose.
            per_minute: size of the bucket, and how many come back in a minute.

        Returns:
            None if there was one, else the seconds until there will be.
        """
        wait = self.wait(who, per_minute)
        if wait is None:
            tokens, _ = self._level(who, per_minute)
            self._buckets[who] = (tokens - 1.0, self._clock())
            self._buckets.move_to_end(who)
            while len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        return wait

    def wait(self, who: str, per_minute: float) -> float | None:
        """Seconds until there is a token; None: there is one now. Takes none."""
        tokens, rate = self._level(who, per_minute)
        return None if tokens >= 1.0 else (1.0 - tokens) / rate

    def forget(self) -> None:
        """Fill every bucket."""
        self._buckets.clear()

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, who: str, per_minute: float) -> tuple[float, float]:
        rate = per_minute / 60.0
        tokens, then = self._buckets.get(who, (per_minute, 0.0))
        return min(per_minute, tokens + (self._clock() - then) * rate), rate


def neighbourhood(address: str | None) -> str:
    """Whose bucket an address is: of IPv6 a whole /64, since one client has so many of them."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed.packed, 64), strict=False))
    return str(parsed)
