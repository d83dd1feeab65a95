"""The three arms of a check: the machine in virtual time, and brokers behind sockets.

A body asks on an arm and sees Kafka's own field names, whoever answers. Each arm is one group of
one cluster. All answers, the machine's too, go through the bytes of their version.
"""

from __future__ import annotations

import selectors
import socket
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.session import Session
from ksim.serve import groups
from ksim.wire.client import BY_NAME, read_response, rewritten, write_request
from ksim.wire.server import encoded

Answer = dict[str, Any]
Address = tuple[str, int]
Mover = Callable[[str, int], None]  # group id, and which of the bootstrap servers takes over

TOPIC: Final = "conformance"
LIMIT_MS: Final = 60_000
POLL_MS: Final = 20
ARRIVAL_MS: Final = 100
EARLY_MS: Final = 2  # brokers count in whole milliseconds
LATE_MS: Final = 2_500  # less than any two outcomes of a check are apart
NOT_COORDINATOR: Final = 16
COORDINATOR_REFUSALS: Final = (14, 15, 16)


class Call:
    """A request; `answer` is None while it is parked, `after_ms` how long it took."""

    def __init__(self, name: str, version: int, asked_ms: float) -> None:
        self.name = name
        self.version = version
        self.asked_ms = asked_ms
        self.answer: Answer | None = None
        self.after_ms = -1.0

    def answered(self, answer: Answer, now_ms: float) -> None:
        assert self.answer is None, f"{self.name} was answered twice"
        self.answer = answer
        self.after_ms = now_ms - self.asked_ms


class Arm(ABC):
    """Asks one coordinator for one group. `is_virtual`: time passes only when the body says so.

    `joined_ms` is from before the last JoinGroup of a round: what a coordinator counts from the
    generation's beginning can only be over later.
    """

    is_virtual = False

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.joined_ms = -1.0

    @property
    @abstractmethod
    def now_ms(self) -> float: ...

    @abstractmethod
    def ask(
        self,
        name: str,
        version: int,
        data: Answer,
        client_id: str = "c",
        *,
        elsewhere: bool = False,
    ) -> Call:
        """Send it to the group's coordinator, or to a broker that is not (`elsewhere`)."""

    @abstractmethod
    def pass_until(self, condition: Callable[[], bool], at_ms: float) -> bool:
        """Let time pass until the condition holds, at most until `at_ms`; whether it holds."""

    @abstractmethod
    def move(self) -> None:
        """Another broker becomes the group's coordinator; `elsewhere` is then the one before."""

    @abstractmethod
    def loaded(self) -> None:
        """Let the new coordinator have read its log."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the arm holds."""

    def get(self, call: Call) -> Answer:
        """The answer, as soon as it is there."""
        found = self.pass_until(lambda: call.answer is not None, self.now_ms + LIMIT_MS)
        assert found, f"{call.name} {call.version} is not answered"
        assert call.answer is not None
        return call.answer

    def call(self, name: str, version: int, data: Answer, client_id: str = "c") -> Answer:
        return self.get(self.ask(name, version, data, client_id))

    def wait(self, ms: float) -> None:
        self.pass_until(lambda: False, self.now_ms + ms)

    def until(self, condition: Callable[[], bool], limit_ms: float = LIMIT_MS) -> float:
        """Let time pass until the condition holds; returns when that was."""
        until_ms = self.now_ms + limit_ms
        while not condition():
            assert self.now_ms < until_ms, "it did not come true"
            self.wait(POLL_MS)
        return self.now_ms

    def until_shown(self, condition: Callable[[], bool]) -> None:
        """Describe and list read what is committed, and a refusal does not wait for the write of
        the group that it made: only a broker may show it a little later."""
        if self.is_virtual:
            assert condition(), "it is not shown"
        else:
            self.until(condition)

    def assert_parked(self, call: Call) -> None:
        """Nothing shows that a parked request has arrived: it is given some time for that."""
        answered = self.pass_until(lambda: call.answer is not None, self.now_ms + ARRIVAL_MS)
        assert not answered, f"{call.name} was to be parked: {call.answer}"

    def assert_took(self, ms: float, expected_ms: float) -> None:
        """The machine to the millisecond; a broker never earlier, and not much later."""
        late_ms = 0 if self.is_virtual else LATE_MS
        early_ms = 0 if self.is_virtual else EARLY_MS
        assert expected_ms - early_ms <= ms <= expected_ms + late_ms, (ms, expected_ms)

    def describe(self, version: int = 5) -> Answer:
        answer = self.call("DescribeGroups", version, {"groups": [self.group_id]})
        (group,) = answer["groups"]
        return dict(group)

    def listed_state(self) -> str | None:
        """The state that ListGroups shows, None where it does not show the group."""
        answer = self.call("ListGroups", 4, {"states_filter": []})
        assert answer["error_code"] == 0, answer
        shown = {each["group_id"]: each["group_state"] for each in answer["groups"]}
        return shown.get(self.group_id)


