"""Offsets in a store of the user's, stashes, and metadata that the next owner reads."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.consumer.consumer import Client, Consumer
from ksim.consumer.offsets import Committed, OffsetStash, StashedMark, ask_store
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.values import TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.test_consumer import TP0, committed
from tests.consumer.worlds import TinyWorld

FENCED = 22


class FencingStore:
    """Offsets in memory; a fetch takes the claim, and commits of any other claimant are refused."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.claims: dict[TopicPartition, tuple[str, int]] = {}
        self.refused = 0
        self.failures = 0
        self.closed = 0

    def gen_offset_store(self, consumer: Consumer) -> FencingStore:
        del consumer
        return self

    def fetch_offset(self, request: m.OffsetFetchRequest) -> m.OffsetFetchResponse:
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is away")
        found = []
        for tp in request.partitions or ():
            self.claims[tp] = request.member_id, request.generation_id
            offset, metadata = self.offsets.get(tp, (-1, ""))
            found.append(m.CommittedOffset(tp.topic, tp.partition, offset, -1, metadata, 0))
        return m.OffsetFetchResponse(0, tuple(found))

    def commit_offset(self, request: m.OffsetCommitRequest) -> m.OffsetCommitResponse:
        answers = []
        for item in request.offsets:
            tp = TopicPartition(item.topic, item.partition)
            mine = self.claims.get(tp) == (request.member_id, request.generation_id)
            if mine:
                self.offsets[tp] = item.offset, item.metadata
            else:
                self.refused += 1
            answers.append(m.PartitionError(tp.topic, tp.partition, 0 if mine else FENCED))
        return m.OffsetCommitResponse(tuple(answers))

    def close(self) -> None:
        self.closed += 1


class BadlyClosed(FencingStore):
    def close(self) -> None:
        raise OSError("the disk is gone")


def test_a_client_is_free_again_whatever_its_store_does(tiny: TinyWorld) -> None:
    ended: list[str] = []

    def application(_: SimDriver) -> None:
        client = Client(tiny.config())
        for _attempt in range(2):
            try:
                with Consumer.from_client(client, "g", ["t"], offset_store_factory=BadlyClosed()):
                    pass
            except OSError as error:
                ended.append(str(error))

    tiny.start(application)
    tiny.run(4_000)
    assert not tiny.failures
    assert ended == ["the disk is gone"] * 2


def test_a_store_of_ones_own_takes_the_place_of_the_broker(tiny: TinyWorld) -> None:
    store = FencingStore()
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(), offset_store_factory=store) as consumer:
            assert consumer.offset_store is store
            for message in consumer.messages(timeout_ms=1_000):
                seen.append(message.offset)
                consumer.mark_offset(message, f"after {message.offset}")

    tiny.produce(0, 3)
    tiny.start(application)
    tiny.run(4_000)
    tiny.produce(0, 2)
    tiny.start(application, "n")
    tiny.run(4_000)
    assert not tiny.failures
    assert seen == [0, 1, 2, 3, 4]
    assert store.offsets[TP0] == (5, "after 4")
    assert store.closed == 2
    assert committed(tiny, TP0) == -1


class Forgetful(FencingStore):
    """It says nothing of what was never committed."""

    def fetch_offset(self, request: m.OffsetFetchRequest) -> m.OffsetFetchResponse:
        self.asked += 1
        found = super().fetch_offset(request).partitions
        return m.OffsetFetchResponse(0, tuple(each for each in found if each.offset >= 0))

    asked = 0


def test_a_store_that_says_nothing_of_a_partition_is_told_on(tiny: TinyWorld) -> None:
    """Neither is it taken for one that was never read, nor is it asked without end."""
    store = Forgetful()
    told: list[str] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(), offset_store_factory=store) as consumer:
            assert list(consumer.messages(timeout_ms=3_000)) == []
            told.extend(map(str, consumer.errors()))

    tiny.produce(0, 1)
    tiny.start(application)
    tiny.run(6_000)
    assert not tiny.failures
    assert 2 <= store.asked <= 12
    assert told[0] == (
        "offset store: UNKNOWN_SERVER_ERROR (-1): LookupError: fetch_offset says nothing of "
        "t-0, t-1; -1 says that there is none"
    )


