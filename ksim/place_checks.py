"""Order within a tenure where a member may not choose its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim.checks import S10Order, seconds
from ksim.core import events as e
from ksim.core import messages as m


class S10InItsPlace(S10Order):
    """As S10, and nobody reads on from a place of its own choice where `auto_offset_reset` is none.

    A member was told that nothing is committed, that its position is not in the log, or that the
    epoch it has read last ends below it: it may ask again at that position, as it may be written
    soon. At any other one only after its application has sought, or by a new assignment.
    """

    looks_at = (*S10Order.looks_at, e.SendRequest)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        super().see(source, now_ms, fact, orders)
        for order in orders:
            if isinstance(order, e.SendRequest) and isinstance(order.request, m.FetchRequest):
                for tp, offset in self.truth.unplaced.chosen(source, order.request):
                    self.accuse(
                        now_ms,
                        f"{source} reads {tp} from offset {offset} at {seconds(now_ms)}, though it "
                        "was told that it has no place there, and auto_offset_reset is none.",
                        (source,),
                        tp,
                        (offset,),
                    )
