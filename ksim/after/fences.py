"""What recordings bear witness to about fencing: generations, and the commits that were granted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ksim.after.between import (
    BEGINS_IN_IT,
    Known,
    Members,
    Placed,
    as_made,
    change_of,
    commits_of,
    generations_of,
    made_by,
    made_event,
    signs_of,
)
from ksim.after.lives import Joined, Life, joins_of, syncs_of
from ksim.after.witness import Event, node_name
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError


def fences(lives: Sequence[Life]) -> list[list[Event]]:
    """Which generations came when, and the commits that were accepted."""
    members = _members(lives)
    listed = _listed(lives)
    return [
        _as_sent(
            zip(joins_of(life), generations_of(life, members), strict=True),
            [
                *_before_the_recording(life, members),
                *commits_of(life, asked=False),
                *signs_of(life),
                *_shared_out(life),
                *_beats(life),
                *_left(life, {key: members[key] for key in listed}),
            ],
        )
        for life in lives
    ]


def _as_sent(made: Iterable[tuple[Joined, Event]], others: Iterable[Event]) -> list[Event]:
    """What is of one millisecond stands as its requests were sent.

    A broker reads a connection in that order, and answers one request before it reads the next
    (Kafka `SocketServer`, which mutes the channel): a commit that was sent before a JoinGroup was
    taken before the generation that this one was told.
    """
    keyed = [(event.number, event) for event in others]
    keyed += [(joined.sent, event) for joined, event in made]
    return [event for _, event in sorted(keyed, key=lambda pair: pair[0])]


def _before_the_recording(life: Life, members: Members) -> Iterator[Event]:
    """The generation that it begins in was made some time before."""
    key = life.group_id, life.state.generation_id
    if key in members:
        span = life.first_ms, life.first_ms, BEGINS_IN_IT
        yield made_event(*key, members, life.state.coordinator, span)


def _members(lives: Sequence[Life]) -> Members:
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for life in lives:
        for joined in joins_of(life):
            key = joined.group_id, joined.generation_id
            found[key] |= {each.member_id for each in joined.response.members}
            found[key].add(joined.response.member_id)
    for life in lives:
        state = life.state
        if state.generation_id >= 0:
            known = found[life.group_id, state.generation_id]
            known |= {state.member_id, *(each.member_id for each in state.peers)}
    return {key: tuple(sorted(names)) for key, names in found.items()}


def _shared_out(life: Life) -> Iterator[Event]:
    """Who is told its share is told of a generation that is stored."""
    for token, (_, each) in enumerate(syncs_of(life)):
        if each.error_code == KafkaError.NONE and each.ended_ms is not None:
            arrived = e.RequestArrived(token, each.request, life.name, "")
            span = each.ended_ms, each.ended_ms, each.sent
            yield Event(*span, node_name(each.node_id), arrived)


def _beats(life: Life) -> Iterator[Event]:
    """Heartbeats that found their generation in a rebalance: the next one was not made before them.

    Those that are granted say nothing: a coordinator that is loading its log grants all, whatever
    they carry (Kafka `GroupCoordinator.handleHeartbeat`).
    """
    for token, each in enumerate(life.of_kind(m.HeartbeatRequest)):
        if each.error_code == KafkaError.REBALANCE_IN_PROGRESS:
            arrived = e.RequestArrived(token, each.request, life.name, "")
            yield Event(each.sent_ms, each.sent_ms, each.sent, node_name(each.node_id), arrived)


def _listed(lives: Sequence[Life]) -> list[tuple[str, int]]:
    """The generations whose leader was told all of their members."""
    return sorted(
        {
            (each.group_id, each.generation_id)
            for life in lives
            for each in joins_of(life)
            if each.leads and not each.response.skip_assignment
        }
    )


def _left(life: Life, listed: Members) -> Iterator[Event]:
    """Nor was it before a member left of whom the coordinator still knew.

    That may be in the next one by then, if it has asked for it, or is kept in it unasked; but not
    in one that does not list it, nor in any after that.
    """
    joins = joins_of(life)
    for token, each in enumerate(life.of_kind(m.LeaveGroupRequest)):
        assert isinstance(each.request, m.LeaveGroupRequest)
        last = [joined for joined in joins if joined.told_ms <= each.sent_ms][-1:]
        response = each.response
        if not isinstance(response, m.LeaveGroupResponse) or response.first_error or not last:
            continue
        generation_id, member_id = last[0].generation_id, last[0].response.member_id
        if member_id not in [identity.member_id for identity in each.request.members]:
            continue
        group_id = each.request.group_id
        without = [
            number
            for (group, number), names in listed.items()
            if group == group_id and number > generation_id and member_id not in names
        ]
        asked = any(last[0].told_ms <= join.sent_ms for join in life.of_kind(m.JoinGroupRequest))
        if without:
            generation_id = min(without) - 1
        elif asked or last[0].request.group_instance_id is not None:
            continue
        beat = m.HeartbeatRequest(group_id, generation_id, member_id, None)
        arrived = e.RequestArrived(token, beat, life.name, "")
        yield Event(each.sent_ms, each.sent_ms, each.sent, node_name(each.node_id), arrived)


# In which order the coordinator can have done it


# Broker and group.
Seat = tuple[str, str]


def _not_before_the_beats(placed: Sequence[Placed], early: bool) -> list[Placed]:
    """Each generation as late as the heartbeats of the one before say, if it can be so late.

    A newcomer asks for it long before it is made, and may be the only one that bears witness.
    It was made when the first of its members was told, whatever heartbeats say after that.
    """
    beats: dict[Seat, list[tuple[int, int]]] = defaultdict(list)
    told: dict[Any, int] = {}
    kept: list[Placed] = []
    for item in placed:
        at_ms, other, _, event = item
        request = event.fact.request if isinstance(event.fact, e.RequestArrived) else None
        if isinstance(request, m.HeartbeatRequest):
            beats[event.source, request.group_id].append((at_ms, request.generation_id))
            continue
        kept.append(item)
        made = made_by(event)
        if made is not None:
            span_ms = 0 if bool(other) == early else event.latest_ms - event.earliest_ms
            told[made] = min(at_ms + span_ms, told.get(made, at_ms + span_ms))
    held = [(_held_ms(item, beats, told), item) for item in as_made(kept, early)]
    # Within a millisecond what was held back comes last: it was made after all of that.
    held.sort(key=lambda pair: (pair[0], pair[0] > pair[1][0]))
    return [(at_ms, *item[1:]) for at_ms, item in held]


def _held_ms(item: Placed, beats: dict[Seat, list[tuple[int, int]]], told: dict[Any, int]) -> int:
    """Until when a generation is held back."""
    at_ms, _, _, event = item
    changed = change_of(event)
    if changed is None:
        return at_ms
    until_ms = told[event.source, changed.group_id, changed.generation_id]
    before = (
        beat_ms
        for beat_ms, generation_id in beats.get((event.source, changed.group_id), ())
        if generation_id < changed.generation_id and beat_ms <= until_ms
    )
    return max(at_ms, max(before, default=at_ms))


class _Fence(Known):
    """What is known of each group, and of which generations somebody was told a share."""

    def __init__(self) -> None:
        super().__init__()
        self._stored: set[tuple[str, int]] = set()
        self._highest: dict[str, int] = {}
        self._doubted: set[str] = set()

    def share(self, group_id: str, generation_id: int) -> None:
        """That generation is in the log: whoever takes over knows it."""
        self._stored.add((group_id, generation_id))
        self._highest[group_id] = max(generation_id, self._highest.get(group_id, 0))

    def doubt(self, source: str, early: bool) -> None:
        """That broker may have begun anew, or not: what was not stored may be forgotten."""
        for group_id, made in list(self.of.items()):
            if made[0] == source and (group_id, made[1]) in self._stored:
                self._doubted.add(group_id)
            elif made[0] == source and early:
                del self.of[group_id]

    def rises(self, group_id: str, source: str, generation_id: int) -> bool:
        if group_id in self._doubted and generation_id < self.of[group_id][1]:
            del self.of[group_id]  # it was removed, and has begun again
            self._highest.pop(group_id, None)
        risen = super().rises(group_id, source, generation_id)
        if risen:
            self._doubted.discard(group_id)
        return risen

    def binds(self, group_id: str, source: str) -> bool:
        """Whether a commit at this broker must be of what is known.

        One that was deposed may tell of an older generation, out of its memory: that is no news for
        another one.
        """
        made = self.of.get(group_id)
        if made is None or made[0] == source:
            return made is not None
        return (group_id, made[1]) in self._stored and made[1] >= self._highest.get(group_id, 0)


def fenced(placed: Sequence[Placed], early: bool) -> Iterator[Placed]:
    """Each generation once, and commits where what is known of the group must bind their broker.

    That is the broker that made the generation, and any other one once it was stored: a commit that
    is granted was stored after it. A broker that may have begun anew is taken at its word where a
    life is early, and not where it is late.
    """
    known = _Fence()
    for item in _not_before_the_beats(placed, early):
        event = item[3]
        changed = change_of(event)
        request: Any = event.fact.request if isinstance(event.fact, e.RequestArrived) else None
        if isinstance(event.fact, e.LogReplayed):
            known.doubt(event.source, early)
        elif changed is not None:
            if known.rises(changed.group_id, event.source, changed.generation_id):
                yield item
        elif isinstance(request, m.SyncGroupRequest):
            known.share(request.group_id, request.generation_id)
        elif request is None or known.binds(request.group_id, event.source):
            yield item