class Odd(FencingStore):
    """For a while it answers what is no answer."""

    def __init__(self, fetch: Any = None, commit: Any = None) -> None:
        super().__init__()
        self.fetch, self.commit = fetch, commit
        self.odd = 2

    def fetch_offset(self, request: m.OffsetFetchRequest) -> m.OffsetFetchResponse:
        honest = super().fetch_offset(request)
        return self._or_odd(self.fetch, request, honest)

    def commit_offset(self, request: m.OffsetCommitRequest) -> m.OffsetCommitResponse:
        if self.commit is not None and self.odd:
            return self._or_odd(self.commit, request, None)
        return super().commit_offset(request)

    def _or_odd(self, answer: Any, request: Any, honest: Any) -> Any:
        if answer is None or not self.odd:
            return honest
        self.odd -= 1
        return answer(request)


def at(offset: Any, **more: Any) -> Any:
    """A fetch that finds this offset everywhere."""

    def answer(request: m.OffsetFetchRequest) -> m.OffsetFetchResponse:
        usual: dict[str, Any] = {"leader_epoch": -1, "metadata": "", "error_code": 0, **more}
        return m.OffsetFetchResponse(
            0,
            tuple(
                m.CommittedOffset(*tp, offset=offset, **usual) for tp in request.partitions or ()
            ),
        )

    return answer


def leave(_: object) -> object:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        (lambda _: "nothing", "fetch_offset returned 'nothing': OffsetFetchResponse is needed"),
        (lambda _: m.OffsetCommitResponse(()), "OffsetFetchResponse is needed"),
        (lambda _: m.OffsetFetchResponse(0, None), "partitions = None: a tuple is needed"),  # type: ignore[arg-type]
        (lambda _: m.OffsetFetchResponse(0, (TP0,)), "partitions with TopicPartition"),  # type: ignore[arg-type]
        (at(None), "offset of t-0 = None: a whole number is needed, -1 to 9223372036854775807"),
        (at("5"), "offset of t-0 = '5': a whole number"),
        (at(-5), "offset of t-0 = -5: a whole number"),
        (at(True), "offset of t-0 = True: a whole number"),
        (at(1, metadata=5), "metadata of t-0 = 5: a text"),
        (at(1, error_code="no"), "error_code = 'no': a whole number"),
        (leave, "SystemExit: 3"),
    ],
)
def test_what_is_no_answer_to_a_fetch_is_told_and_asked_again(
    tiny: TinyWorld, fetch: Any, words: str
) -> None:
    store, told, seen = Odd(fetch), list[str](), list[int]()

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(), offset_store_factory=store) as consumer:
            seen.extend(message.offset for message in consumer.messages(timeout_ms=3_000))
            told.extend(map(str, consumer.errors()))

    tiny.produce(0, 2)
    tiny.play(application, 8_000)
    assert seen == [0, 1]
    assert len(told) == 2
    assert all(words in each for each in told)


def test_no_metadata_is_an_empty_text(tiny: TinyWorld) -> None:
    """As Kafka's own null is."""
    store, found = Odd(at(1, metadata=None)), list[Committed | None]()

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(), offset_store_factory=store) as consumer:
            assert next(consumer.messages()).offset == 1
            found.append(consumer.committed("t", 0))

    tiny.produce(0, 2)
    tiny.play(application, 4_000)
    assert found == [Committed(1, "")]


