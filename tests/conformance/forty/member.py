"""Members as the checks need them: they ask what they are told to, right or wrong."""

from __future__ import annotations

from typing import Any, Final

from ksim.core.subscription import encode_subscription
from tests.conformance.forty.arms import TOPIC, Answer, Arm, Call

Offers = list[dict[str, Any]]
MINE: Final = object()  # the member's own, where None has a meaning
RANGE: Final[Offers] = [{"name": "range", "metadata": encode_subscription([TOPIC])}]
OTHER_TOPICS: Final[Offers] = [{"name": "range", "metadata": encode_subscription([TOPIC, "more"])}]
ROUND_ROBIN: Final[Offers] = [{"name": "roundrobin", "metadata": encode_subscription([TOPIC])}]
BOTH: Final[Offers] = [*RANGE, *ROUND_ROBIN]
SWAPPED: Final[Offers] = [*ROUND_ROBIN, *RANGE]


class Member:
    """One member: it remembers the id and the generation that it was told last."""

    def __init__(
        self,
        arm: Arm,
        name: str,
        instance: str | None = None,
        *,
        session_ms: int = 30_000,
        rebalance_ms: int = 30_000,
        offers: Offers = RANGE,
    ) -> None:
        self.arm = arm
        self.name = name
        self.instance = instance
        self.session_ms = session_ms
        self.rebalance_ms = rebalance_ms
        self.offers = offers
        self.member_id = ""
        self.generation_id = -1

    # JoinGroup

    def ask_join(
        self,
        version: int = 9,
        *,
        member_id: str | None = None,
        instance: Any = MINE,
        offers: Offers | None = None,
        session_ms: int | None = None,
        elsewhere: bool = False,
    ) -> Call:
        data = {
            "group_id": self.arm.group_id,
            "session_timeout_ms": self.session_ms if session_ms is None else session_ms,
            "rebalance_timeout_ms": self.rebalance_ms,
            "member_id": self.member_id if member_id is None else member_id,
            "group_instance_id": self.instance if instance is MINE else instance,
            "protocol_type": "consumer",
            "protocols": self.offers if offers is None else offers,
        }
        return self.arm.ask("JoinGroup", version, data, self.name, elsewhere=elsewhere)

    def take(self, call: Call) -> Answer:
        """The answer to a JoinGroup; what it says of the member is remembered."""
        answer = self.arm.get(call)
        if answer["error_code"] in (0, 79):
            self.member_id = answer["member_id"]
        if answer["error_code"] == 0:
            self.generation_id = answer["generation_id"]
        return answer

    def join(self, version: int = 9, **changes: Any) -> Answer:
        return self.take(self.ask_join(version, **changes))

    def obtain_id(self) -> None:
        """Become a pending member."""
        assert self.join()["error_code"] == 79

    def enter(self) -> Call:
        """Become a member: with an instance id at once, otherwise in two steps."""
        if self.instance is None:
            self.obtain_id()
        return self.ask_join()

    # Requests of a member

    def _who(self, generation_id: int | None, member_id: str | None, instance: Any) -> Answer:
        return {
            "group_id": self.arm.group_id,
            "generation_id": self.generation_id if generation_id is None else generation_id,
            "member_id": self.member_id if member_id is None else member_id,
            "group_instance_id": self.instance if instance is MINE else instance,
        }

    def ask_sync(
        self,
        assignments: dict[str, bytes] | None = None,
        *,
        version: int = 5,
        generation_id: int | None = None,
        member_id: str | None = None,
        instance: Any = MINE,
        kind: str | None = "consumer",
        name: str | None = "range",
        elsewhere: bool = False,
    ) -> Call:
        shares = [
            {"member_id": each, "assignment": share} for each, share in (assignments or {}).items()
        ]
        data = self._who(generation_id, member_id, instance) | {
            "protocol_type": kind,
            "protocol_name": name,
            "assignments": shares,
        }
        return self.arm.ask("SyncGroup", version, data, self.name, elsewhere=elsewhere)

    def sync(self, assignments: dict[str, bytes] | None = None, **changes: Any) -> Answer:
        return self.arm.get(self.ask_sync(assignments, **changes))

    def heartbeat(
        self,
        generation_id: int | None = None,
        *,
        member_id: str | None = None,
        instance: Any = MINE,
        elsewhere: bool = False,
    ) -> int:
        data = self._who(generation_id, member_id, instance)
        call = self.arm.ask("Heartbeat", 4, data, self.name, elsewhere=elsewhere)
        return int(self.arm.get(call)["error_code"])

    def ask_commit(
        self,
        generation_id: int | None = None,
        *,
        version: int = 8,
        member_id: str | None = None,
        instance: Any = MINE,
        metadata: str = "",
        partitions: int = 1,
        elsewhere: bool = False,
    ) -> Call:
        data = self._who(generation_id, member_id, instance)
        data["generation_id_or_member_epoch"] = data.pop("generation_id")
        items = [
            {"partition_index": at, "committed_offset": 7, "committed_metadata": metadata}
            for at in range(partitions)
        ]
        data["topics"] = [{"name": TOPIC, "partitions": items}] if items else []
        return self.arm.ask("OffsetCommit", version, data, self.name, elsewhere=elsewhere)

    def commit(self, generation_id: int | None = None, **changes: Any) -> int:
        """The error code of the one partition."""
        answer = self.arm.get(self.ask_commit(generation_id, **changes))
        return int(answer["topics"][0]["partitions"][0]["error_code"])

    def leave(
        self,
        *,
        member_id: str | None = None,
        instance: Any = MINE,
        elsewhere: bool = False,
    ) -> int:
        who = self._who(None, member_id, instance)
        each = {key: who[key] for key in ("member_id", "group_instance_id")}
        found = leave_batch(self.arm, [each], elsewhere=elsewhere)
        return found["error_code"] or int(found["members"][0]["error_code"])


