"""What DescribeConfigs tells, of brokers and of topics."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.broker.settings import BROKER_KEYS, COORDINATOR_KEYS, TOPIC_KEYS, Source
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.errors import KafkaError
from tests.broker.served_broker import Brokers

BROKER, TOPIC = 4, 2


def described(brokers: Brokers, kind: int, name: str, keys: Any = None, **rest: bool) -> Any:
    resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
    data = {"resources": [resource], "include_synonyms": False, **rest}
    (found,) = brokers.ask("DescribeConfigs", data).answer["results"]
    return found


def test_a_broker_tells_every_setting_and_which_is_not_kafkas() -> None:
    coordinator = CoordinatorConfig(group_max_size=7, offsets_retention_ms=120_000)
    found = described(Brokers(coordinator=coordinator, auto_create_topics=True), BROKER, "1")
    entries = {each["name"]: each for each in found["configs"]}
    assert entries.keys() == COORDINATOR_KEYS.keys() | BROKER_KEYS.keys()
    changed = {
        "group.max.size": "7",
        "offsets.retention.minutes": "2",
        "auto.create.topics.enable": "true",
    }
    for name, each in entries.items():
        assert each["is_default"] == (name not in changed), name
        assert each["config_source"] == (
            Source.STATIC_BROKER if name in changed else Source.DEFAULT
        )
    assert {name: entries[name]["value"] for name in changed} == changed


def test_only_what_is_asked_for_and_known_is_told() -> None:
    found = described(Brokers(), BROKER, "1", ["group.max.size", "nonsense"], include_synonyms=True)
    (entry,) = found["configs"]
    assert entry["name"] == "group.max.size"
    assert [each["value"] for each in entry["synonyms"]] == [entry["value"]]


def test_a_topic_has_what_its_broker_says() -> None:
    found = described(Brokers(log_retention_bytes=9), TOPIC, "t")
    values = {each["name"]: each["value"] for each in found["configs"]}
    assert values.keys() == TOPIC_KEYS.keys()
    assert (values["retention.bytes"], values["cleanup.policy"]) == ("9", "delete")


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (BROKER, "2", KafkaError.INVALID_REQUEST),
        (BROKER, "", KafkaError.NONE),
        (TOPIC, "u", KafkaError.UNKNOWN_TOPIC_OR_PARTITION),
        (8, "1", KafkaError.INVALID_REQUEST),
    ],
)
def test_what_a_broker_cannot_tell(kind: int, name: str, error: int) -> None:
    found = described(Brokers(), kind, name)
    assert (found["error_code"], found["configs"]) == (error, [])