@pytest.mark.parametrize(
    "commit",
    [
        lambda _: None,
        lambda _: m.OffsetCommitResponse(()),
        lambda _: m.OffsetCommitResponse((m.PartitionError("t", 0, None),)),  # type: ignore[arg-type]
        leave,
    ],
)
def test_what_is_no_answer_to_a_commit_is_asked_again(tiny: TinyWorld, commit: Any) -> None:
    store = Odd(commit=commit)

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(), offset_store_factory=store) as consumer:
            consumer.mark_offset(next(consumer.messages()))
            consumer.commit_offsets()
            assert store.offsets[TP0][0] == 1
            assert consumer.errors() == []

    tiny.produce(0, 2)
    tiny.play(application, 8_000)
    assert store.odd == 0


def test_the_end_of_a_store_from_outside_is_no_answer() -> None:
    order = e.SendRequest(1, -1, "store", m.OffsetFetchRequest("g", ()), 1_000)
    with pytest.raises(SystemExit):
        ask_store(Odd(leave), order, (SystemExit,))


def test_a_store_that_raises_is_asked_again(tiny: TinyWorld) -> None:
    store = FencingStore()
    store.failures = 2
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(), offset_store_factory=store)
        seen.extend(message.offset for message in consumer.messages(timeout_ms=3_000))

    tiny.produce(0, 2)
    tiny.play(application, 5_000)
    assert seen == [0, 1]
    assert store.failures == 0


def test_another_claimant_fences_the_one_before(tiny: TinyWorld) -> None:
    store = FencingStore()

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(), offset_store_factory=store)
        for message in consumer:
            consumer.mark_offset(message)

    tiny.produce(0, 2)
    tiny.start(application)
    tiny.run(2_000)
    assert store.offsets[TP0][0] == 2
    store.claims[TP0] = "somebody else", 1
    tiny.produce(0, 1)
    tiny.run(1_000)
    assert store.refused == 1
    assert store.offsets[TP0][0] == 2
    tiny.run(3_000)
    assert not tiny.failures
    assert store.offsets[TP0][0] == 3  # lost, joined again, claimed again, and read again


def test_the_next_owner_reads_the_metadata(tiny: TinyWorld) -> None:
    found: list[Committed | None] = []

    def first(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            for message in consumer.messages(timeout_ms=1_000):
                consumer.mark_offset(message, "sum=7")
            consumer.commit_offsets()
            found.append(consumer.committed("t", 0))

    def second(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        assert list(consumer.messages(timeout_ms=1_000)) == []
        found.extend([consumer.committed("t", 0), consumer.committed("t", 1)])

    tiny.produce(0, 2)
    tiny.start(first)
    tiny.run(4_000)
    tiny.start(second, "n")
    tiny.run(4_000)
    assert not tiny.failures
    assert found == [Committed(2, "sum=7"), Committed(2, "sum=7"), None]


def test_a_stash_is_marked_at_once(tiny: TinyWorld) -> None:
    stash = OffsetStash()

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            for message in consumer.messages(timeout_ms=1_000):
                stash.mark_offset(message)
            stash.mark_partition_offset("t", 0, 0, "lower than what is there")
            assert stash.offsets() == {"t-0": 2}
            consumer.mark_offsets(stash)

    tiny.produce(0, 3)
    tiny.play(application, 4_000)
    assert committed(tiny, TP0) == 3
    assert OffsetStash().offsets() == {}


def test_what_was_handed_out_later_stays_in_a_stash() -> None:
    """A worker of the tenure before that is late takes nothing away."""

    def stashed(tenure: int | None, offset: int) -> StashedMark:
        return StashedMark(offset, tenure, None if tenure is None else 0, "")

    for before, after, replaced in (
        ((1, 100), (2, 50), True),
        ((2, 50), (1, 101), False),
        ((2, 50), (2, 51), True),
        ((2, 50), (2, 49), False),
        ((2, 50), (None, 51), True),
        ((None, 50), (2, 49), False),
    ):
        assert stashed(*after).replaces(stashed(*before)) == replaced
