"""What `docs/after-the-fact.md` counts is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.after.recorded import ROOT, SCENARIOS

DOCS = ROOT / "docs" / "after-the-fact.md"
SAYS = re.compile(
    r"(\d+) of (\d+) are the same in generations, owners\s+and error codes, "
    r"(\d+) in generations and owners"
)


def apart() -> Iterator[tuple[int, int]]:
    """Of each scenario that is not lifted to the same: by how many generations, and refusals."""
    table = DOCS.read_text("utf-8").partition("## What is not lifted")[2]
    for line in table.splitlines():
        if line.startswith("| `"):
            generations, refusals = line.split("|")[2].split(",")
            yield int(generations), int(refusals)


def test_so_many_scenarios_are_lifted_to_the_same_as_the_table_leaves() -> None:
    """`tests/sim/test_reenactment.py` proves the table, by name."""
    said = SAYS.search(DOCS.read_text("utf-8"))
    assert said is not None
    rows = list(apart())
    count = len(SCENARIOS)
    same = count - len(rows)
    owners = same + sum(generations == 0 for generations, _ in rows)
    assert [int(number) for number in said.groups()] == [same, count, owners]
    assert all(generations or refusals for generations, refusals in rows)