def leave_batch(arm: Arm, members: list[Answer], *, elsewhere: bool = False) -> Answer:
    """LeaveGroup of several members at once."""
    data = {"group_id": arm.group_id, "members": members}
    return arm.get(arm.ask("LeaveGroup", 5, data, elsewhere=elsewhere))


def complete(members: list[Member], calls: list[Call]) -> int:
    """All are told the same generation; returns it."""
    answers = [member.take(call) for member, call in zip(members, calls, strict=True)]
    assert [answer["error_code"] for answer in answers] == [0] * len(answers), answers
    (generation_id,) = {answer["generation_id"] for answer in answers}
    return int(generation_id)


def rejoin(*members: Member) -> int:
    """All join again, the first one first, and get a new generation, which is not synced yet.

    The first one must be the leader: in Stable its JoinGroup alone begins a rebalance.
    """
    calls = []
    for member in members:
        member.arm.joined_ms = member.arm.now_ms
        calls.append(member.ask_join())
        if len(calls) == 1 and len(members) > 1:
            member.arm.until(lambda: members[1].heartbeat() == 27)
    return complete(list(members), calls)


def shares_of(*members: Member) -> dict[str, bytes]:
    """An assignment where each member gets its own name."""
    return {member.member_id: member.name.encode() for member in members}


def sync_all(*members: Member) -> None:
    """The first one leads and sends everybody's share."""
    leader, *others = members
    calls = [leader.ask_sync(shares_of(*members)), *[each.ask_sync() for each in others]]
    answers = [leader.arm.get(call) for call in calls]
    assert [answer["assignment"] for answer in answers] == [member.name for member in members], (
        answers
    )


def stable(*members: Member) -> int:
    """A Stable group of these, on a broker without initial delay; the first one leads."""
    present: list[Member] = []
    generation_id = 0
    for member in members:
        member.arm.joined_ms = member.arm.now_ms
        calls = [member.enter()]
        for other in present:
            member.arm.until(lambda each=other: each.heartbeat() == 27)  # type: ignore[misc]
        member.arm.joined_ms = member.arm.now_ms
        calls += [other.ask_join() for other in present]
        generation_id = complete([member, *present], calls)
        present.append(member)
        sync_all(*present)
    return generation_id
