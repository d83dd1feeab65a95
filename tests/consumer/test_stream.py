"""What the engine keeps of one tenure."""

from __future__ import annotations

from ksim.consumer.message import ConsumerError
from ksim.consumer.stream import KEPT_LIMITS, QUEUE_LIMIT, Stream
from ksim.core.errors import RefusedError
from ksim.core.values import TopicPartition


def test_a_partition_that_nobody_asks_for_errors_keeps_the_newest() -> None:
    stream = Stream(TopicPartition("t", 0), 1)
    for number in range(QUEUE_LIMIT + 5):
        stream.errors.append(ConsumerError("refused", RefusedError(number)))
    assert [error.error_code for error in stream.errors] == list(range(5, QUEUE_LIMIT + 5))


def test_a_word_counts_for_the_record_that_was_handed_out() -> None:
    stream = Stream(TopicPartition("t", 0), 1)
    stream.cut(5)
    assert stream.takes(1, 0, 4)
    assert not stream.takes(1, 0, 5)
    assert stream.takes(1, 1, 5)
    stream.start_anew(9, -1)
    assert stream.takes(1, 1, 8)
    assert not stream.takes(1, 0, 8), "it was cut off before the seek"
    assert not stream.takes(2, 2, 1)


def test_what_is_kept_of_seeks_and_truncations_is_bounded() -> None:
    stream = Stream(TopicPartition("t", 0), 1)
    for offset in range(5, 500):
        stream.start_anew(offset, -1)
    assert len(stream.limits) <= KEPT_LIMITS
    assert stream.takes(1, 0, 4)
    assert not stream.takes(1, 0, 5)
