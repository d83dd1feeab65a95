"""The thread of the user's store: in order, ended in time, and never in the way of an exit."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from ksim.core import events as e
from ksim.real import store_thread
from ksim.real.store_thread import StoreThread

HANGS = """
import threading
from ksim.real import store_thread
store_thread.PATIENCE_S = 0.1
started, hanging = threading.Event(), threading.Event()
store = store_thread.StoreThread(lambda fact: None)
store.call(lambda: started.set() or hanging.wait())
started.wait()
print(store.end())
"""


def test_calls_come_one_after_the_other_and_their_facts_are_posted() -> None:
    posted: list[e.MemberFact] = []
    done = threading.Event()
    store = StoreThread(lambda fact: done.set() if fact == ends else posted.append(fact))
    facts = [e.CommitRequested(ticket) for ticket in range(20)]
    ends = e.CommitRequested(-1)
    for fact in [*facts, ends]:
        store.call(lambda fact=fact: fact)  # type: ignore[misc]
    assert done.wait(10)
    assert store.end()
    assert posted == facts


def test_what_waits_is_not_called_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_thread, "PATIENCE_S", 0.05)
    posted: list[e.MemberFact] = []
    started, let_go = threading.Event(), threading.Event()
    store = StoreThread(posted.append)
    first, second = e.CommitRequested(1), e.CommitRequested(2)

    def slow() -> e.MemberFact:
        started.set()
        let_go.wait()
        return first

    store.call(slow)
    store.call(lambda: second)
    assert started.wait(10)
    assert not store.end()
    let_go.set()
    store._thread.join(10)
    assert posted == [first]


def test_a_store_that_hangs_does_not_keep_the_process() -> None:
    command = [sys.executable, "-c", HANGS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
    assert "is left" in done.stderr
