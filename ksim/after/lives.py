"""A recording as the life of a member: its steps, and its requests with what became of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from ksim.after.steps import Fetched, both, fetched_of, place_of
from ksim.after.steps import Step as Step
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import DamagedRecordingError
from ksim.core.member_state import MemberConfig, MemberState
from ksim.core.subscription import PROTOCOL_TYPE
from ksim.core.trace import MalformedTraceError, Plain, value_of
from ksim.core.turn import MIX_MASK, STORE
from ksim.recording import Recording, read_recording
from ksim.recording_hiding import STAR

VANTAGE: Final = "member"
NONE_YET: Final = -1  # instead of a generation
SUFFIX: Final = ".ksim"
# With each draw of a member its seed goes on by this (splitmix64, `core.turn`).
ONE_DRAW: Final = 0x9E3779B97F4A7C15
ONE_DRAW_BACK: Final = pow(ONE_DRAW, -1, MIX_MASK + 1)
MOST_DRAWS: Final = 1 << 32  # by far; two seeds that come of chance are further apart


@dataclass(slots=True)
class Exchange:
    """A request and what became of it; neither answer nor reason: the recording ends before.

    `sent` and `ended` are numbers of steps; `asked` is a request of the user's own.
    """

    request_id: int
    node_id: int
    request: m.Request
    sent: int
    sent_ms: int
    asked: bool
    response: m.Response | None = None
    reason: str | None = None
    ended: int | None = None
    ended_ms: int | None = None

    @property
    def error_code(self) -> int:
        """Of the whole answer: 0 where it was granted; -1 without an answer."""
        return -1 if self.response is None else int(getattr(self.response, "error_code", 0))


@dataclass(frozen=True, slots=True)
class Life:
    """What one process recorded of one member.

    `denied_by` is another recording of this process that tells something else of the same time.
    `part_of` is the first life of the process, where what lies between is missing.
    """

    name: str
    path: Path
    header: dict[str, Any]
    state: MemberState
    steps: tuple[Step, ...]
    exchanges: tuple[Exchange, ...]
    complete: bool
    denied_by: Path | None = None
    part_of: str = ""

    @property
    def group_id(self) -> str:
        return self.state.config.group_id

    @property
    def process(self) -> str:
        """A name that all lives of one process have."""
        return self.part_of or self.name

    @property
    def first_ms(self) -> int:
        return self.steps[0].at_ms if self.steps else self._written_ms

    @property
    def last_ms(self) -> int:
        return self.steps[-1].at_ms if self.steps else self._written_ms

    @property
    def _written_ms(self) -> int:
        """When a recording began that holds no step."""
        clock = self.header.get("clock")
        at_ms = clock.get("now_ms") if isinstance(clock, dict) else None
        return at_ms if type(at_ms) is int and at_ms >= 0 else 0

    def of_kind(self, kind: type[Any]) -> list[Exchange]:
        """Its requests of this kind, in their order; those to the user's own store left out."""
        return [each for each in self.exchanges if isinstance(each.request, kind)]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and all recordings of the directories. Raises for none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise DamagedRecordingError(f"{path}: holds no recording ({SUFFIX})")
        found += inside
    return found


def read_lives(paths: Sequence[Path]) -> list[Life]:
    """The lives of these recordings, each under a name of its own.

    The files of a recording that went on in another one are one life, and so are those that one
    process wrote of the same time.
    """
    parts = [(path, read_recording(path)) for path in files_of(paths)]
    lives = [
        _joined([life_of(_wanted(*chain[0]), *part) for part in chain])
        for chain in _put_together(parts)
    ]
    return together(lives)


def together(lives: Sequence[Life]) -> list[Life]:
    """Each time of a process once, each life under a name of its own."""
    once = _once(lives)
    named = _named(once)
    firsts = [
        next(first for first, other in enumerate(once) if _are_one_process(other, life))
        for life in once
    ]
    return [
        life if first == at else replace(life, part_of=named[first].name)
        for at, (first, life) in enumerate(zip(firsts, named, strict=True))
    ]


