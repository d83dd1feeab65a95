"""A masked copy has none of the names and replays to the same."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.member import Member
from ksim.core.subscription import (
    decode_subscription,
    encode_assignment,
    encode_subscription,
    read_assignment,
)
from ksim.core.trace import plain, value_of
from ksim.core.values import TopicPartition
from ksim.mask_names import KINDS, Names, Renaming
from ksim.masking import mask, names_of
from ksim.recorder import header_of
from ksim.recording import RecordingWriter, line_of, read_recording
from ksim.replay import ReplayVerdict, replay_file
from tests.cli.commands import ksim, refusal
from tests.recordings_here import CORPUS, FILES, verdict_of

SECRET = ("orders-of-anna", "g-of-anna", "host-of-anna", "anna-1", "static-anna", "note-of-anna")
TOPIC, GROUP, HOST, MEMBER, INSTANCE, NOTE = SECRET


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Each file of the corpus with its copy."""
    folder = tmp_path_factory.mktemp("masked")
    names = names_of(FILES)
    found = {path: folder / f"{path.parent.name}-{path.name}" for path in FILES}
    for source, target in found.items():
        assert mask(source, target, names).line == 0
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_copy_replays_to_the_same(path: Path, masked: dict[Path, Path]) -> None:
    before, after = read_recording(path), read_recording(masked[path])
    assert replay_file(masked[path]).verdict == verdict_of(path)
    assert len(after.entries) == len(before.entries)
    assert after.header["masked"] is True
    for one, other in zip(before.entries, after.entries, strict=True):
        assert (one.line, one.now_ms) == (other.line, other.now_ms)
        assert [each["_"] for each in one.orders] == [each["_"] for each in other.orders]


def strings(found: Any) -> set[str]:
    """All strings in plain data, also those inside of bytes."""
    if isinstance(found, str):
        return {found}
    if isinstance(found, list):
        return {text for each in found for text in strings(each)}
    if isinstance(found, dict) and "b64" in found:
        return {value_of(found).decode("latin-1")}
    if isinstance(found, dict):
        return {text for each in found.values() for text in strings(each)}
    return set()


def test_no_name_is_left(masked: dict[Path, Path]) -> None:
    names = names_of(FILES)
    known = {name for kind in KINDS for name in names.all_of(kind) if len(name) > 4}
    assert len(known) > 20
    for path in masked.values():
        text = "\n".join(strings([json.loads(line) for line in path.read_text().splitlines()]))
        assert not [name for name in known if name in text]


def test_names_keep_their_order_and_one_is_one_everywhere() -> None:
    names = Names()
    given = [f"t{number}" for number in range(200)]
    for name in given:
        names.note("topic", name)
    names.decide()
    new = [names.new("topic", name) for name in sorted(given)]
    assert new == sorted(new)
    assert len(set(new)) == len(given)
    assert names.new("topic", "") == ""


def record(path: Path, *, change: bool = False) -> None:
    """A leader with names that tell; with `change`, one decision is not the machine's."""
    config = Config(
        group_id=GROUP,
        topics_whitelist="^orders-of",
        topics_blacklist="x$",
        client_id=MEMBER,
        group_instance_id=INSTANCE,
        bootstrap_servers=(f"{HOST}:9092",),
        user_data=b"data-of-anna",
    )
    machine = Member(config.member_config(), 1)
    leaders = tuple(m.PartitionMetadata(0, number, 1, 0) for number in range(3))
    metadata = m.MetadataResponse(
        (m.BrokerEndpoint(1, HOST, 9092),),
        (m.TopicMetadata(0, TOPIC, leaders), m.TopicMetadata(0, f"{TOPIC}x", leaders)),
    )
    subscription = encode_subscription([TOPIC], user_data=b"data-of-anna")
    members = (m.JoinedMember(MEMBER, INSTANCE, subscription), m.JoinedMember("b", None, b"\0"))
    joined = m.JoinGroupResponse(0, 1, "consumer", "range", MEMBER, MEMBER, members)
    facts: list[e.MemberFact] = [
        e.Started(),
        e.ResponseReceived(0, m.FindCoordinatorResponse(0, 1, HOST, 9092)),
        e.ResponseReceived(1, metadata),
        e.RequestFailed(77, f"cannot connect to {HOST}"),
        e.ResponseReceived(2, joined),
        e.ResponseReceived(3, metadata),
    ]
    header = header_of("member", MEMBER, config.public())
    writer = RecordingWriter(path.open("wb", buffering=0), header, machine.snapshot())
    for at, fact in enumerate(facts):
        orders = machine.step(fact, now_ms=10 + at)
        if change and at == 4:
            orders = [*orders, e.ReportError(30, f"join of group {GROUP}", False)]
        writer.on_step(10 + at, fact, orders)
    fact = e.ResponseReceived(
        9, m.OffsetFetchResponse(0, (m.CommittedOffset(TOPIC, 0, 5, 0, NOTE, 0),))
    )
    writer.on_step(30, fact, machine.step(fact, now_ms=30))
    writer.close()


