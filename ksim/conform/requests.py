"""The requests of the steps, as plain data in Kafka's field names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ksim.conform.arms import Data
from ksim.conform.script import TOPIC, Step
from ksim.conform.side import Side

NOBODY: Final = "nobody"


@dataclass(slots=True)
class Standing:
    """What the members know of their group, or guess; it is the same on both sides."""

    group_id: str
    generation: int = 0
    protocol: str | None = "range"


class View(NamedTuple):
    """All that the request of a step is made of, on one side."""

    side: Side
    step: Step
    here: Standing
    groups: Sequence[Standing]
    number: int
    leads: bool

    @property
    def group_id(self) -> str:
        return "" if self.step.options.get("nameless") else self.here.group_id

    @property
    def elsewhere(self) -> Standing:
        """The other group, where there is one."""
        return self.groups[-1] if self.here is self.groups[0] else self.groups[0]

    def id_of(self, slot: str, missing: str) -> str:
        place = self.elsewhere if self.step.options.get("foreign") else self.here
        return self.side.ids.get((slot, place.group_id), missing)

    def group_ids(self) -> list[str]:
        """Of this step's group alone, or of all and one that does not exist."""
        if not self.step.options["several"]:
            return [self.group_id]
        return [*(each.group_id for each in self.groups), f"{self.here.group_id}-no-more"]

    def ids_here(self) -> list[tuple[str, str]]:
        found = self.side.ids.items()
        here = self.here.group_id
        return sorted((slot, each) for (slot, group_id), each in found if group_id == here)


def _join(view: View) -> Data:
    o = view.step.options
    return {
        "group_id": view.group_id,
        "session_timeout_ms": o["session"],
        "rebalance_timeout_ms": o["rebalance"],
        "member_id": "" if o["fresh"] else view.id_of(view.step.slot, ""),
        "group_instance_id": o["instance"],
        "protocol_type": o["kind"],
        "protocols": o["offer"],
    }


def _who(view: View) -> Data:
    o = view.step.options
    return {
        "group_id": view.group_id,
        "member_id": NOBODY if o["stranger"] else view.id_of(view.step.slot, NOBODY),
        "group_instance_id": o["instance"],
    }


def _generation(view: View) -> int:
    return view.here.generation + int(view.step.options["generation"])


def _sync(view: View) -> Data:
    """Assignments differ from those of every other step, and one is for nobody."""
    o = view.step.options
    shares = [
        {"member_id": each, "assignment": f"{slot} {view.number}".encode()}
        for slot, each in [*view.ids_here(), (NOBODY, NOBODY)]
    ]
    gives = {"leader": view.leads, "always": True, "never": False}[o["assigns"]]
    return _who(view) | {
        "generation_id": _generation(view),
        "protocol_type": {"right": "consumer", "none": None, "wrong": "other"}[o["names"]],
        "protocol_name": None if o["names"] == "none" else view.here.protocol,
        "assignments": shares if gives else [],
    }


def _heartbeat(view: View) -> Data:
    return _who(view) | {"generation_id": _generation(view)}


def _leave(view: View) -> Data:
    member_id = view.id_of(view.step.slot, NOBODY)
    who = {"member_id": member_id, "group_instance_id": view.step.options["instance"]}
    return {"group_id": view.group_id, "member_id": member_id, "members": [who]}


def _leave_batch(view: View) -> Data:
    members = [{"member_id": each} for _, each in view.ids_here()[:2]]
    return {"group_id": view.group_id, "members": [*members, {"member_id": NOBODY}]}


def _leave_instance(view: View) -> Data:
    """An operator removes a static member by its instance id alone."""
    slot = view.step.slot
    name = f"i-{slot}" if view.step.options["own"] else None
    who = {"member_id": "", "group_instance_id": name}
    return {"group_id": view.group_id, "members": [who]}


def _commit(view: View) -> Data:
    """Never without a name: that is a group too, and all scripts would share it."""
    who = _who(view) | {"group_id": view.here.group_id}
    return who | {"generation_id_or_member_epoch": _generation(view)} | _offsets(view)


def _commit_simple(view: View) -> Data:
    who = {"group_id": view.here.group_id, "generation_id_or_member_epoch": -1, "member_id": ""}
    return who | _offsets(view)


def _offsets(view: View) -> Data:
    o = view.step.options
    partition = {
        "partition_index": o["partition"],
        "committed_offset": view.number,
        "committed_leader_epoch": view.number,
        "committed_metadata": o["metadata"],
    }
    topics = [{"name": TOPIC, "partitions": [partition]}]
    return {"retention_time_ms": o["retention"], "topics": topics if o["topics"] else []}


def _fetch(view: View) -> Data:
    """OffsetFetch 1 cannot ask for all topics; it asks for none."""
    o = view.step.options
    topics = None if o["all"] else [{"name": TOPIC, "partition_indexes": [0, 1]}]
    return {
        "group_id": view.here.group_id,
        "topics": [] if topics is None and o["version"] < 2 else topics,
        "groups": [{"group_id": each, "topics": topics} for each in view.group_ids()],
    }


def _describe(view: View) -> Data:
    return {"groups": view.group_ids()}


def _list(view: View) -> Data:
    o = view.step.options
    return {"states_filter": o["states"], "types_filter": o["types"]}


def _delete(view: View) -> Data:
    return {"groups_names": view.group_ids()}


def _forget(view: View) -> Data:
    partitions = [{"partition_index": each} for each in view.step.options["partitions"]]
    return {"group_id": view.group_id, "topics": [{"name": TOPIC, "partitions": partitions}]}


BUILDERS: Final[dict[str, Callable[[View], Data]]] = {
    "join": _join,
    "sync": _sync,
    "heartbeat": _heartbeat,
    "leave": _leave,
    "leave_batch": _leave_batch,
    "leave_instance": _leave_instance,
    "commit": _commit,
    "commit_simple": _commit_simple,
    "fetch": _fetch,
    "describe": _describe,
    "list": _list,
    "delete": _delete,
    "forget": _forget,
}
