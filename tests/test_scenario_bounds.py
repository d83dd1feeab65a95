"""What no run can do is refused before it, with the path and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.cli.main import commands
from ksim.scenario import ScenarioError, parse
from ksim.scenario_check import check_run

GOOD = """
name = "x"
until = "20s"
[topics.orders]
partitions = 2
[[group]]
id = "g"
topics = ["orders"]
[[group.member]]
number = 2
max_poll_interval = "1m"
[[step]]
at = "5s"
do = "start"
target = "g-2"
[[step]]
at = "6s"
"""
CRASH = 'do = "crash"\ntarget = "g-1"\n'
GONE = 'do = "delete_topic"\ntarget = "orders"\n'
SEEK = '[[step]]\nat = "8s"\ndo = "seek"\ntarget = "g-1"\npartition = 0\noffset = 0\n'
TRUNCATE = '[[step]]\nat = "8s"\ndo = "truncate"\ntarget = "orders"\ncount = 1\n'


def refused(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        check_run("here.toml", parse(text, "here.toml"))
    message = str(caught.value)
    assert message.startswith("here.toml: ")
    assert "\n" not in message
    return message.removeprefix("here.toml: ")


def test_what_can_be_run_is_not_refused() -> None:
    check_run("here.toml", parse(GOOD + CRASH, "here.toml"))


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        (
            'max_poll_interval = "1m"',
            'session_timeout = "1s"\nheartbeat_interval = "200ms"',
            "group[0].member[0].session_timeout = '1s': the broker refuses it to g-2; valid: 6s",
        ),
        (
            'topics = ["orders"]',
            'topics = ["orders"]\nheartbeat_interval = "0ms"',
            "group[0].heartbeat_interval = '0ms': g-1 needs 1ms or more",
        ),
        (
            'max_poll_interval = "1m"',
            'commit_interval = "0ms"',
            "group[0].member[0].commit_interval = '0ms': g-2 needs 1ms or more",
        ),
        (
            'topics = ["orders"]',
            'topics = ["orders"]\npoll_timeout = "0ms"',
            "group[0].poll_timeout = '0ms'",
        ),
        (
            'topics = ["orders"]',
            'topics = ["orders"]\npoll_timeout = "2147483648ms"',
            "group[0].poll_timeout = '2147483648ms': nobody may wait so long; 2147483647ms or less",
        ),
        (
            'topics = ["orders"]',
            'topics = ["orders"]\nrebalance_timeout = "99999999h"',
            "group[0].rebalance_timeout = '5999999940m': g-1 needs 2147483647ms or less",
        ),
        (
            'max_poll_interval = "1m"',
            'session_timeout = "99999999h"',
            "group[0].member[0].session_timeout = '5999999940m': the broker refuses it to g-2",
        ),
        (
            "[topics.orders]",
            '[cluster]\noffsets_retention_check_interval = "0ms"\n[topics.orders]',
            "cluster.offsets_retention_check_interval = '0ms'",
        ),
        ("number = 2", "number = 3", "group[0].member[0].number = 3: no such member; valid: 1, 2"),
        ('id = "g"', 'id = "broker"', "group[0].id = 'broker': its members would be called"),
        ('id = "g"', 'id = "broker-1"', "group[0].id = 'broker-1': its members would be called"),
        (
            "[[step]]",
            '[[group]]\nid = "g"\ntopics = ["orders"]\n[[step]]',
            "group[1].id = 'g': there is such a group already",
        ),
    ],
)
def test_members_that_cannot_be(was: str, becomes: str, words: str) -> None:
    text = GOOD + CRASH
    if "broker" in becomes:
        text = text.replace("g-", "broker-")
    assert was in text
    assert refused(text.replace(was, becomes, 1)).startswith(words)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            'do = "truncate"\ntarget = "orders"\npartition = 7\ncount = 2\n',
            "step[1].partition = 7: orders has 2 at most then; valid: 0 to 1",
        ),
        (
            'do = "seek"\ntarget = "g-1"\npartition = 2\noffset = 0\n',
            "step[1].partition = 2: orders has 2 at most then",
        ),
        (GONE + TRUNCATE, "step[2].target = 'orders': there is no topic orders at that time"),
        (
            GONE + 'for = "5s"\n' + TRUNCATE,
            "step[2].target = 'orders': there is no topic orders at that time",
        ),
        (GONE + SEEK, "step[2].partition = 0: there is no topic orders at that time"),
        (
            GONE + SEEK + 'topic = "orders"\n',
            "step[2].topic = 'orders': there is no topic orders at that time",
        ),
    ],
)
def test_partitions_that_are_not_there(last: str, words: str) -> None:
    assert refused(GOOD + last).startswith(words)


@pytest.mark.parametrize(
    "last",
    [
        GONE + 'for = "1s"\n' + TRUNCATE,
        GONE.replace("delete_topic", "add_partitions") + TRUNCATE + "partition = 2\n",
        # Whether this is before or after the truncation, only the run can tell.
        GONE + '[[step]]\non = { request = "Fetch" }' + TRUNCATE.split('"8s"')[1],
    ],
)
def test_partitions_that_may_be_there(last: str) -> None:
    check_run("here.toml", parse(GOOD + last, "here.toml"))


def test_an_event_too_late_for_its_step() -> None:
    text = GOOD.replace('at = "6s"', 'on = { request = "JoinGroup" }\nafter = "60s"') + CRASH
    assert refused(text).startswith("step[1].after = '1m': is not before until = 20s")


@pytest.mark.parametrize("when", ['at = "{}"', 'on = {{ request = "JoinGroup" }}\nafter = "{}"'])
def test_a_step_at_the_very_end_is_never_done(when: str) -> None:
    text = GOOD.replace('at = "6s"', when.format("20s")) + CRASH
    assert refused(text).endswith("= '20s': is not before until = 20s: it would never be done")
    check_run("here.toml", parse(GOOD.replace('at = "6s"', when.format("19999ms")) + CRASH, "x"))


def test_the_command_refuses_it_before_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "zero.scenario.toml"
    path.write_text(GOOD.replace('"orders"]', '"orders"]\ncommit_interval = "0ms"') + CRASH)
    with pytest.raises(ScenarioError, match=r"group\[0\]\.commit_interval = '0ms'"):
        commands.main(["run", str(path)], standalone_mode=False)
