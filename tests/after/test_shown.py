"""Whatever a check looks at is made of recordings, or it is said here why not."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from ksim import observations as o
from ksim.after.judge import BETWEEN, OWN
from ksim.after.lives import Life
from ksim.after.own import all_ends, own_events, shares_of
from ksim.checks import Checker, S10Order
from ksim.core import events as e
from tests.after.recorded import ROOT, one_point, recorded
from tests.after.test_judge import life
from tests.after.test_judge import pattern as pattern  # a fixture
from tests.after.test_pauses import BEGUN, hands_out, pauses

NO_LOG: Final = (
    "no member sees that a coordinator loads its log; what it knows is told by SyncGroup"
)
# By name of the check.
NOT_SHOWN: Final[dict[str, dict[type, str]]] = {
    "S3": {
        e.LogReplayed: NO_LOG,
        e.TopicsDeleted: "a member learns of it by metadata: TopicIs",
    },
    "S6": {e.LogReplayed: NO_LOG},
    "S10": {o.PartitionSought: "the member's own Sought comes with what it drops for it"},
    "S12": {
        e.RecordsAppended: "what is stored binds who loads the log, which is not shown",
    },
    "S13": {
        e.LogReplayed: NO_LOG,
        e.DropBuffered: "a seek beyond the end is told as a fetch out of range: Truncated",
    },
}


SHOWN_BY: Final = (
    "night",
    "static-leader-away-while-partitions-grow",
    "s08-topic-is-deleted-and-comes-back",
    "marks-below-a-seek",
    "refused-while-the-application-is-away",
    "committed-before-a-truncation",
)


def found_in(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.scenario.toml"))


def kinds_of(lives: list[Life]) -> dict[str, set[type]]:
    """By check, the facts and orders that it is shown of these lives."""
    found: dict[str, set[type]] = defaultdict(set)
    shares, ends = shares_of(lives), all_ends(lives)
    for each in lives:
        events = list(own_events(each, shares, ends, []))
        for kind in OWN:
            found[kind.name] |= {type(x) for event in events for x in (event.fact, *event.orders)}
    for between in BETWEEN:
        placed = [
            (event.latest_ms, 0, number, event)
            for own in between.witness(lives)
            for number, event in enumerate(own)
        ]
        placed.sort(key=lambda each: each[0])
        for _, _, _, event in between.sift(placed, False):
            found[between.kind.name] |= {type(x) for x in (event.fact, *event.orders)}
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, pattern: Life) -> dict[str, set[type]]:
    found: dict[str, set[type]] = defaultdict(set)
    runs = [
        recorded(one_point(path, 7), tmp_path_factory.mktemp("run"), 7)[1]
        for path in found_in("scenarios")
        if path.name.removesuffix(".scenario.toml") in SHOWN_BY
    ]
    for lives in (*runs, [life("one", [*BEGUN, pauses(50), hands_out(90, 1, 0, 60)], [], pattern)]):
        for name, kinds in kinds_of(lives).items():
            found[name] |= kinds
    return found


CHECKS: Final[tuple[type[Checker], ...]] = (*OWN, *(each.kind for each in BETWEEN))


@pytest.mark.parametrize("kind", CHECKS, ids=lambda kind: str(kind.name))
def test_what_a_check_looks_at_is_shown_to_it(
    kind: type[Checker], shown: dict[str, set[type]]
) -> None:
    missing = set(kind.looks_at) - shown[kind.name]
    assert missing == NOT_SHOWN.get(kind.name, {}).keys()


def test_each_reason_is_of_a_check_that_is_judged() -> None:
    assert NOT_SHOWN.keys() <= {kind.name for kind in CHECKS}
    assert S10Order in CHECKS