def _wanted(path: Path, recording: Recording) -> str:
    return str(recording.header.get("member") or path.stem)


def _named(lives: Sequence[Life]) -> list[Life]:
    """Each under a name of its own: a second one of a name has its number."""
    taken: list[str] = []
    for life in lives:
        others = (f"{life.name} ({number})" for number in range(2, len(lives) + 2))
        taken.append(
            life.name if life.name not in taken else next(n for n in others if n not in taken)
        )
    return [replace(life, name=name) for life, name in zip(lives, taken, strict=True)]


def _once(lives: Sequence[Life]) -> list[Life]:
    """Each time of a process once: what it wrote of itself in several files may overlap.

    All of these are parts of one row of steps. Those that share steps become one, which may share
    steps with a third one, in whatever order they come.
    """
    found: list[tuple[int, Life]] = []
    for at, life in sorted(enumerate(lives), key=_by_time):
        joined, numbers = life, [at]
        while (known := _that_joins(found, joined)) is not None:
            found.remove(known[0])
            joined = known[1]
            numbers.append(known[0][0])
        found.append((min(numbers), joined))
    return _denied([life for _, life in sorted(found, key=lambda each: each[0])])


def _by_time(numbered: tuple[int, Life]) -> tuple[int, int, str]:
    life = numbered[1]
    return life.first_ms, -len(life.steps), str(life.path)


Numbered = tuple[int, Life]


def _that_joins(found: Sequence[Numbered], life: Life) -> tuple[Numbered, Life] | None:
    """One of these that shares steps with this life, and both as one."""
    for known in found:
        if _are_one_process(known[1], life):
            merged = _merged(known[1], life) or _merged(life, known[1])
            if merged is not None:
                return known, merged
    return None


def _are_one_process(one: Life, other: Life) -> bool:
    """A seed is drawn for each, and counts on; of user data a recording may have stars alone."""
    mine, theirs = one.state, other.state
    if one.name != other.name or _starred(mine) != _starred(theirs):
        return False
    draws = (theirs.seed - mine.seed) * ONE_DRAW_BACK & MIX_MASK
    return min(draws, MIX_MASK + 1 - draws) < MOST_DRAWS


def _starred(state: MemberState) -> MemberConfig:
    data = state.config.user_data
    return replace(state.config, user_data=None if data is None else STAR * len(data))


def _merged(first: Life, second: Life) -> Life | None:
    """Both, where the second one begins with a step of the first and goes on as that does."""
    if not second.steps:
        known = bool(first.steps) and first.first_ms <= second.first_ms <= first.last_ms
        return first if known else None
    at = place_of(second.steps, first.steps)
    if at is None:
        return None
    end = at + len(second.steps)
    longer = second if end > len(first.steps) else first
    complete = longer.complete or (end == len(first.steps) and second.complete)
    shared = map(both, first.steps[at:end], second.steps)
    rest = second.steps[len(first.steps) - at :]
    steps = (*first.steps[:at], *shared, *first.steps[end:], *rest)
    about = first.name, first.path, first.header, first.state
    return life_from(*about, steps, complete=complete)


def _denied(lives: Sequence[Life]) -> list[Life]:
    """What one process says of one time is the same in all recordings, or one of them is wrong."""
    return [
        replace(life, denied_by=next((o.path for o in lives if _deny(o, life)), None))
        for life in lives
    ]


def _deny(one: Life, other: Life) -> bool:
    """Whether both must share a step, as one begins while the other one goes on, and share none."""
    if one is other or not _are_one_process(one, other):
        return False
    first, second = sorted((one, other), key=lambda life: (life.first_ms, life.last_ms))
    together = first.first_ms == second.first_ms < first.last_ms
    return together or first.first_ms < second.first_ms < first.last_ms


Part = tuple[Path, Recording]