class MachineArm(Arm):
    """Two coordinators of the same log, one of them in charge; a clock that is a number."""

    is_virtual = True

    def __init__(self, group_id: str, config: CoordinatorConfig) -> None:
        super().__init__(group_id)
        self._now_ms = 1_000_000
        self._calls: list[tuple[Call, m.Request | None]] = []
        self._log: list[e.LogEntry] = []
        self._sessions = [Session(Coordinator(config, seed), self) for seed in (1, 2)]
        self._feed(0, e.LogReplayed(()))

    @property
    def now_ms(self) -> float:
        return self._now_ms

    def _feed(self, node: int, fact: Any) -> None:
        self._sessions[node].feed(fact, self._now_ms)

    def ask(
        self,
        name: str,
        version: int,
        data: Answer,
        client_id: str = "c",
        *,
        elsewhere: bool = False,
    ) -> Call:
        kind = BY_NAME[name].request
        raw = kind.decode(encoded(kind, data, version), version=version)
        if name == "ListGroups":
            requests: list[m.Request] = [m.ListGroupsRequest(tuple(raw.states_filter or ()), ())]
        else:
            requests = groups.READERS[name](raw, version)
        (request,) = requests
        call = Call(name, version, self._now_ms)
        token = len(self._calls)
        self._calls.append((call, request))
        fresh = f"{data.get('group_instance_id') or client_id}-{uuid.UUID(int=token)}"
        self._feed(int(elsewhere), e.RequestArrived(token, request, client_id, fresh, version))
        return call

    def perform(self, order: Any, now_ms: int) -> None:
        """Carry out an order of either coordinator; their log never refuses."""
        if isinstance(order, e.SendResponse):
            call, request = self._calls[order.token]
            if isinstance(order.response, m.ListGroupsResponse):
                answer = groups.listed([order.response])
            else:
                answer = groups.WRITERS[call.name]([order.response], [request], call.version)
            call.answered(rewritten(call.name, call.version, answer), now_ms)
        elif isinstance(order, e.AppendRecords):
            self._log.extend(order.entries)
            self._feed(0, e.RecordsAppended(order.append_id, 0))

    def pass_until(self, condition: Callable[[], bool], at_ms: float) -> bool:
        while not condition():
            machine = self._sessions[0].machine
            due_ms = machine.deadline_ms
            if due_ms is None or due_ms > at_ms:
                self._now_ms = int(at_ms)
                return condition()
            self._now_ms = max(due_ms, self._now_ms)
            self._feed(0, e.TimerFired())
        return True

    def move(self) -> None:
        self._feed(0, e.Resigned())
        self._sessions.reverse()
        self._feed(0, e.LoadBegan())

    def loaded(self) -> None:
        self._feed(0, e.LogReplayed(tuple(self._log)))

    def close(self) -> None:
        """Nothing is held."""


