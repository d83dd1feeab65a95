"""The driver: threads, order of facts, failures; and the same with a real broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ksim.consumer.config import Config
from ksim.consumer.port import Driver
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import NoBrokerError
from ksim.core.values import Payload
from ksim.real.driver import OWNER_NAME, RealDriver

WAIT_MS = 10_000
CLOSED_SERVER = "127.0.0.1:1"


class Engine:
    """Writes down what is fed, under the lock, and does what it is told on a fact."""

    def __init__(self, driver: RealDriver) -> None:
        self.driver = driver
        self.deadline_ms: int | None = None
        self.facts: list[e.MemberFact] = []
        self.threads: set[str] = set()
        self.on_fact: Callable[[e.MemberFact], None] = lambda _: None

    def feed(self, fact: e.MemberFact, payload: Payload | None = None) -> None:
        with self.driver.lock:
            assert payload is None or isinstance(fact, e.ResponseReceived)
            self.threads.add(threading.current_thread().name)
            if isinstance(fact, e.TimerFired):
                self.deadline_ms = None
            self.facts.append(fact)
            self.on_fact(fact)
            self.driver.notify()

    def until(self, count: int) -> list[e.MemberFact]:
        """Wait until so many facts were fed."""
        until_ms = self.driver.now_ms() + WAIT_MS
        with self.driver.lock:
            while len(self.facts) < count:
                assert self.driver.now_ms() < until_ms, self.facts
                self.driver.wait(until_ms)
            return list(self.facts)


def config(*servers: str) -> Config:
    return Config(bootstrap_servers=servers, group_id="g", topics=("t",), bootstrap_timeout_ms=200)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver that needs no broker to open."""
    made = RealDriver(config(CLOSED_SERVER))
    monkeypatch.setattr(made._transport, "bootstrap", lambda _: None)
    yield made
    made.shut()


def test_it_is_a_driver(driver: RealDriver) -> None:
    typed: Driver = driver
    assert typed.now_ms() > 0


def test_open_without_a_broker_raises_and_starts_nothing() -> None:
    driver = RealDriver(config(CLOSED_SERVER))
    with pytest.raises(NoBrokerError, match="within 200 ms"):
        driver.open(Engine(driver))
    assert OWNER_NAME not in {thread.name for thread in threading.enumerate()}
    driver.shut()


def test_facts_are_fed_in_order_by_the_owner_alone(driver: RealDriver) -> None:
    engine = Engine(driver)
    posted: list[e.MemberFact] = [e.CommitRequested(ticket) for ticket in range(50)]
    driver.open(engine)
    for fact in posted:
        driver.post(fact)
    assert engine.until(50) == posted
    assert engine.threads == {OWNER_NAME}


def test_the_timer_comes_before_what_was_queued(driver: RealDriver) -> None:
    engine = Engine(driver)
    engine.deadline_ms = driver.now_ms() - 1
    driver.post(e.Started())
    driver.open(engine)
    assert engine.until(2) == [e.TimerFired(), e.Started()]


def test_the_timer_fires_at_its_deadline(driver: RealDriver) -> None:
    engine = Engine(driver)
    deadline_ms = engine.deadline_ms = driver.now_ms() + 50
    driver.open(engine)
    assert engine.until(1) == [e.TimerFired()]
    assert driver.now_ms() >= deadline_ms


def test_an_order_has_one_result_and_the_timer_precedes_it(driver: RealDriver) -> None:
    engine = Engine(driver)

    def send(fact: e.MemberFact) -> None:
        if isinstance(fact, e.Started):
            request = m.HeartbeatRequest("g", 1, "m", None)
            driver.send(e.SendRequest(7, 3, "group", request, 1_000))
            engine.deadline_ms = driver.now_ms()

    engine.on_fact = send
    driver.open(engine)
    driver.post(e.Started())
    expected = [e.Started(), e.TimerFired(), e.RequestFailed(7, "unknown node 3")]
    assert engine.until(3) == expected


def test_failure_of_the_owner_is_raised_to_who_waits(driver: RealDriver) -> None:
    engine = Engine(driver)

    def fail(_fact: e.MemberFact) -> None:
        raise RuntimeError("engine broke")

    engine.on_fact = fail
    driver.open(engine)
    driver.post(e.Started())
    with driver.lock, pytest.raises(RuntimeError, match="engine broke"):
        driver.wait(driver.now_ms() + WAIT_MS)
    assert isinstance(driver.failure, RuntimeError)


def test_wait_ends_at_its_time(driver: RealDriver) -> None:
    until_ms = driver.now_ms() + 30
    with driver.lock:
        driver.wait(until_ms)
    assert driver.now_ms() >= until_ms


def test_shut_from_the_owner_feeds_nothing_more(driver: RealDriver) -> None:
    engine = Engine(driver)
    engine.on_fact = lambda _: driver.shut()
    driver.post(e.Started())
    driver.post(e.CommitRequested(1))
    driver.open(engine)
    assert engine.until(1) == [e.Started()]
    driver.shut()
    driver.post(e.CommitRequested(2))
    assert engine.facts == [e.Started()]


def test_shut_while_holding_the_lock_does_not_block(driver: RealDriver) -> None:
    engine = Engine(driver)
    driver.open(engine)
    with driver.lock:
        driver.post(e.Started())
        driver.shut()
    assert OWNER_NAME not in {thread.name for thread in threading.enumerate()}


@pytest.mark.kafka
def test_a_real_broker_answers_through_the_driver(kafka: Any) -> None:
    driver = RealDriver(config(kafka.bootstrap))
    engine = Engine(driver)

    def send(fact: e.MemberFact) -> None:
        if isinstance(fact, e.Started):
            driver.send(e.SendRequest(0, e.ANY_NODE, "meta", m.MetadataRequest(()), 5_000))

    engine.on_fact = send
    driver.open(engine)
    driver.post(e.Started())
    answer = engine.until(2)[1]
    driver.shut()
    assert isinstance(answer, e.ResponseReceived)
    assert isinstance(answer.response, m.MetadataResponse)
    assert answer.response.brokers
