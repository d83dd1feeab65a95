"""User data of subscriptions may be anything, a secret too: recordings have stars in its place.

It is of the same length, in the configuration of the machine as in the bytes of requests and
answers, and no decision hangs on it; so what is recorded replays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import MalformedProtocolError, Reader, user_data_span
from ksim.core.trace import BYTES, VALUE, Plain, plain, value_of

STAR: Final = b"*"
VERSION_BYTES: Final = 2
COUNTED_BYTES: Final = 8  # at the end of user data, where unlike ones are told apart
SUBSCRIPTIONS: Final = ("protocols", "before_protocols", "metadata", "subscription")


class Step(NamedTuple):
    """What `entry_text` takes."""

    now_ms: int
    fact: Any
    orders: Sequence[Any]
    payload: Plain


def hidden(step: Step) -> Step:
    """The step of a member without user data; nearly always the same one."""
    fact, orders = step.fact, step.orders
    if type(fact) is e.ResponseReceived and type(fact.response) is m.JoinGroupResponse:
        fact = replace(fact, response=_response(fact.response))
    if not any(type(each) is e.SendRequest and _joins(each) for each in orders):
        return step if fact is step.fact else step._replace(fact=fact)
    return step._replace(fact=fact, orders=[_order(each) for each in orders])


def _joins(order: e.SendRequest) -> bool:
    return type(order.request) is m.JoinGroupRequest


def _response(found: m.JoinGroupResponse) -> m.JoinGroupResponse:
    members = tuple(replace(each, metadata=starred(each.metadata)) for each in found.members)
    return replace(found, members=members)


def _order(order: Any) -> Any:
    if not (type(order) is e.SendRequest and isinstance(order.request, m.JoinGroupRequest)):
        return order
    protocols = tuple((name, starred(data)) for name, data in order.request.protocols)
    return replace(order, request=replace(order.request, protocols=protocols))


def starred(subscription: bytes) -> bytes:
    """The same subscription with stars for user data; of bytes that are none little is left."""
    try:
        begin, end = user_data_span(subscription)
    except MalformedProtocolError:
        return _unreadable(subscription)
    return subscription[:begin] + STAR * (end - begin) + subscription[end:]


def _unreadable(found: bytes) -> bytes:
    """What is read until it fails, and stars: a leader says the same of it, word by word."""
    reader = Reader(found)
    version = 0
    try:
        version = reader.integer(">h")
        if version >= 0:
            for _ in range(reader.count()):
                reader.string()
            reader.nullable_bytes()
    except MalformedProtocolError:
        pass  # here, or before
    kept = found[: reader.at]
    if version >= 0:
        kept = bytes(len(kept[:VERSION_BYTES])) + kept[VERSION_BYTES:]
    return kept + STAR * (len(found) - len(kept))


def hidden_state(snapshot: Plain) -> Plain:
    """The snapshot of a member without user data."""
    if not (isinstance(snapshot, dict) and "peers" in snapshot):
        return snapshot
    config, peers = snapshot["config"], snapshot["peers"]
    if config["user_data"] is not None:
        size = len(value_of(config["user_data"]))
        config = config | {"user_data": plain(STAR * size)}
    peers = [each | {"metadata": plain(starred(value_of(each["metadata"])))} for each in peers]
    return snapshot | {"config": config, "peers": peers}


class Stars:
    """For what a coordinator compares: what was unlike stays unlike.

    Of several of one length the first becomes stars, and the others count on from there.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, dict[bytes, int]] = {}

    def of(self, data: bytes) -> bytes:
        known = self._numbers.setdefault(len(data), {})
        number = known.setdefault(blake2b(data).digest(), len(known))
        tail = min(len(data), COUNTED_BYTES)
        last = int.from_bytes(STAR * tail) + number
        return STAR * (len(data) - tail) + (last % (1 << 8 * tail)).to_bytes(tail)


class Hiding:
    """What a coordinator sees and orders, and its state, without user data."""

    def __init__(self) -> None:
        self._stars = Stars()

    def of(self, thing: Any) -> Any:
        """A fact or an order; plain data where something may be hidden."""
        return self.of_plain(plain(thing)) if _holds(thing) else thing

    def of_plain(self, found: Plain, field: str = "") -> Plain:
        """The same of plain data; `field` is where it stands."""
        if isinstance(found, list):
            return [self.of_plain(each, field) for each in found]
        if not isinstance(found, dict):
            return found
        if BYTES in found:
            return plain(self._hidden(value_of(found))) if field in SUBSCRIPTIONS else found
        named = VALUE in found
        return {key: self.of_plain(each, key if named else field) for key, each in found.items()}

    def _hidden(self, subscription: bytes) -> bytes:
        try:
            begin, end = user_data_span(subscription)
        except MalformedProtocolError:
            begin, end = 0, len(subscription)
        return subscription[:begin] + self._stars.of(subscription[begin:end]) + subscription[end:]


def _holds(thing: Any) -> bool:
    """Whether subscriptions may be in it."""
    if isinstance(thing, e.RequestArrived):
        return isinstance(thing.request, m.JoinGroupRequest)
    if isinstance(thing, e.SendResponse):
        return isinstance(thing.response, m.JoinGroupResponse | m.DescribeGroupsResponse)
    if isinstance(thing, e.LogReplayed | e.AppendRecords):
        return any(isinstance(each, e.GroupRecord) for each in thing.entries)
    return False
