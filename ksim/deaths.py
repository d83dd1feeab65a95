"""Deaths: members that end by themselves, though nothing had happened that may end one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError, error_name
from ksim.scenario import GroupSpec, Scenario
from ksim.truth import NONE, Truth

# What a member gets over, whichever request of its group is refused with it.
SURVIVED: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
)
# The codes that end a member, by request; where `SURVIVED_TOO` has the request, all others do.
ENDING: Final[dict[str, tuple[KafkaError, ...]]] = {
    "FindCoordinator": (
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.UNSUPPORTED_VERSION,
    ),
    "Heartbeat": (KafkaError.FENCED_INSTANCE_ID,),
    "OffsetCommit": (KafkaError.FENCED_INSTANCE_ID,),
}
SURVIVED_TOO: Final[dict[str, tuple[KafkaError, ...]]] = {
    "JoinGroup": (KafkaError.MEMBER_ID_REQUIRED,),
    "SyncGroup": (),
    "OffsetFetch": (
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_TOPIC_OR_PARTITION,
    ),
}
REPEATS: Final = ("duplicate", "late")


def ends_its_member(kind: str, code: KafkaError) -> bool:
    """Whether the refusal of such a request is one that its owner alone can mend."""
    if kind in SURVIVED_TOO:
        return code not in SURVIVED and code not in SURVIVED_TOO[kind]
    return code in ENDING.get(kind, ())


class Deaths:
    """Which member has failed without a reason that its scenario gives.

    Reasons are: the group is full where `group_max_size` is set; the instance was fenced where
    another member has its id, or where a fault repeats a JoinGroup, or one that was given up comes
    late, which takes the instance from itself, or where the coordinator came back with an older
    member id of it than the one that it gave out, as it stores that with the generation alone;
    the member was told that there is no offset to go on at where `auto_offset_reset` is none
    (`unplaced`); members that offer no assignor
    together; and a refusal that a fault of the scenario plants for this member, unless it is one
    that a member gets over where it is planted (`ends_its_member`).
    """

    looks_at = (
        o.MemberLife,
        e.ReportError,
        e.LogReplayed,
        e.RequestArrived,
        e.ResponseReceived,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        self._truth = truth
        self._specs = {group.id: group for group in scenario.groups}
        self._is_limited = scenario.cluster.group_max_size is not None
        self._planted = {
            (fault.member, code)
            for fault in scenario.faults
            if fault.error is not None
            and ends_its_member(fault.kind, code := KafkaError[fault.error])
        }
        self._repeats_joins = any(
            fault.kind == "JoinGroup" and fault.do in REPEATS for fault in scenario.faults
        )
        self._codes: dict[str, int] = {}
        self._were_told: set[str] = set()
        self._member_ids: dict[str, str] = {}
        self._loaded: dict[tuple[str, str], tuple[str, str]] = {}
        # Ids that were asked for, and not given yet, as far as the members know.
        self._ids_due: dict[str, int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """One sentence for a member that died here without a reason."""
        self._note_instances(source, fact)
        for order in orders:
            if isinstance(order, e.ReportError) and order.fatal:
                self._codes[source] = order.error_code
                if self._truth.unplaced.is_told(source):
                    self._were_told.add(source)
        if not isinstance(fact, o.MemberLife) or fact.what != "failed":
            return None
        code = self._codes.pop(fact.member, KafkaError.NONE)
        if self._explained(self._specs[fact.group_id], fact.member, code):
            return None
        return (
            f"{fact.member} ended by itself at {seconds(now_ms)} with {error_name(code)}, for "
            f"which its scenario gives no reason: {fact.detail or 'it says nothing'}."
        )

    def _note_instances(self, source: str, fact: Any) -> None:
        """Which member id an instance has, as it knows itself and as its coordinator found it."""
        match fact:
            case o.MemberLife(what="started"):
                self._were_told.discard(fact.member)
                self._ids_due.pop(fact.member, None)
            case e.ResponseReceived(response=m.JoinGroupResponse() as joined):
                if joined.error_code == KafkaError.NONE:
                    self._given(source, joined.member_id)
            case e.RequestArrived(request=m.JoinGroupRequest() as join):
                self._asked(source, fact.client_id, join)
            case e.LogReplayed():
                for entry in fact.entries:
                    for each in entry.members if isinstance(entry, e.GroupRecord) else ():
                        if each.group_instance_id is not None:
                            instance = entry.group_id, each.group_instance_id
                            self._loaded[instance] = source, each.member_id
            case _:
                pass

    def _given(self, member: str, member_id: str) -> None:
        if self._member_ids.get(member) != member_id:
            self._ids_due[member] = self._ids_due.get(member, 0) - 1
        self._member_ids[member] = member_id

    def _asked(self, source: str, member: str, join: m.JoinGroupRequest) -> None:
        if not join.member_id:
            self._ids_due[member] = self._ids_due.get(member, 0) + 1
        instance = join.group_id, join.group_instance_id or ""
        term, loaded_id = self._loaded.get(instance, ("", ""))
        if term == source and join.member_id in ("", loaded_id):
            del self._loaded[instance]  # from here on this term knows it

    def _came_back_older(self, group_id: str, instance_id: str, member: str) -> bool:
        _, loaded_id = self._loaded.get((group_id, instance_id), ("", None))
        return loaded_id is not None and loaded_id != self._member_ids.get(member)

    def _explained(self, group: GroupSpec, member: str, code: int) -> bool:
        mine = group.of(member)
        others = [group.of(name) for name in group.names if name != member]
        match code:
            case KafkaError.GROUP_MAX_SIZE_REACHED if self._is_limited:
                return True
            case KafkaError.OFFSET_OUT_OF_RANGE if mine.auto_offset_reset == NONE:
                return member in self._were_told
            case KafkaError.FENCED_INSTANCE_ID if mine.instance_id is not None:
                shared = any(other.instance_id == mine.instance_id for other in others)
                older = self._came_back_older(group.id, mine.instance_id, member)
                late = self._ids_due.get(member, 0) > 0
                if shared or self._repeats_joins or older or late:
                    return True
            case KafkaError.INCONSISTENT_GROUP_PROTOCOL:
                offered = [set(each.assignors or (each.assignor,)) for each in (mine, *others)]
                if not set.intersection(*offered):
                    return True
            case _:
                pass
        return any((at, code) in self._planted for at in (None, member))
