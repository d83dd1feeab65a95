"""What is done to members and brokers, and when: all of it drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.chaos.brokers import NODES


class Act(StrEnum):
    """Something that is done to the cluster."""

    KILL_MEMBER = "kill member"
    END_MEMBER = "end member"
    STOP_MEMBER = "stop member"
    START_MEMBER = "start member"
    KILL_BROKER = "kill broker"
    END_BROKER = "end broker"
    STOP_BROKER = "stop broker"
    ADD_PARTITIONS = "add partitions"


WEIGHTS: Final = {
    Act.KILL_MEMBER: 3,
    Act.END_MEMBER: 3,
    Act.STOP_MEMBER: 3,
    Act.START_MEMBER: 5,
    Act.KILL_BROKER: 1,
    Act.END_BROKER: 1,
    Act.STOP_BROKER: 1,
    Act.ADD_PARTITIONS: 1,
}
GAP_S: Final = (2.0, 8.0)
BRIEF_S: Final = (1.0, 4.0)  # shorter than a session
LONG_S: Final = (8.0, 15.0)
BROKER_S: Final = (3.0, 12.0)
MOST_ADDED: Final = 2


@dataclass(frozen=True, slots=True)
class Action:
    """At `at_s` from the beginning; `pick` chooses among who is there, `for_s` until it heals."""

    at_s: float
    act: Act
    pick: int
    for_s: float = 0.0


def draw(seed: int, seconds: float) -> list[Action]:
    """The actions of a run, in order."""
    stream = random.Random(seed)
    found: list[Action] = []
    at_s, added = stream.uniform(*GAP_S), 0
    while at_s < seconds:
        (act,) = stream.choices(list(WEIGHTS), list(WEIGHTS.values()))
        pick = stream.randrange(len(NODES) * 20)
        for_s = 0.0
        match act:
            case Act.STOP_MEMBER:
                for_s = stream.uniform(*(BRIEF_S if stream.random() < 1 / 3 else LONG_S))
            case Act.KILL_BROKER | Act.END_BROKER | Act.STOP_BROKER:
                for_s = stream.uniform(*BROKER_S)
            case Act.ADD_PARTITIONS:
                added += 1
            case _:
                pass
        if act != Act.ADD_PARTITIONS or added <= MOST_ADDED:
            found.append(Action(at_s, act, pick, for_s))
        at_s += stream.uniform(*GAP_S)
    return found
