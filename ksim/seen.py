"""What must be handled and committed once nothing goes wrong any more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.checks import Checker, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import GroupSpec, Scenario
from ksim.truth import Place, Truth

# Kafka's own, which no pattern takes.
INTERNAL: Final = ("__consumer_offsets", "__transaction_state", "__share_group_state")


def reads(spec: GroupSpec, topic: str) -> bool:
    """Whether a member like this wants the topic, by its name or by a pattern.

    Members decide by `core.patterns`; they are judged by what is said here.
    """
    whitelist, blacklist = spec.topics_whitelist, spec.topics_blacklist
    if topic in spec.topics:
        return True
    if topic in INTERNAL or whitelist is None or not re.search(whitelist, topic):
        return False
    return blacklist is None or not re.search(blacklist, topic)


class L2AllSeen(Checker):
    """After healing every record that a living member wants is handled in its group, and committed.

    What a group wants is what any of its live members wants, by name or by pattern. What it has
    handled up to the end of a log must be committed up to there, too: nobody takes it over, so no
    rebalance does that. A partition is excused from the latter if the last commit of it, of all
    that is handled, was refused or has no answer (its member may give up after a few, until there
    is more to commit), if a commit that was given up
    came late, if its committed offset was voided, and if its group began anew at that end, by
    `latest`. So is a group that keeps its offsets in a store of its own. Nothing is asked of one
    without a reset, of which a member was told that it has no place (`unplaced`).
    """

    name = "L2"
    liveness = True
    looks_at = (e.SendRequest, e.ResponseReceived, e.RequestFailed, o.MemberLife)

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        super().__init__(truth)
        self._specs = {group.id: group for group in scenario.groups}
        self._wanted: dict[tuple[str, str, str], bool] = {}
        self._asked: dict[tuple[str, int], dict[Place, int]] = {}
        self._excused: dict[Place, int] = {}
        self._stored_elsewhere: set[str] = set()

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """The ground truth holds all that counts but how the last commits went."""
        del now_ms
        for order in orders:
            match order:
                case e.SendRequest(channel="store"):
                    self._stored_elsewhere.add(self.truth.groups.get(source, ""))
                case e.SendRequest(request=m.OffsetCommitRequest() as request):
                    self._asked[source, order.request_id] = {
                        self.truth.place(source, at.topic, at.partition): at.offset
                        for at in request.offsets
                    }
                case _:
                    pass
        match fact:
            case e.ResponseReceived(response=m.OffsetCommitResponse() as response):
                asked = self._asked.pop((source, fact.request_id), {})
                for item in response.partitions:
                    place = self.truth.place(source, item.topic, item.partition)
                    self._excused.pop(place, None)
                    if item.error_code and place in asked:
                        self._excused[place] = asked[place]
            case e.RequestFailed():
                self._excused.update(self._asked.pop((source, fact.request_id), {}))
            case _:
                pass

    def _wants(self, group_id: str, topic: str) -> bool:
        """Whether anybody there wants it; a group without members is taken as its table says."""
        names = [name for name, of in self.truth.live.items() if of == group_id]
        return any(self._reads(group_id, name, topic) for name in names or ("",))

    def _reads(self, group_id: str, name: str, topic: str) -> bool:
        key = group_id, name, topic
        found = self._wanted.get(key)
        if found is None:
            spec = self._specs[group_id]
            found = self._wanted[key] = reads(spec.of(name) if name else spec, topic)
        return found

    def _behind(self, now_ms: int) -> dict[Place, int]:
        """Each partition that a group wants, to the first record that it has not handled."""
        return {
            (group_id, tp): self.truth.handled_up_to(group_id, tp)
            for group_id in self._specs
            if not self.truth.unplaced.excuses(group_id, now_ms)
            for tp in sorted(self.truth.ends)
            if self._wants(group_id, tp.topic)
        }

    def unseen(self, now_ms: int) -> dict[Place, int]:
        """Group and partition to the first record that nobody in the group has handled."""
        behind = self._behind(now_ms)
        return {place: at for place, at in behind.items() if at < self.truth.ends[place[1]]}

    def uncommitted(self, now_ms: int) -> dict[Place, int]:
        """Group and partition to what is committed, where all is handled and that is less."""
        truth = self.truth
        return {
            place: truth.committed.get(place, 0)
            for place, at in self._behind(now_ms).items()
            if at >= truth.ends[place[1]]
            and at - 1 in truth.handled.get(place, {})
            and truth.given_up.get(place, -1) < at
            and truth.committed.get(place, 0) < at
            and self._excused.get(place, -1) < at
            and place[0] not in self._stored_elsewhere
            and place not in truth.set_back
            and place not in truth.voided
        }

    def end(self, now_ms: int) -> None:
        if self.truth.healed_ms is None or not self.truth.ends:
            return
        self.judged += 1
        self._accuse(now_ms, self.unseen(now_ms), "offset {at} of {tp} (end {end}) is unhandled")
        self._accuse(
            now_ms, self.uncommitted(now_ms), "{tp} is handled to its end {end}, {at} committed"
        )

    def _accuse(self, now_ms: int, behind: Mapping[Place, int], what: str) -> None:
        for (group_id, tp), at in behind.items():
            passed_ms = now_ms - (self.truth.healed_ms or 0)
            self.accuse(
                now_ms,
                f"{what.format(at=at, tp=tp, end=self.truth.ends[tp])} in {group_id} at "
                f"{seconds(now_ms)}, {seconds(passed_ms)} after healing.",
                (),
                tp,
                (at,),
            )