def _put_together(parts: Sequence[Part]) -> list[list[Part]]:
    """Each recording with the files that go on from it; one with a `why` lost something before."""
    chains: list[list[Part]] = []
    ends: dict[str, list[Part]] = {}
    for path, recording in sorted(parts, key=lambda part: int(part[1].header.get("segment") or 0)):
        header = recording.header
        before = None if header.get("why") else header.get("after")
        chain = ends.pop(str(before), None) if before else None
        if chain is None:
            chains.append(chain := [])
        chain.append((path, recording))
        if recording.digest:
            ends[recording.digest] = chain
    order = {path: at for at, (path, _) in enumerate(parts)}
    return sorted(chains, key=lambda chain: order[chain[0][0]])


def _joined(lives: Sequence[Life]) -> Life:
    """One member's life from the files that it was recorded in."""
    first = lives[0]
    if len(lives) == 1:
        return first
    steps = tuple(step for life in lives for step in life.steps)
    complete = lives[-1].complete
    return life_from(first.name, first.path, first.header, first.state, steps, complete=complete)


def life_of(name: str, path: Path, recording: Recording) -> Life:
    """Raises DamagedRecordingError for what is no recording of a member."""
    vantage = recording.header.get("vantage")
    if vantage != VANTAGE:
        raise DamagedRecordingError(
            f"{path}: line 1: vantage {vantage!r}; only recordings of members are taken: {VANTAGE}"
        )
    state = _value(path, 2, recording.snapshot)
    if not isinstance(state, MemberState):
        raise DamagedRecordingError(f"{path}: line 2: no snapshot of a member")
    steps = tuple(
        Step(
            entry.now_ms,
            _value(path, entry.line, entry.fact),
            tuple(_value(path, entry.line, order) for order in entry.orders),
            _fetched(path, entry.line, entry.payload),
        )
        for entry in recording.entries
    )
    return life_from(name, path, recording.header, state, steps, complete=recording.complete)


def life_from(
    name: str,
    path: Path,
    header: dict[str, Any],
    state: MemberState,
    steps: tuple[Step, ...],
    *,
    complete: bool = True,
) -> Life:
    """The life of these steps, wherever they come from."""
    exchanges = tuple(_Exchanges(_under_way(state)).of(steps))
    return Life(name, path, header, state, steps, exchanges, complete)


def _under_way(state: MemberState) -> list[Exchange]:
    """The JoinGroup that a recording begins after: a generation comes of its answer."""
    config = state.config
    request = m.JoinGroupRequest(
        config.group_id,
        config.session_timeout_ms,
        config.rebalance_timeout_ms,
        state.member_id,
        config.group_instance_id,
        PROTOCOL_TYPE,
        (),
    )
    return [
        Exchange(request_id, state.coordinator, request, -1, each.sent_ms, asked=False)
        for request_id, each in sorted(state.pending.items())
        if each.kind == "join"
    ]


def _fetched(path: Path, line: int, payload: Plain) -> tuple[Fetched, ...]:
    try:
        return fetched_of(payload)
    except MalformedTraceError as error:
        raise DamagedRecordingError(f"{path}: line {line}: {error}") from error


def _value(path: Path, line: int, data: Plain) -> Any:
    try:
        return value_of(data)
    except (MalformedTraceError, TypeError) as error:
        raise DamagedRecordingError(f"{path}: line {line}: {error}") from error


@dataclass(slots=True)
class _Exchanges:
    """Requests under way while the steps are read; `found` are those that are known before."""

    found: list[Exchange]
    waiting: dict[int, Exchange] = field(default_factory=dict[int, Exchange])
    asked: list[m.Request] = field(default_factory=list[m.Request])

    def __post_init__(self) -> None:
        self.waiting.update((each.request_id, each) for each in self.found)

    def of(self, steps: Sequence[Step]) -> list[Exchange]:
        for number, step in enumerate(steps):
            take = TAKES.get(type(step.fact))
            if take is not None:
                take(self, number, step.at_ms, step.fact)
            for order in step.orders:
                if isinstance(order, e.SendRequest) and order.channel != STORE:
                    self._sent(number, step.at_ms, order)
        return self.found

    def _sent(self, number: int, at_ms: int, order: e.SendRequest) -> None:
        request = order.request
        asked = request in self.asked
        if asked:
            self.asked.remove(request)
        exchange = Exchange(order.request_id, order.node_id, request, number, at_ms, asked)
        self.waiting[order.request_id] = exchange
        self.found.append(exchange)

    def _asked(self, _: int, __: int, fact: e.OffsetsRequested) -> None:
        self.asked.append(fact.request)

    def _answered(self, number: int, at_ms: int, fact: e.ResponseReceived) -> None:
        exchange = self.waiting.pop(fact.request_id, None)
        if exchange is not None:
            exchange.response = fact.response
            exchange.ended, exchange.ended_ms = number, at_ms

    def _failed(self, number: int, at_ms: int, fact: e.RequestFailed) -> None:
        exchange = self.waiting.pop(fact.request_id, None)
        if exchange is not None:
            exchange.reason = fact.reason
            exchange.ended, exchange.ended_ms = number, at_ms