class _Connection:
    """One request at a time; brokers keep a connection that has a parked request silent."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.socket = socket.create_connection(address, timeout=LIMIT_MS / 1_000)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.call: Call | None = None
        self._read = bytearray()

    def send(self, call: Call, frame: bytes) -> None:
        self.call = call
        self.socket.sendall(frame)

    def receive(self) -> Answer | None:
        """Take what has come; the answer, when it is whole."""
        found = self.socket.recv(65_536)
        assert found, f"{self.address} closed the connection"
        self._read += found
        size = int.from_bytes(self._read[:4], "big")
        if len(self._read) < 4 or len(self._read) < 4 + size:
            return None
        assert self.call is not None
        frame = bytes(self._read[4 : 4 + size])
        del self._read[: 4 + size]
        return read_response(self.call.name, self.call.version, frame)[1]


class WireArm(Arm):
    """Brokers behind sockets, and the clock of this machine."""

    def __init__(self, group_id: str, bootstrap: str, move: Mover | None = None) -> None:
        super().__init__(group_id)
        pairs = (each.rpartition(":") for each in bootstrap.split(","))
        self._addresses: list[Address] = [(host, int(port)) for host, _, port in pairs]
        self._idle: list[_Connection] = []
        self._busy = selectors.DefaultSelector()
        self._move = move
        self._before: Address | None = None
        self.coordinator = self._addresses[0]
        self._find()
        self.loaded()

    @property
    def now_ms(self) -> float:
        return time.monotonic() * 1_000

    @property
    def elsewhere(self) -> Address:
        """A broker that does not coordinate the group; after a move the one that did."""
        others = [each for each in self._addresses if each != self.coordinator]
        return self._before if self._before in others else others[0]

    def _find(self) -> Address:
        """Ask any broker who coordinates the group, until one does."""
        self.coordinator = self._addresses[0]
        found: Answer = {}

        def is_known() -> bool:
            found.update(self.call("FindCoordinator", 1, {"key": self.group_id, "key_type": 0}))
            return found["error_code"] == 0

        self.until(is_known)
        self.coordinator = found["host"], found["port"]
        return self.coordinator

    def ask(
        self,
        name: str,
        version: int,
        data: Answer,
        client_id: str = "c",
        *,
        elsewhere: bool = False,
    ) -> Call:
        address = self.elsewhere if elsewhere else self.coordinator
        connection = next((each for each in self._idle if each.address == address), None)
        if connection is None:
            connection = _Connection(address)
        else:
            self._idle.remove(connection)
        call = Call(name, version, self.now_ms)
        connection.send(call, write_request(name, version, 1, client_id, data))
        self._busy.register(connection.socket, selectors.EVENT_READ, connection)
        return call

    def pass_until(self, condition: Callable[[], bool], at_ms: float) -> bool:
        while not condition():
            left_ms = at_ms - self.now_ms
            if left_ms <= 0:
                return False
            for key, _ in self._busy.select(left_ms / 1_000):
                self._receive(key.data)
        return True

    def _receive(self, connection: _Connection) -> None:
        answer = connection.receive()
        if answer is not None:
            self._busy.unregister(connection.socket)
            assert connection.call is not None
            connection.call.answered(answer, self.now_ms)
            self._idle.append(connection)

    def move(self) -> None:
        assert self._move is not None, "this profile has one broker"
        before = self.coordinator
        self._move(self.group_id, self._addresses.index(self.elsewhere))
        self.until(lambda: self._find() != before)
        self._before = before
        described = {"groups": [self.group_id]}

        def has_resigned() -> bool:
            answer = self.get(self.ask("DescribeGroups", 5, described, elsewhere=True))
            return bool(answer["groups"][0]["error_code"] == NOT_COORDINATOR)

        self.until(has_resigned)

    def loaded(self) -> None:
        """A broker loads by itself: it has done so as soon as it answers about the group."""
        self.until(lambda: self.describe()["error_code"] not in COORDINATOR_REFUSALS)

    def close(self) -> None:
        connections: Sequence[_Connection] = [
            *self._idle, *(key.data for key in list(self._busy.get_map().values())),
        ]  # fmt: skip
        for connection in connections:
            connection.socket.close()
        self._busy.close()
