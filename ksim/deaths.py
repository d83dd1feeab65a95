"""Deaths: members that end by themselves, though nothing had happened that may end one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core.errors import KafkaError, error_name
from ksim.scenario import GroupSpec, Scenario

# What a member gets over, whichever request of its group is refused with it.
SURVIVED: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
)
REPEATS: Final = ("duplicate", "late")


class Deaths:
    """Which member has failed without a reason that its scenario gives.

    Reasons are: the group is full where `group_max_size` is set; the instance was fenced where
    another member has its id, or where a fault repeats a JoinGroup, which takes the instance from
    itself; there is no offset to begin at where `auto_offset_reset` is none;
    members that offer no assignor together; and a refusal that a fault of the scenario plants,
    unless it is one that a member gets over on every request of its group.
    """

    looks_at = (o.MemberLife, e.ReportError)

    def __init__(self, scenario: Scenario) -> None:
        self._specs = {group.id: group for group in scenario.groups}
        self._is_limited = scenario.cluster.group_max_size is not None
        self._planted = {
            KafkaError[fault.error] for fault in scenario.faults if fault.error is not None
        }
        self._repeats_joins = any(
            fault.kind == "JoinGroup" and fault.do in REPEATS for fault in scenario.faults
        )
        self._codes: dict[str, int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """One sentence for a member that died here without a reason."""
        for order in orders:
            if isinstance(order, e.ReportError) and order.fatal:
                self._codes[source] = order.error_code
        if not isinstance(fact, o.MemberLife) or fact.what != "failed":
            return None
        code = self._codes.pop(fact.member, KafkaError.NONE)
        if self._explained(self._specs[fact.group_id], fact.member, code):
            return None
        return (
            f"{fact.member} ended by itself at {seconds(now_ms)} with {error_name(code)}, for "
            f"which its scenario gives no reason: {fact.detail or 'it says nothing'}."
        )

    def _explained(self, group: GroupSpec, member: str, code: int) -> bool:
        mine = group.of(member)
        numbers = {each.number for each in group.overrides} | set(range(1, group.members + 1))
        others = [group.of(name) for at in numbers if (name := group.member(at)) != member]
        match code:
            case KafkaError.GROUP_MAX_SIZE_REACHED if self._is_limited:
                return True
            case KafkaError.OFFSET_OUT_OF_RANGE if mine.auto_offset_reset == "none":
                return True
            case KafkaError.FENCED_INSTANCE_ID if mine.instance_id is not None:
                shared = any(other.instance_id == mine.instance_id for other in others)
                if shared or self._repeats_joins:
                    return True
            case KafkaError.INCONSISTENT_GROUP_PROTOCOL:
                offered = [set(each.assignors or (each.assignor,)) for each in (mine, *others)]
                if not set.intersection(*offered):
                    return True
            case _:
                pass
        return code in self._planted and code not in SURVIVED
