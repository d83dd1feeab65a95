"""`ksim serve --record`: recordings of the coordinators, and of what they saw of each member.

A coordinator is a machine, and its recording replays. Of a member a broker sees requests and
answers and nothing of its decisions: its file holds those, with the changes of its group, for
people and for checks; there is no machine to replay it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.session import StepListener
from ksim.core.trace import Plain
from ksim.recorder import header_of
from ksim.recording import BROKER, Chain, entry_text
from ksim.recording_files import is_made, numbered
from ksim.recording_hiding import Hiding

LOG: Final = logging.getLogger("ksim.recording")
LONGEST_NAME: Final = 150


class ServeRecorder:
    """All files of one directory. A disk that is full ends them all, is said once, and no more."""

    def __init__(self, directory: Path, config: dict[str, Any], seed: int) -> None:
        self._directory = directory
        self._config = config
        self._seed = seed
        self._names: dict[str, Iterator[Path]] = {}
        self._files: list[File] = []
        self._members = _Members(self)
        self.hiding = Hiding()
        self.failed = False

    def listeners(self, source: str, snapshot: Callable[[], Plain]) -> list[StepListener]:
        """For a coordinator that begins."""
        file = self.file(source.replace("/", "-"), "coordinator", source, snapshot())
        return [file, _Tap(self._members, source)]

    def file(self, name: str, vantage: str, member: str, snapshot: Plain) -> File:
        """A new one, by a name that none has; what another cluster recorded stays there."""
        made = File(self, self._new(re.sub(r"[^\w.-]", "_", name)[:LONGEST_NAME]))
        header = header_of(vantage, member, self._config, seed=self._seed)
        made.put(made.chain.begin(header, self.hiding.of_plain(snapshot)))
        self._files.append(made)
        return made

    def _new(self, name: str) -> Path:
        first = self._directory / f"{name}.ksim"
        names = self._names.setdefault(name, numbered(first))
        try:
            # Made at once: another cluster may look for a free name in this directory, too.
            return first if self.failed else next(filter(is_made, names))
        except OSError as error:
            self.fail(first, error)
            return first

    def close(self) -> None:
        """Write the ends."""
        for each in self._files:
            each.put(each.chain.end())

    def fail(self, path: Path, error: OSError) -> None:
        self.failed = True
        LOG.error("cannot write the recording %s: %s; goes on without any", path, error.strerror)


class File:
    """One recording, opened for each write: there may be more members than files may be open."""

    def __init__(self, owner: ServeRecorder, path: Path) -> None:
        self._owner = owner
        self._path = path
        self.chain = Chain()

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One entry; the fact may be None."""
        if not self._owner.failed:
            of = self._owner.hiding.of
            self.put(self.chain.entry(entry_text(now_ms, of(fact), [of(each) for each in orders])))

    def put(self, data: bytes) -> None:
        if self._owner.failed:
            return
        try:
            with self._path.open("ab") as file:
                file.write(data)
        except OSError as error:
            self._owner.fail(self._path, error)


class _Tap:
    """The steps of one coordinator; tokens are its own."""

    def __init__(self, members: _Members, source: str) -> None:
        self._members = members
        self._source = source

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self._members.see(self._source, now_ms, fact, orders)


@dataclass(slots=True)
class _Member:
    """A member that a coordinator has named."""

    file: File
    group_id: str
    client: tuple[str, str]
    live: bool = True


class _Members:
    """Takes the steps of coordinators apart by member."""

    def __init__(self, owner: ServeRecorder) -> None:
        self._owner = owner
        self._known: dict[tuple[str, str], _Member] = {}
        self._waiting: dict[tuple[str, int], list[_Member]] = {}
        # First joins, until their answer says who it was.
        self._nameless: dict[tuple[str, int], tuple[int, e.RequestArrived]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        arrived = fact if isinstance(fact, e.RequestArrived) else None
        asking = [] if arrived is None else self._asking(arrived)
        if arrived is not None:
            token = source, arrived.token
            if asking:
                self._waiting[token] = asking
            elif isinstance(arrived.request, m.JoinGroupRequest):
                self._nameless[token] = now_ms, arrived
        told: dict[int, tuple[_Member, list[Any]]] = {id(each): (each, []) for each in asking}
        for order in orders:
            for member in self._concerned(source, order):
                told.setdefault(id(member), (member, []))[1].append(order)
        for member, mine in told.values():
            member.file.on_step(now_ms, arrived if member in asking else None, mine)

    def _concerned(self, source: str, order: Any) -> list[_Member]:
        """Who asked for this answer, or whose group has changed."""
        if isinstance(order, e.SendResponse):
            self._name(source, order)
            found = self._waiting.pop((source, order.token), [])
            if isinstance(order.response, m.LeaveGroupResponse):
                for each in found:
                    each.live = False  # it is told nothing more of the group
            return found
        if isinstance(order, e.StateChanged):
            group_id = order.group_id
            known = self._known.values()
            return [each for each in known if each.live and each.group_id == group_id]
        return []

    def _asking(self, found: e.RequestArrived) -> list[_Member]:
        """Whose request it is: by the ids that it names, or the only one of its client."""
        request: Any = found.request
        group_id = getattr(request, "group_id", "")
        ids = [getattr(request, "member_id", "")]
        if isinstance(request, m.LeaveGroupRequest):
            ids = [each.member_id for each in request.members]
        named = [self._known[group_id, each] for each in ids if (group_id, each) in self._known]
        if named or isinstance(request, m.JoinGroupRequest):
            return named
        client = found.client_id, found.client_host
        same = [each for each in self._known.values() if each.live and each.client == client]
        return same if len(same) == 1 else []

    def _name(self, source: str, order: e.SendResponse) -> None:
        """The answer to a first join tells who asked."""
        before = self._nameless.pop((source, order.token), None)
        response = order.response
        if before is None or not isinstance(response, m.JoinGroupResponse):
            return
        if not response.member_id:
            return
        at_ms, arrived = before
        assert isinstance(arrived.request, m.JoinGroupRequest), arrived
        key = arrived.request.group_id, response.member_id
        if key not in self._known:
            file = self._owner.file(response.member_id, BROKER, response.member_id, None)
            client = arrived.client_id, arrived.client_host
            self._known[key] = _Member(file, key[0], client)
        member = self._known[key]
        member.live = True
        self._waiting[source, order.token] = [member]
        member.file.on_step(at_ms, arrived, ())