def test_nothing_that_tells_is_left_and_the_leader_shares_as_before(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    record(source)
    assert mask(source, target, names_of([source])).line == 0
    assert replay_file(target).verdict == ReplayVerdict.SAME
    before, after = source.read_text(), target.read_text()
    for text in strings([json.loads(line) for line in after.splitlines()]):
        assert "anna" not in text
    assert all(any(word in text for text in strings(
        [json.loads(line) for line in before.splitlines()])) for word in SECRET)  # fmt: skip
    found = read_recording(target)
    assert "SyncGroupRequest" in after
    assert found.header["config"]["topics_whitelist"] == "^(?:topic-1|topic-2)$"
    assert found.header["config"]["topics_blacklist"] == "^(?:topic-2)$"
    assert found.header["config"]["bootstrap_servers"] == ["host-1:9092"]
    errors = [order for entry in found.entries for order in entry.orders if "context" in order]
    assert {error["context"].split(":")[0] for error in errors} == {"subscription of member-2"}


def test_a_divergence_stays_where_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    record(source, change=True)
    mask(source, target, names_of([source]))
    one, other = replay_file(source).divergence, replay_file(target).divergence
    assert one is not None
    assert other is not None
    assert one.entry == other.entry == 5
    assert len(one.differences()) == len(other.differences()) == 1
    assert '"context":"masked"' in str(other.differences()[0])


WHY = "LookupError: no card 4111 of clerk-9, see /home/clerk-9"
UNKNOWN = "written-by-clerk-9"
LATER = b"\xff\xff\xff\xff" + b"\0\x0crack-clerk-9" + b"of-clerk-9"


def add(found: Any) -> Any:
    """The same with what no machine of today would write, and a peer of a later release."""
    if isinstance(found, dict) and found.get("_") == "JoinedMember":
        data = value_of(found["metadata"])
        later = b"\0\3" + data[2:] + LATER
        return found | {"metadata": plain(later if len(data) > 9 else data)}
    if isinstance(found, dict):
        return {key: add(each) for key, each in found.items()}
    return [add(each) for each in found] if isinstance(found, list) else found


def rewritten(path: Path, change: Callable[[list[Any]], None]) -> None:
    """The file with other lines and the checksums that they need."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    chain, before, entries = "", "", 0
    with path.open("wb") as file:
        for line in lines:
            found = {key: value for key, value in line.items() if key != "c"}
            if "end" in found:
                found |= {"end": entries, "digest": before}
            data, chain = line_of(chain, json.dumps(found, separators=(",", ":")))
            file.write(data)
            before, entries = chain, entries + ("t" in found)


def test_what_nobody_knows_is_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    record(source)

    def change(lines: list[Any]) -> None:
        lines[0] |= {"why": WHY, "note": UNKNOWN}
        lines[0]["config"] |= {"ssl_ciphers": UNKNOWN, "later": [UNKNOWN]}
        lines[2:] = add(lines[2:])
        part = dict.fromkeys(("partition", "first", "last", "count"), 0)
        lines[-2]["payload"] = [part | {"topic": TOPIC, "note": UNKNOWN}]
        lines[-2]["orders"] = [plain(e.ReportError(30, f"commit by {UNKNOWN}", False))]
        lines[-2]["orders"][0]["detail"] = UNKNOWN

    rewritten(source, change)
    assert mask(source, target, names_of([source])).line == 0
    text = target.read_text()
    found = b"".join(map(base64.b64decode, re.findall(r'"b64":"([^"]*)"', text))).decode("latin-1")
    for secret in ("clerk", "4111", "home"):
        assert secret not in text
        assert secret.encode().hex() not in text
        assert secret not in found
    assert "rack-1**********" in found
    header = read_recording(target).header
    assert header["why"] == "LookupError: masked"
    assert header["config"]["ssl_ciphers"] == header["config"]["later"] == "***"
    one, other = replay_file(source).divergence, replay_file(target).divergence
    assert one is not None
    assert other is not None
    assert one.entry == other.entry


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("SIGUSR1", "SIGUSR1"), ("asked for", "asked for"), ("anna: it broke", "masked"),
        ("ValueError", "ValueError: masked"), ("", ""),
    ],
)  # fmt: skip
def test_what_made_somebody_write_it_stays_where_it_is_ours(
    tmp_path: Path, found: str, expected: str
) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    record(source)
    rewritten(source, lambda lines: lines[0].update(why=found))
    mask(source, target, names_of([source]))
    assert read_recording(target).header["why"] == expected


def renaming(new: dict[str, str]) -> Renaming:
    return Renaming(lambda _, name: new.get(name, name), str, lambda data: data[::-1])


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_subscriptions_are_rewritten_whatever_their_version(version: int) -> None:
    data = encode_subscription(["a", "b"], [TopicPartition("b", 7)], user_data=b"uvw")
    later = {2: b"\0\0\0\7", 3: b"\0\0\0\7\0\4rack"}.get(version, b"")
    data = version.to_bytes(2, "big") + data[2:] + later + b"more"
    found = value_of(renaming({"b": "longer", "rack": "rack-1"}).of(plain(data), "metadata"))
    read = decode_subscription("m", None, found)
    assert (read.topics, read.user_data) == (("a", "longer"), b"***")
    assert found.count(b"longer") == (1 if version == 0 else 2)
    assert found.endswith(later.replace(b"\4rack", b"\6rack-1") + b"****")


def test_assignments_are_rewritten_with_their_data() -> None:
    data = encode_assignment([TopicPartition("a", 1), TopicPartition("b", 2)], b"12345678")
    found = value_of(renaming({"b": "longer"}).of(plain(data), "assignment"))
    assert read_assignment(found) == (
        (TopicPartition("a", 1), TopicPartition("longer", 2)),
        b"87654321",
    )


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1\0\0", b"\0\1\0\0\0\0"])
@pytest.mark.parametrize("field", ["metadata", "assignment", "user_data"])
def test_bytes_that_cannot_be_read_are_stars(data: bytes, field: str) -> None:
    found = value_of(renaming({}).of(plain(data), field))
    assert len(found) == len(data)
    assert found == data or found == b"*" * len(data)


def test_the_command_masks_a_file_and_directories(tmp_path: Path) -> None:
    one = CORPUS / "1.0" / "static.ksim"
    out = tmp_path / "one.ksim"
    assert ksim("mask", str(one), "-o", str(out)).returncode == 0
    assert replay_file(out).verdict == ReplayVerdict.SAME
    several = tmp_path / "several"
    assert ksim("mask", str(CORPUS), "-o", str(several)).returncode == 0
    found = ksim("replay", str(several))
    assert found.returncode == 5
    assert len(found.stdout.splitlines()) == len(FILES) + 1
    assert "would overwrite" in refusal("mask", str(out), "-o", str(out))


def test_a_damaged_source_is_damage(tmp_path: Path) -> None:
    bad = tmp_path / "bad.ksim"
    bad.write_bytes(b"garbage\n")
    found = ksim("mask", str(bad), "-o", str(tmp_path / "out.ksim"))
    assert found.returncode == 5
    assert "line 1" in found.stderr
    found = ksim("mask", str(FILES[0]), "-o", "/dev/full")
    assert found.returncode == 74
    assert found.stderr == "ksim: /dev/full: No space left on device\n"


def test_a_pipe_is_refused_as_it_can_be_read_once(tmp_path: Path) -> None:
    pipe, out = tmp_path / "pipe", tmp_path / "out.ksim"
    os.mkfifo(pipe)
    assert refusal("mask", str(pipe), "-o", str(out)) == (
        f"ksim: {pipe}: is a pipe or a device, and is read twice: mask a file of it"
    )
    assert not out.exists()


@pytest.mark.parametrize("command", ["mask", "lift"])
def test_what_is_read_is_never_overwritten(tmp_path: Path, command: str) -> None:
    source, hard, soft = (tmp_path / name for name in ("a.ksim", "hard", "soft"))
    shutil.copy(FILES[-1], source)
    hard.hardlink_to(source)
    soft.symlink_to(source)
    for out in (source, hard, soft):
        assert refusal(command, str(source), "-o", str(out)) == (
            f"ksim: -o {out}: would overwrite {out}"
        )
    assert source.read_bytes() == FILES[-1].read_bytes()
    assert ksim(command, str(tmp_path / "absent.ksim"), "-o", str(hard)).returncode == 5
    quick = ["--runs", "1"] if command == "lift" else []
    found = ksim(command, str(source), "-o", str(source / "out"), *quick)
    assert found.returncode == 74
    assert found.stderr.startswith(f"ksim: {source}")
