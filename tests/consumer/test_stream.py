"""What the engine keeps of one tenure."""

from __future__ import annotations

from ksim.consumer.message import ConsumerError
from ksim.consumer.stream import QUEUE_LIMIT, Stream
from ksim.core.errors import RefusedError
from ksim.core.values import TopicPartition


def test_a_partition_that_nobody_asks_for_errors_keeps_the_newest() -> None:
    stream = Stream(TopicPartition("t", 0), 1)
    for number in range(QUEUE_LIMIT + 5):
        stream.errors.append(ConsumerError("refused", RefusedError(number)))
    assert [error.error_code for error in stream.errors] == list(range(5, QUEUE_LIMIT + 5))
