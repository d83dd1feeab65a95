"""What a test asks of a real cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ksim.core.errors import KsimError
from ksim.real import tools
from ksim.real.tools import Producing, make_topic, remove_group, remove_topics
from tests.kafka_server import KafkaServer


@pytest.mark.kafka
def test_a_topic_is_made_anew_and_filled_round_and_round(
    kafka: KafkaServer, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("topic")
    ends: list[tuple[str, int, int]] = []
    for _ in range(2):
        make_topic(kafka.bootstrap, topic, 2)
        ends.clear()
        producing = Producing(
            kafka.bootstrap,
            topic,
            2,
            5,
            1_000,
            lambda number: (None, str(number).encode()),
            lambda *end: ends.append(end),
        )
        producing.run()
        assert producing.failure is None
        assert {(topic, 0, 3), (topic, 1, 2)} <= set(ends)
    remove_topics(kafka.bootstrap, [topic])


@pytest.mark.kafka
def test_a_group_that_never_was_is_gone(
    kafka: KafkaServer, fresh_name: Callable[[str], str]
) -> None:
    remove_group(kafka.bootstrap, fresh_name("group"))


def test_who_waits_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "WAIT_S", 0.0)
    with pytest.raises(KsimError, match="the broker never had what was asked"):
        tools._until(lambda: False, "what was asked")
