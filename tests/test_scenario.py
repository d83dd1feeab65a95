"""Scenario files: what is written loads again, and each mistake is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksim.broker.faults import FaultAction
from ksim.core.errors import ConfigError
from ksim.scenario import (
    REQUESTS,
    CallbackSpec,
    ClusterSpec,
    EventSpec,
    FaultSpec,
    GroupSpec,
    HandlerFailure,
    MemberSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
    VarySpec,
    dump,
    load,
    parse,
)
from ksim.texts import duration_text, parse_duration

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").rglob("*.toml"))
MS = st.integers(0, 10_000_000)
RANGES = st.tuples(MS, MS).map(lambda ends: (min(ends), max(ends)))
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


CALLBACKS = st.builds(
    CallbackSpec,
    sleep_ms=MS,
    commit=st.booleans(),
    seek_back=st.integers(0, 9),
    raises=st.booleans(),
)
MEMBERS = st.builds(
    MemberSpec,
    number=st.integers(1, 4),
    handler_cost_ms=st.none() | RANGES,
    instance_id=st.none() | NAMES,
    on_lost=st.none() | CALLBACKS,
)
VARIED = (
    VarySpec("until", text="5s..15s"),
    VarySpec("fault.0.on.nth", text="each"),
    VarySpec("group.0.members", (4, 5)),
    VarySpec("group.0.on_lost", ({"sleep": "5s"}, {"raise": True})),
    VarySpec("cluster.loss", (0.5, 0.25)),
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    topics = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True).map(sorted))
    ids = draw(st.lists(st.sampled_from(["g", "h", "audit"]), min_size=1, max_size=2, unique=True))
    groups = tuple(
        GroupSpec(
            id=name,
            topics=tuple(draw(st.lists(st.sampled_from(topics), min_size=1, unique=True))),
            members=draw(st.integers(1, 4)),
            assignor=draw(st.sampled_from(["range", "roundrobin"])),
            session_timeout_ms=draw(st.integers(2, 100_000)),
            heartbeat_interval_ms=1,
            rebalance_timeout_ms=draw(st.none() | st.integers(2, 100_000)),
            dwell_time_ms=draw(st.none() | MS),
            handler_cost_ms=draw(RANGES),
            start_every_ms=draw(MS),
            instance_ids=draw(st.booleans()),
            assignors=draw(st.sampled_from([(), ("roundrobin",), ("range", "roundrobin")])),
            topics_whitelist=draw(st.sampled_from([None, "^orders$", "a|b\\d"])),
            handler_fails=draw(st.none() | st.builds(HandlerFailure, st.integers(1, 9))),
            on_revoked=draw(st.none() | CALLBACKS),
            overrides=tuple(draw(st.lists(MEMBERS, max_size=2))),
        )
        for name in ids
    )
    members = [group.member(n) for group in groups for n in range(1, group.members + 1)]
    step = st.builds(
        StepSpec,
        at_ms=MS,
        do=st.sampled_from(["crash", "stop", "pause", "partition"]),
        target=st.sampled_from(members),
        peer=st.sampled_from([None, "coordinator", "broker-1"]),
        for_ms=st.none() | MS,
    )
    fault = st.builds(
        FaultSpec,
        direction=st.sampled_from(["request", "response"]),
        kind=st.sampled_from(REQUESTS),
        member=st.none() | st.sampled_from(members),
        nth=st.integers(0, 9),
        lasts_ms=st.none() | MS,
        do=st.sampled_from([a.value for a in FaultAction if a != FaultAction.ERROR]),
        for_ms=MS,
        keep=st.booleans(),
    )
    produce = st.builds(
        ProduceSpec,
        topic=st.sampled_from(topics),
        per_second=st.integers(1, 9),
        count=st.integers(1, 9),
        start_ms=MS,
    )
    late = FaultSpec(
        "response", "Fetch", None, 1, "late", until=EventSpec("request", "Fetch", None, 2)
    )
    at_event = StepSpec(None, "seek", members[0], on=late.until, after_ms=draw(MS), offset=3)
    return Scenario(
        name=draw(NAMES),
        until_ms=draw(MS),
        cluster=ClusterSpec(draw(st.integers(1, 5)), draw(MS), draw(RANGES), 0.25),
        topics=tuple(TopicSpec(name, draw(st.integers(1, 9))) for name in topics),
        groups=groups,
        produce=tuple(draw(st.lists(produce, max_size=2))),
        steps=(*draw(st.lists(step, max_size=3)), at_event),
        faults=(*draw(st.lists(fault, max_size=3)), late),
        vary=draw(st.lists(st.sampled_from(VARIED), unique_by=str).map(tuple)),
    )


@given(scenario=scenarios())
def test_what_is_written_loads_as_the_same_value(scenario: Scenario) -> None:
    assert parse(dump(scenario), "dumped") == scenario


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name[:20])
def test_the_files_load_and_say_why_they_are_there(path: Path) -> None:
    scenario = load(path)
    assert parse(dump(scenario), "dumped") == scenario
    assert path.read_text().startswith("# ")


@given(ms=MS)
def test_durations_are_read_as_they_are_written(ms: int) -> None:
    assert parse_duration(duration_text(ms)) == ms


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "1.5s", "5S", "5d", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


GOOD = """
name = "x"
until = "1m"
[topics.orders]
partitions = 6
[[group]]
id = "g"
topics = ["orders"]
members = 3
[[produce]]
topic = "orders"
per_second = 1
count = 1
[[step]]
at = "20s"
do = "crash"
target = "g-2"
[[fault]]
on = { request = "SyncGroup", member = "g-1", nth = 2 }
do = "drop"
"""


# What of GOOD is changed, into what, and what the error then says.
MISTAKES = {
    'name = "x"': [
        ('nome = "x"', "name is missing"),
        ("name = x", "not TOML"),
        ("name = " + "[" * 5_000 + "]" * 5_000, "nested too deeply to be read"),
    ],
    'until = "1m"': [
        ('until = "1m"\nfrom = 1', "from = 1: unknown key"),
    ],
    "partitions = 6": [
        ("partitions = 6\npartition = 1", "nearest: 'partitions'"),
        ("partitions = true", "topics.orders.partitions = True: must be a whole"),
    ],
    "members = 3": [
        ("members = 0", "group[0].members = 0: must be a whole number, 1 to 1000"),
        ('assignor = "rang"', "group[0].assignor = 'rang': nearest: 'range'"),
        ('handler_cost = "5s..1s"', "group[0].handler_cost = '5s..1s': must be"),
        ('heartbeat_interval = "60s"', "must be below session_timeout = 30s"),
        ("members = 3\nworkers = 2", 'workers = 2: needs acknowledge = "each"'),
        ("members = 3\non_lost = { slep = 1 }", "on_lost.slep = 1: unknown key; nearest"),
    ],
    'topics = ["orders"]': [
        ('topics = "orders"', "group[0].topics = 'orders': must be a list"),
        ('topics = ["order"]', "no such topic; nearest: 'orders'"),
        ("", "group[0]: needs topics, or a topics_whitelist"),
        ('topics_whitelist = "(a"', "topics_whitelist = '(a': is no pattern"),
        (
            f'topics_whitelist = "a{{{"9" * 20}}}"',
            "is no pattern: the repetition number is too large",
        ),
        (f'topics_whitelist = "{"(" * 5_000}"', "...: is no pattern: "),
    ],
    'topic = "orders"': [
        ('topic = "x"', "produce[0].topic = 'x': no such topic"),
    ],
    'at = "20s"': [
        ("at = 20", "step[0].at = 20: must be a duration with its unit"),
        ('at = "20s"\non = { request = "Fetch" }', "needs either at = TIME or on"),
    ],
    'target = "g-2"': [
        ('target = "g-4"', "step[0].target = 'g-4': no such member"),
        ('target = "g-2"\npeer = "x"', "step[0].peer = 'x': no such peer"),
    ],
    '"SyncGroup"': [
        ('"SyncGrup"', "fault[0].on.request = 'SyncGrup': nearest: 'SyncGroup'"),
    ],
    '"g-1"': [
        ('"h-1"', "fault[0].on.member = 'h-1': no such member; nearest: 'g-1'"),
    ],
    'do = "drop"': [
        ('do = "error"\nerror = "NOT_COORD"', "nearest: 'NOT_COORDINATOR'"),
        ('do = "error"', "needs error = NAME"),
        ('do = "drop"\nerror = "NOT_COORDINATOR"', "only an error, or an answer that is"),
        ('do = "drop"\nuntil = { request = "Fetch" }', "held until an event"),
        ('do = "drop"\nkeep = 1', "fault[0].keep = 1: must be true or false"),
    ],
    'do = "crash"': [
        (
            f'do = "seek"\noffset = {1 << 63}',
            f"step[0].offset = {1 << 63}: must be a whole number, 0 to {(1 << 63) - 1}",
        ),
        (
            f'do = "pause"\nfor = "{1 << 63}ms"',
            f"step[0].for = '{1 << 63}ms': is too long; valid: 0ms to {(1 << 63) - 1}ms",
        ),
        ('do = "seek"', "step[0].offset is missing: seek needs it"),
        ('do = "truncate"', "step[0].target = 'g-2': no such topic"),
    ],
}


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [(was, *mistake) for was, mistakes in MISTAKES.items() for mistake in mistakes],
)
def test_a_mistake_is_one_line_with_its_path(was: str, becomes: str, words: str) -> None:
    assert was in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(was, becomes, 1), "here.toml")
    message = str(caught.value)
    assert message.startswith("here.toml: ")
    assert words in message
    assert "\n" not in message


def test_a_step_may_start_the_next_member() -> None:
    text = GOOD.replace('do = "crash"\ntarget = "g-2"', 'do = "start"\ntarget = "g-4"')
    assert parse(text, "x").steps[0].target == "g-4"


def test_the_last_offset_and_the_longest_time_are_read() -> None:
    last = (1 << 63) - 1
    text = GOOD.replace('do = "crash"', f'do = "seek"\noffset = {last}\nfor = "{last}ms"')
    step = parse(text, "x").steps[0]
    assert (step.offset, step.for_ms) == (last, last)


def test_a_range_of_times_is_refused_by_its_longest_one() -> None:
    text = GOOD + f'[cluster]\nlatency = "1ms..{1 << 63}ms"\n'
    with pytest.raises(ConfigError, match=r"cluster\.latency = .*: is too long; valid: 0ms to "):
        parse(text, "x")


@pytest.mark.parametrize(
    ("own", "is_refused"),
    [(["1", "2"], False), (["1"], True), (["1", "2", "start"], True), (["1", "2", "3"], False)],
)
def test_each_member_may_have_topics_of_its_own_and_needs_some(
    own: list[str], is_refused: bool
) -> None:
    tables = {
        "1": 'number = 1\ntopics = ["orders"]',
        "2": 'number = 2\ntopics_whitelist = "or.*"',
        "3": 'number = 3\ntopics = ["orders"]',
    }
    text = GOOD.replace('topics = ["orders"]\n', "").replace("members = 3", "members = 2")
    text += "".join(f"\n[[group.member]]\n{tables[n]}\n" for n in own if n in tables)
    if len(own) == 3:
        text += '\n[[step]]\nat = "1s"\ndo = "start"\ntarget = "g-3"\n'
    if is_refused:
        with pytest.raises(ConfigError, match=r"group\[0\]: needs topics, or a topics_whitelist"):
            parse(text, "own")
    else:
        group = parse(text, "own").groups[0]
        assert group.of("g-1").topics == ("orders",)
        assert group.of("g-2").topics == ()
