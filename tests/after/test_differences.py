"""The first difference of two recordings: what counts, and what may differ."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ksim.after.differences import first_difference, pairs
from ksim.after.lives import Life, read_lives
from ksim.core.member import Member
from ksim.core.subscription import encode_assignment, encode_subscription
from ksim.core.trace import value_of
from ksim.core.values import TopicPartition
from ksim.recording import Chain, entry_text, read_recording
from tests.after.recorded import ROOT, names, one_point, recorded, shifted
from tests.cli.commands import ksim
from tests.recordings_here import CORPUS, forge

STATIC = CORPUS / "1.0" / "static.ksim"
LEADER = CORPUS / "1.0" / "paused.ksim"
Change = Callable[[list[str]], None]
NIGHT = ROOT / "scenarios" / "night.scenario.toml"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Life], list[Life]]:
    """Two runs of one scenario with other seeds: other ids, and other times."""
    scenario = one_point(NIGHT)
    folders = [tmp_path_factory.mktemp("night") for _ in range(2)]
    one, other = (recorded(scenario, folder, seed)[1] for seed, folder in enumerate(folders))
    return one, other


def test_ids_and_times_may_differ(nights: tuple[list[Life], list[Life]]) -> None:
    ours = nights[0]
    for life in ours:
        assert first_difference(life, shifted(life, 12_345), everything=True) is None


def test_two_runs_of_one_scenario_differ_where_their_groups_do(
    nights: tuple[list[Life], list[Life]],
) -> None:
    ours, theirs = nights
    found = [
        (name, first_difference(one, other))
        for name, one, other in pairs(ours, theirs)
        if one is not None and other is not None
    ]
    assert [name for name, _ in found] == names(ours)
    # With the second seed another member leads, or is told of the rebalance by another answer.
    for _, difference in found:
        assert difference is None or difference.fields


def test_another_assignment_is_named_field_by_field(
    nights: tuple[list[Life], list[Life]], tmp_path: Path
) -> None:
    text = NIGHT.read_text("utf-8").replace("partitions = 6", "partitions = 7")
    path = tmp_path / "seven.scenario.toml"
    path.write_text(text, "utf-8")
    _, more = recorded(one_point(path), tmp_path / "seven")
    first = next(life for life in nights[0] if life.name == "g-1")
    other = next(life for life in more if life.name == "g-1")
    found = first_difference(first, other)
    assert found is not None
    # Both sent the same join; what the leader shares out is the first that differs.
    assert found.kind == "request SyncGroup"
    assert found.nth == 1
    assert next(path for path, _, _ in found.fields).startswith("assignments")


def test_the_command_says_what_differs_and_ends_with_4(tmp_path: Path) -> None:
    for seed in ("0", "1"):
        ksim("run", str(NIGHT), "--seed", seed, "--record", str(tmp_path / seed))
    same = ksim("diff", str(tmp_path / "0"), str(tmp_path / "0"))
    assert same.returncode == 0
    assert same.stdout.count("the same") == 4
    one = str(tmp_path / "0" / "g-1.ksim")
    other = ksim("diff", one, str(tmp_path / "0" / "g-3.ksim"))
    assert other.returncode == 4
    assert " differs" in other.stdout
    damaged = tmp_path / "damaged.ksim"
    damaged.write_bytes(b"garbage\n")
    assert ksim("diff", one, str(damaged)).returncode == 5
    alone = ksim("diff", str(tmp_path / "0"), one)
    assert alone.returncode == 4
    assert f"g-3: only in {tmp_path / '0'}" in alone.stdout


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change], Path]:
    folder = tmp_path_factory.mktemp("altered")

    def alter(change: Change) -> Path:
        path = folder / f"{change.__name__}.ksim"
        forge(STATIC, path, change)
        return path

    return alter


def other_node(texts: list[str]) -> None:
    replaced(texts, '"_":"HeartbeatRequest"', '"node_id":2', '"node_id":1')


def other_channel(texts: list[str]) -> None:
    replaced(texts, '"_":"JoinGroupRequest"', '"channel":"group"', '"channel":"other"')


def other_timeout(texts: list[str]) -> None:
    replaced(
        texts, '"_":"SyncGroupRequest"', '"request_timeout_ms":30000', '"request_timeout_ms":1'
    )


def replaced(texts: list[str], where: str, old: str, new: str) -> None:
    at = next(n for n, text in enumerate(texts) if n > 1 and where in text and old in text)
    texts[at] = texts[at].replace(old, new)


@pytest.mark.parametrize(
    ("change", "everything", "field"),
    [
        (other_node, True, "node_id"),
        (other_channel, False, "channel"),
        (other_timeout, False, "request_timeout_ms"),
    ],
)
def test_how_a_request_is_sent_is_compared(
    altered: Callable[[Change], Path], change: Change, everything: bool, field: str
) -> None:
    ours, theirs = (read_lives([path])[0] for path in (STATIC, altered(change)))
    found = first_difference(ours, theirs, everything=everything)
    assert found is not None
    assert [path for path, _, _ in found.fields] == [field]


def joins_with(*subscriptions: bytes) -> Change:
    """As many fields of a JoinGroup that are bytes, each of its own."""

    def change(texts: list[str]) -> None:
        given = iter(subscriptions)
        for at, text in enumerate(texts):
            if at > 1 and ('"_":"JoinGroupRequest"' in text or '"_":"JoinedMember"' in text):
                new = base64.b64encode(next(given, subscriptions[-1])).decode()
                texts[at] = re.sub(r'(?<="b64":")[^"]*', new, text)

    change.__name__ = "-".join(each.hex() for each in subscriptions)
    return change


MINE = encode_subscription(["orders"])
OTHER_USER_DATA = encode_subscription(["orders"], user_data=b"")
OWNED = encode_subscription(["orders"], [TopicPartition("orders", 5)])
OTHER_TOPIC = encode_subscription(["payments"])


@pytest.mark.parametrize(
    ("one", "other", "kind", "everything"),
    [
        ([MINE], [OTHER_TOPIC], "request JoinGroup", "request JoinGroup"),
        # An empty one of one topic has the bytes of an assignment of nothing.
        (
            [OTHER_USER_DATA],
            [encode_subscription(["payments"], user_data=b"")],
            "request JoinGroup",
            "request JoinGroup",
        ),
        ([MINE], [OTHER_USER_DATA], None, "request JoinGroup"),
        ([MINE], [OWNED], None, "request JoinGroup"),
    ],
)
def test_subscriptions_are_compared_by_what_they_say(
    altered: Callable[[Change], Path],
    one: list[bytes],
    other: list[bytes],
    kind: str | None,
    everything: str,
) -> None:
    ours, theirs = (read_lives([altered(joins_with(*each))])[0] for each in (one, other))
    found = first_difference(ours, theirs)
    assert (found and found.kind) == kind
    found = first_difference(ours, theirs, everything=True)
    assert (found and found.kind) == everything


def other_peers(texts: list[str]) -> None:
    at = next(n for n, text in enumerate(texts) if n > 1 and '"_":"JoinedMember"' in text)
    new = base64.b64encode(OTHER_TOPIC).decode()
    texts[at] = re.sub(r'(?<="b64":")[^"]*', new, texts[at])


def other_share(texts: list[str]) -> None:
    at = next(n for n, text in enumerate(texts) if n > 1 and '"_":"SyncGroupResponse"' in text)
    new = base64.b64encode(encode_assignment([TopicPartition("orders", 5)], b"mine")).decode()
    texts[at] = re.sub(r'(?<="b64":")[^"]*', new, texts[at])


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        (other_peers, "answer JoinGroup", "members"),
        (other_share, "answer SyncGroup", "assignment"),
    ],
)
def test_what_members_are_told_in_bytes_is_compared(
    tmp_path: Path, change: Change, kind: str, field: str
) -> None:
    forge(LEADER, tmp_path / "other.ksim", change)
    ours, theirs = (read_lives([path])[0] for path in (LEADER, tmp_path / "other.ksim"))
    for everything in (False, True):
        found = first_difference(ours, theirs, everything=everything)
        assert found is not None
        assert found.kind == kind
        assert found.fields[0][0].startswith(field)


def other_configuration_in_both(texts: list[str]) -> None:
    for at in (0, 1):
        texts[at] = re.sub(r'"heartbeat_interval_ms":\d+', '"heartbeat_interval_ms":7', texts[at])


def other_snapshot(texts: list[str]) -> None:
    texts[1] = re.sub(r'"fetch_min_bytes":\d+', '"fetch_min_bytes":7', texts[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_configuration_in_both, "  configuration heartbeat_interval_ms: "),
        (other_snapshot, "  configuration fetch_min_bytes: "),
    ],
)
def test_another_configuration_is_told(
    altered: Callable[[Change], Path], change: Change, words: str
) -> None:
    found = ksim("diff", str(STATIC), str(altered(change)))
    assert found.returncode == 4
    first, second = found.stdout.splitlines()
    assert "the same but for the configuration" in first
    assert second.startswith(words)
    assert second.endswith(" | 7")


def test_a_difference_in_a_later_file_is_named_by_file_and_line(tmp_path: Path) -> None:
    for name, late in (("one", False), ("other", True)):
        (tmp_path / name).mkdir()
        split(tmp_path / name, late)
    found = ksim("diff", str(tmp_path / "one"), str(tmp_path / "other"))
    assert found.returncode == 4
    place = found.stdout.splitlines()[1]
    assert place.startswith(f"  not there, {tmp_path}/other/g-1-0002.ksim: line 33 at ")


def split(folder: Path, late: bool) -> None:
    """The recording in two files, the second with half of it and perhaps another order."""
    whole = read_recording(STATIC)
    machine = Member.restore(whole.snapshot)
    chain, half = Chain(), len(whole.entries) // 2
    header = {name: value for name, value in whole.header.items() if name != "c"}
    data = chain.begin({**header, "segment": 1}, whole.snapshot)
    for number, entry in enumerate(whole.entries):
        if number == half:
            after = chain.digest
            (folder / "g-1-0001.ksim").write_bytes(data + chain.end())
            chain = Chain()
            data = chain.begin({**header, "segment": 2, "after": after}, machine.snapshot())
        orders = entry.orders
        if late and number == half + 30:
            orders = [*orders, {"_": "AbandonPartitions", "revocation_id": 9}]
        data += chain.entry(entry_text(entry.now_ms, entry.fact, orders))
        machine.step(value_of(entry.fact), now_ms=entry.now_ms)
    (folder / "g-1-0002.ksim").write_bytes(data + chain.end())
