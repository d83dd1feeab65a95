"""What Kafka cannot be told is refused where it is given, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ksim.consumer import checked
from ksim.consumer.config import Acknowledge
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.consumer.offsets import OffsetStash
from ksim.core import messages as m
from ksim.core.errors import MisuseError
from ksim.core.values import Record
from ksim.sim.driver import SimDriver
from ksim.wiring import sleep_ms
from tests.consumer.test_consumer import TP0, committed
from tests.consumer.worlds import TinyWorld

Call = Callable[[Any, Any], object]
HALF = "half \ud800"


class Seven:
    """A number of another library, as numpy has them."""

    def __index__(self) -> int:
        return 7


def commit_request(**values: Any) -> m.OffsetCommitRequest:
    usual: dict[str, Any] = {"topic": "t", "partition": 0, "offset": 1, "leader_epoch": -1}
    offsets = (m.OffsetAndMetadata(**{**usual, "metadata": "", **values}),)
    return m.OffsetCommitRequest("g", -1, "", None, offsets)


WRONG: dict[str, tuple[Call, str]] = {
    "seek beyond": (lambda c, _: c.seek("t", 0, 2**63), "offset = 9223372036854775808: a whole"),
    "seek 1.5": (lambda c, _: c.seek("t", 0, 1.5), r"seek of t-0: offset = 1.5: .*, 0 to 922337"),
    "seek -1": (lambda c, _: c.seek("t", 0, -1), "offset = -1: a whole number"),
    "seek True": (lambda c, _: c.seek("t", 0, True), "offset = True"),
    "seek text": (lambda c, _: c.seek("t", 0, "1"), "offset = '1'"),
    "seek in True": (lambda c, _: c.seek("t", True, 1), "partition = True: .*, 0 to 2147483647"),
    "seek in None": (lambda c, _: c.seek(None, 0, 1), "topic = None: a text"),
    "mark beyond": (
        lambda c, _: c.mark_partition_offset("t", 0, 2**63 - 1),
        r"offset = 9223372036854775807: .*, 0 to 9223372036854775806",
    ),
    "mark 1.5": (lambda c, _: c.mark_partition_offset("t", 0, 1.5), "offset = 1.5"),
    "mark -1": (lambda c, _: c.mark_partition_offset("t", 0, -1), "offset = -1"),
    "mark in list": (lambda c, _: c.mark_partition_offset([], 0, 1), r"topic = \[\]"),
    "half": (lambda c, _: c.mark_partition_offset("t", 0, 1, HALF), "half a character at 5"),
    "half of it": (lambda c, message: c.mark_offset(message, HALF), "metadata = 'half"),
    "long": (
        lambda c, message: c.mark_offset(message, "é" * 16_384),
        r"metadata = 'éé.*\.\.\.: 32768 bytes, at most 32767",
    ),
    "no text": (lambda c, message: c.mark_offset(message, 5), "metadata = 5: a text"),
    "no message": (lambda c, _: c.mark_offset("t-0@1"), "message = 't-0@1': a Message"),
    "no stash": (lambda c, _: c.mark_offsets({"t-0": 1}), "stash = {'t-0': 1}"),
    "pause text": (lambda c, _: c.pause("t"), "pause = 't': several partitions"),
    "pause one": (lambda c, _: c.pause(TP0), "pause with 't': several partitions"),
    "pause none": (lambda c, _: c.pause(None), "pause = None"),
    "pause far": (lambda c, _: c.pause([("t", 2**31)]), "partition = 2147483648"),
    "resume topic": (lambda c, _: c.resume(["ab"]), "resume with 'ab'"),
    "resume half": (lambda c, _: c.resume([(HALF, 0)]), "topic = 'half"),
    "store offset": (
        lambda c, _: c.offset_store.commit_offset(commit_request(offset=2**63)), "offset = 92233",
    ),
    "store metadata": (
        lambda c, _: c.offset_store.commit_offset(commit_request(metadata=HALF)), "half a char",
    ),
    "store offsets": (
        lambda c, _: c.offset_store.commit_offset(m.OffsetCommitRequest("g", -1, "", None, "t")),  # type: ignore[arg-type]
        "offsets = 't'",
    ),
    "store None": (lambda c, _: c.offset_store.fetch_offset(None), "None: an OffsetCommitReq"),
    "store topic": (
        lambda c, _: c.offset_store.fetch_offset(m.OffsetFetchRequest("g", ((3, 0),))),  # type: ignore[arg-type]
        "topic = 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_kafka_cannot_be_told_is_misuse_and_changes_nothing(
    tiny: TinyWorld, name: str
) -> None:
    call, words = WRONG[name]
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            for message in consumer.messages(timeout_ms=1_000):
                seen.append(message.offset)
                consumer.mark_offset(message, "good")
                if len(seen) == 2:
                    with pytest.raises(MisuseError, match=words):
                        call(consumer, message)
            assert consumer.committed("t", 0) == (4, "good")
            assert consumer.stale_marks == 0

    tiny.produce(0, 4)
    tiny.play(application, 6_000)
    assert seen == [0, 1, 2, 3]
    assert committed(tiny, TP0) == 4


NUMBERS: dict[str, tuple[Call, str]] = {
    "no records": (lambda c, _: c.batches(0), "max_records = 0: .*, 1 to 2147483647"),
    "few records": (lambda c, _: c.batches(-1), "max_records = -1"),
    "part of one": (lambda c, _: c.batches(1.5), "max_records = 1.5"),
    "time back": (lambda c, _: c.messages(timeout_ms=-1), r"timeout_ms \(None: .* = -1"),
    "no time": (lambda c, _: c.messages(timeout_ms=float("nan")), "= nan: .*, 0 to 2147483647"),
    "all time": (lambda c, _: c.batches(5, float("inf")), "= inf: a whole number"),
    "a text": (lambda c, _: c.messages("5s"), "= '5s': a whole number"),
    "commit": (lambda c, _: c.commit_offsets(timeout_ms=-1), "timeout_ms = -1"),
    "commit None": (lambda c, _: c.commit_offsets(timeout_ms=None), "timeout_ms = None"),
    "close": (lambda c, _: c.close(timeout_ms=-1), "timeout_ms = -1"),
    "close 1.5": (lambda c, _: c.close(1.5), "timeout_ms = 1.5"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_means_nothing_is_misuse_at_the_call(tiny: TinyWorld, name: str) -> None:
    call, words = NUMBERS[name]

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            with pytest.raises(MisuseError, match=words):
                call(consumer, None)
            assert not consumer.ended
            assert next(consumer.messages()).offset == 0

    tiny.produce(0, 1)
    tiny.play(application, 4_000)


def test_numbers_of_a_partition_and_of_a_pool_are_checked_too(tiny: TinyWorld) -> None:
    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(mode="partitions")) as apart:
            partition = next(apart.partitions())
            for call in (partition.batches, partition.messages):
                with pytest.raises(MisuseError, match="= -1: a whole number"):
                    call(-1)
        with Consumer(tiny.config(acknowledge=Acknowledge.EACH)) as pool:
            for workers in (0, 1.5, True):
                with pytest.raises(MisuseError, match=f"workers = {workers}: a whole number"):
                    pool.run(print, workers=workers)  # type: ignore[arg-type]

    tiny.play(application, 8_000)


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1s", None])
def test_nobody_sleeps_for_what_is_no_time(wrong: Any) -> None:
    with pytest.raises(MisuseError, match=f"sleep_ms = {wrong!r}"):
        sleep_ms(wrong)


def test_metadata_of_an_acknowledgement_is_checked_too(tiny: TinyWorld) -> None:
    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(acknowledge=Acknowledge.EACH)) as consumer:
            message = next(consumer.messages())
            with pytest.raises(MisuseError, match="half a character"):
                message.ack(HALF)
            message.ack("whole")
            consumer.commit_offsets()
            assert consumer.committed("t", 0) == (1, "whole")

    tiny.produce(0, 1)
    tiny.play(application, 4_000)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, _: s.mark_partition_offset("t", 0, 2**63 - 1), "offset = 92233720368547758"),
        (lambda s, _: s.mark_partition_offset("t", 0, -1), "offset = -1"),
        (lambda s, _: s.mark_partition_offset("t", 0.5, 1), "partition = 0.5"),
        (lambda s, _: s.mark_partition_offset("t", 0, 1, HALF), "half a character"),
        (lambda s, message: s.mark_offset(message, HALF), "half a character"),
        (lambda s, _: s.mark_offset(None), "message = None"),
    ],
)
def test_a_stash_takes_nothing_that_could_not_be_marked(call: Call, words: str) -> None:
    stash, message = OffsetStash(), Message("t", 0, 1, Record(3, 0, None, None, ()))
    with pytest.raises(MisuseError, match=words):
        call(stash, message)
    assert stash.offsets() == {}


def test_numbers_of_other_libraries_are_numbers(tiny: TinyWorld) -> None:
    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            next(consumer.messages())
            consumer.mark_partition_offset("t", 0, Seven())  # type: ignore[arg-type]
            consumer.commit_offsets()
            assert type(consumer.committed("t", 0).offset) is int  # type: ignore[union-attr]

    tiny.produce(0, 8)
    tiny.play(application, 4_000)
    assert committed(tiny, TP0) == 8


def test_an_error_shows_the_beginning_of_a_long_value() -> None:
    for found, told in (("x" * 300, f"'{'x' * 199}... = "), (10**5_000, "int that is too long")):
        with pytest.raises(MisuseError) as caught:
            checked.whole("offset", found, 0, checked.LAST_OFFSET)
        assert told.split(" =")[0] in str(caught.value)
        assert len(str(caught.value)) < 300
