"""Of free texts a masked copy has the words that ksim itself writes, and nothing else."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.mask_texts import REASONS, parts_of
from ksim.masking import mask, names_of
from ksim.recorder import header_of
from ksim.recording import BROKER, Chain, entry_text, read_recording
from tests.cli.commands import ROOT

# Who gives a reason to a change of state, and which argument it is.
GIVE_REASONS = {
    "rebalance_or_complete": 2, "prepare_rebalance": 2, "complete_join": 2,
    "change_state": 2, "forget_group": 2,
}  # fmt: skip


def reasons_in(source: str) -> Iterator[str]:
    """Each reason that this code writes; `{}` where something is put in."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if len(node.args) <= GIVE_REASONS.get(called, len(node.args)):
            continue
        match node.args[GIVE_REASONS[called]]:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(
                    str(each.value) if isinstance(each, ast.Constant) else "{}" for each in values
                )


def test_every_reason_that_a_coordinator_gives_is_known() -> None:
    written = {
        reason
        for path in (ROOT / "ksim" / "core").glob("coordinator*.py")
        for reason in reasons_in(path.read_text())
    }
    assert len(written) > 10
    assert written == {blank(each) for each in REASONS}


def blank(template: str) -> str:
    head, brace, rest = template.partition("{")
    return f"{head}{{}}{rest.partition('}')[2]}" if brace else template


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("all members joined", [("", "all members joined")]),
        ("a b joined again", [("", ""), ("member", "a b"), ("", " joined again")]),
        ("static member a replaced", [
            ("", "static member "), ("instance", "a"), ("", " replaced"),
        ]),
        ("a, b left", [
            ("", ""), ("either", "a"), ("", ", "), ("either", "b"), ("", " left"),
        ]),
        ("append error 16 when storing the assignment", [
            ("", "append error 16 when storing the assignment"),
        ]),
        ("append error of anna when storing the assignment", []),
        ("anna went home", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_reason_is_taken_apart_by_its_template(
    reason: str, expected: list[tuple[str, str]]
) -> None:
    assert parts_of(reason) == expected


GROUP = "g-of-anna"


def record(path: Path, steps: list[tuple[e.RequestArrived | None, list[object]]]) -> None:
    """What a broker saw of a member."""
    chain = Chain()
    data = chain.begin(header_of(BROKER, "anna-1", {}), None)
    entries = [chain.entry(entry_text(at, *step)) for at, step in enumerate(steps)]
    path.write_bytes(b"".join((data, *entries, chain.end())))


def changed(reason: str) -> tuple[None, list[object]]:
    return None, [e.StateChanged(GROUP, "Stable", "PreparingRebalance", 1, ("anna-1",), reason)]


def test_names_that_stand_in_reasons_alone_are_masked(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    reasons = ["of-bob left", "of-eve, anna-1 left", "all members joined", "of-eve went home"]
    record(source, [changed(reason) for reason in reasons])
    mask(source, target, names_of([source]))
    entries = read_recording(target).entries
    assert [entry.orders[0]["reason"] for entry in entries] == [
        "member-2 left", "member-3, member-1 left", "all members joined", "masked",
    ]  # fmt: skip
    assert entries[0].orders[0]["from_state"] == "Stable"


def test_words_that_clients_chose_are_masked_and_known_ones_stay(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    protocols = (("range", b"\0"), ("sticky-of-anna", b"\0"))
    joined = m.JoinGroupRequest(GROUP, 1, 1, "", None, "work-of-anna", protocols)
    listed = m.ListGroupsRequest(("stable", "mood-of-anna"), ("classic", "kind-of-anna"))
    described = m.DescribedGroup(0, "anna is ill", GROUP, "Stable", "consumer", "range", ())
    record(
        source,
        [
            (e.RequestArrived(at, request, "c", "c-1", 5), [])
            for at, request in enumerate((joined, listed))
        ]
        + [(None, [e.SendResponse(1, m.DescribeGroupsResponse((described,)))])],
    )
    mask(source, target, names_of([source]))
    text = target.read_text()
    assert "anna" in source.read_text()
    assert "anna" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    join, listing, answer = (line for line in lines if "t" in line)
    request = join["fact"]["request"]
    assert request["protocol_type"] == "protocol-2"
    assert [name for name, _ in request["protocols"]] == ["range", "protocol-1"]
    assert listing["fact"]["request"]["states"] == ["stable", "masked"]
    assert listing["fact"]["request"]["types"] == ["classic", "masked"]
    (group,) = answer["orders"][0]["response"]["groups"]
    assert (group["error_message"], group["protocol_data"]) == ("masked", "range")