TAKES: Final = cast(
    "dict[type, Callable[[_Exchanges, int, int, Any], None]]",
    {
        e.OffsetsRequested: _Exchanges._asked,
        e.ResponseReceived: _Exchanges._answered,
        e.RequestFailed: _Exchanges._failed,
    },
)


@dataclass(frozen=True, slots=True)
class Joined:
    """A JoinGroup that was granted: when the member first asked for it, and when it was told.

    `asked_ms` is of the first request since the join before, as any of those may have been the one
    that the coordinator heard; `sent` and `sent_ms` are of the one that was answered. `returns`: it
    was in the generation already, or can have been, so it may have been answered at once: a
    coordinator that begins anew from its log may have one of before.
    """

    group_id: str
    node_id: int
    asked_ms: int
    sent: int
    sent_ms: int
    told_ms: int
    request: m.JoinGroupRequest
    response: m.JoinGroupResponse
    returns: bool

    @property
    def generation_id(self) -> int:
        return self.response.generation_id

    @property
    def leads(self) -> bool:
        return bool(self.response.members)


def joins_of(life: Life) -> list[Joined]:
    """All that were granted, in their order."""
    found: list[Joined] = []
    asked_ms: int | None = None
    highest: int | None = life.state.generation_id
    if highest == NONE_YET and life.state.member_id:
        highest = None  # it gave up the last one, whichever that was
    for each in life.of_kind(m.JoinGroupRequest):
        request, response = each.request, each.response
        assert isinstance(request, m.JoinGroupRequest)
        asked_ms = each.sent_ms if asked_ms is None else asked_ms
        if isinstance(response, m.JoinGroupResponse) and response.error_code == 0:
            assert each.ended_ms is not None
            # One that missed a round is kept in it, and is answered at once, with its id or not.
            instance = request.group_instance_id is not None
            number = response.generation_id
            highest = number if highest is None else highest
            found.append(
                Joined(
                    request.group_id,
                    each.node_id,
                    asked_ms,
                    each.sent,
                    each.sent_ms,
                    each.ended_ms,
                    request,
                    response,
                    number <= highest or instance,
                )
            )
            asked_ms, highest = None, max(highest, number)
    return found


# A generation as one coordinator made it: group, number, broker and leader.
Round = tuple[str, int, int, str]


def round_of(joined: Joined) -> Round:
    return joined.group_id, joined.generation_id, joined.node_id, joined.response.leader


def syncs_of(life: Life) -> list[tuple[Round, Exchange]]:
    """Its SyncGroups, each with the round that it is for.

    A generation may be made again, by another leader: what was told last before it counts.
    """
    told: dict[tuple[int, str], list[Joined]] = {}
    for joined in joins_of(life):
        told.setdefault((joined.generation_id, joined.response.member_id), []).append(joined)
    found: list[tuple[Round, Exchange]] = []
    for each in life.of_kind(m.SyncGroupRequest):
        request = each.request
        assert isinstance(request, m.SyncGroupRequest)
        joins = told.get((request.generation_id, request.member_id), [])
        before = [joined for joined in joins if joined.told_ms <= each.sent_ms]
        for joined in (before or joins)[-1:]:
            leader = joined.response.leader
            found.append(((request.group_id, request.generation_id, each.node_id, leader), each))
    return found
