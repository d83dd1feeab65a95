"""User data of subscriptions may be anything, a secret too: recordings have stars in its place.

It is of the same length, in the configuration of the machine as in the bytes of requests and
answers, and no decision hangs on it; so what is recorded replays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import MalformedProtocolError, user_data_span
from ksim.core.trace import Plain, plain, value_of

STAR: Final = b"*"


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
    """The same subscription with stars for user data; bytes that are none stay as they are."""
    try:
        begin, end = user_data_span(subscription)
    except MalformedProtocolError:
        return subscription
    return subscription[:begin] + STAR * (end - begin) + subscription[end:]


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
