"""Patterns, user data and several assignors, as the group sees them."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.consumer.config import Config, Strategy
from ksim.consumer.consumer import Consumer
from ksim.consumer.pool import WorkerPool
from ksim.core.errors import ConfigError
from ksim.core.subscription import decode_subscription
from ksim.sim.driver import SimDriver
from tests.consumer.worlds import TinyWorld

BOTH = (Strategy.RANGE, Strategy.ROUND_ROBIN)


def the_group(tiny: TinyWorld) -> Any:
    (found,) = [
        group
        for node in tiny.cluster.nodes.values()
        for host in node.hosts.values()
        for group in host.session.machine.state.groups.values()  # type: ignore[attr-defined]
    ]
    return found


def member(tiny: TinyWorld, name: str, **options: Any) -> list[Consumer]:
    """Start one that reads until the world ends."""
    made: list[Consumer] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(**options))
        made.append(consumer)
        for _message in consumer:
            pass

    tiny.start(application, name)
    return made


def test_topics_appear_grow_and_vanish_under_a_pattern(tiny: TinyWorld) -> None:
    pattern = {"topics": (), "topics_whitelist": "^t", "topics_blacklist": "-dead$"}
    made = member(tiny, "m", metadata_max_age_ms=1_000, **pattern)
    tiny.run(3_000)
    assert made[0].subscriptions() == {"t": [0, 1]}
    tiny.cluster.state.create_topic("t-new", 1)
    tiny.cluster.state.create_topic("t-dead", 1)
    tiny.cluster.state.create_topic("other", 1)
    tiny.run(3_000)
    assert made[0].subscriptions() == {"t": [0, 1], "t-new": [0]}
    tiny.cluster.state.add_partitions("t-new", 1)
    tiny.run(3_000)
    assert made[0].subscriptions() == {"t": [0, 1], "t-new": [0, 1]}
    tiny.cluster.state.delete_topic("t-new")
    tiny.run(3_000)
    assert not tiny.failures
    assert made[0].subscriptions() == {"t": [0, 1]}


def test_a_group_at_rest_is_not_disturbed_by_its_metadata(tiny: TinyWorld) -> None:
    member(tiny, "a", topics=(), topics_whitelist="^t", metadata_max_age_ms=500)
    member(tiny, "b", topics=("t",), metadata_max_age_ms=500)
    tiny.run(4_000)
    before = the_group(tiny).generation_id
    tiny.run(20_000)
    assert the_group(tiny).generation_id == before


def test_user_data_can_be_read_by_the_group(tiny: TinyWorld) -> None:
    member(tiny, "m", user_data=b"rack 7")
    tiny.run(2_000)
    (joined,) = the_group(tiny).members.values()
    ((_, metadata),) = joined.protocols
    assert decode_subscription("m", None, metadata).user_data == b"rack 7"


def test_the_assignor_that_all_offer_is_taken(tiny: TinyWorld) -> None:
    member(tiny, "a", partition_strategy=BOTH)
    tiny.run(2_000)
    assert the_group(tiny).protocol_name == "range"
    member(tiny, "b", partition_strategy=Strategy.ROUND_ROBIN)
    tiny.run(4_000)
    group = the_group(tiny)
    assert (group.protocol_name, len(group.members)) == ("roundrobin", 2)


def test_mixed_subscriptions_get_what_they_asked_for(tiny: TinyWorld) -> None:
    tiny.cluster.state.create_topic("u", 2)
    wide = member(tiny, "a", topics=("t", "u"))
    narrow = member(tiny, "b", topics=("t",))
    tiny.run(4_000)
    assert wide[0].subscriptions() == {"t": [0], "u": [0, 1]}
    assert narrow[0].subscriptions() == {"t": [1]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topics_whitelist": "("}, "topics_whitelist = '\\('"),
        ({"topics_blacklist": "["}, "topics_blacklist = '\\['"),
        ({"partition_strategy": ()}, "at most once"),
        ({"partition_strategy": (Strategy.RANGE, Strategy.RANGE)}, "at most once"),
        ({"max_in_flight": 0}, "max_in_flight = 0"),
    ],
)
def test_what_has_no_meaning_is_refused(
    tiny: TinyWorld, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny.config(**options)


def test_several_assignors_in_a_mapping() -> None:
    common = {"group.id": "g", "topics": "t"}
    text = Config.from_mapping({**common, "partition.assignment.strategy": "roundrobin, range"})
    listed = Config.from_mapping({**common, "partition_strategy": ["roundrobin", "range"]})
    assert text.strategies == listed.strategies == BOTH[::-1]
    with pytest.raises(ConfigError, match="'range,sticky': range, roundrobin"):
        Config.from_mapping({**common, "partition_strategy": "range,sticky"})


def test_a_pool_takes_no_more_than_it_has_workers_for(tiny: TinyWorld) -> None:
    takes: list[bool] = []

    def application(driver: SimDriver) -> None:
        pool = WorkerPool(driver, lambda _: driver.sleep_us(1_000_000), 1)
        takes.append(pool.takes)
        consumer = Consumer(tiny.config(acknowledge="each"))
        pool.put(next(consumer.messages()))
        takes.append(pool.takes)
        assert pool.end(driver.now_ms() + 5_000)
        takes.append(pool.takes)

    tiny.produce(0, 1)
    tiny.play(application, 10_000)
    assert takes == [True, False, True]
