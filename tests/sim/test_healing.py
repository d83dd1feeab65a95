"""After the safety phase everything is healed, or only a core that has to work alone."""

from __future__ import annotations

import pytest

from ksim import observations as o
from ksim.scenario import ScenarioError, load, parse
from ksim.sim.healing import Healing
from ksim.sim.runner import Run, run
from tests.library.files import SCENARIOS
from tests.sim.test_runner import BASE, Watch

PATH = SCENARIOS / "healing-of-a-core.scenario.toml"


def healed(text: str, seed: int = 1) -> tuple[Watch, o.Healed]:
    watch = Watch()
    result = run(parse(text, "test"), seed, watches=[watch.see])
    assert result.verdict == "pass", result.violations
    (fact,) = watch.facts(o.Healed)
    return watch, fact


def test_without_a_core_all_that_run_must_work() -> None:
    _, fact = healed(BASE)
    assert fact == o.Healed(("g-1", "g-2"))


def test_a_core_takes_over_from_those_that_are_left_out() -> None:
    watch, fact = healed(PATH.read_text())
    assert (fact.members, fact.apart) == (("g-1", "g-4"), ("g-2", "g-3"))
    (at_ms,) = [now for _, now, found, _ in watch.steps if found is fact]
    late = [
        found
        for _, now_ms, found, _ in watch.steps
        if isinstance(found, o.Handled) and now_ms > at_ms + 7_000
    ]
    assert {found.member for found in late} <= {"g-1", "g-4"}
    crashes = [found.target for found in watch.facts(o.FaultStruck) if found.name == "crash"]
    assert {"broker-1", "broker-3"} <= set(crashes)


def test_what_is_outside_is_not_undone_later() -> None:
    text = PATH.read_text().replace('target = "g-2"', 'target = "g-2"\nfor = "14s"')
    watch, _ = healed(text)
    lives = [(fact.member, fact.what) for fact in watch.facts(o.MemberLife)]
    assert ("g-2", "paused") in lives
    assert ("g-2", "resumed") not in lives


def test_who_starts_outside_of_the_core_after_healing_is_asked_nothing() -> None:
    text = PATH.read_text().replace("members = 4", 'members = 4\nstart_every = "7s"')
    watch, fact = healed(text.replace('"g-1", "g-4"]', '"g-1", "g-2"]'))
    assert fact.apart == ("g-3", "g-4")
    late = [now_ms for source, now_ms, _, _ in watch.steps if source == "g-4"]
    assert late[0] == 21_000


def test_links_outside_of_the_core_stay_cut() -> None:
    made = Run(load(PATH), 3)
    made.go()
    network = made.cluster.network
    assert network.link("g-3", "broker-2").cut
    assert not network.link("g-1", "broker-2").cut
    assert made.cluster.state.alive == [2]
    assert not Healing(made.scenario, made.cluster, made.members, made.observe).is_core("g-3")


@pytest.mark.parametrize(
    ("core", "words"),
    [
        ('["g-1"]', "core = ['g-1']: has not a broker; valid: broker-1, broker-2, broker-3"),
        ('["broker-1"]', "has not a member of g; valid: g-1, g-2, g-3, g-4"),
        ('["broker-1", "g-5"]', "core = 'g-5': no such broker or member; nearest:"),
    ],
)
def test_a_core_that_could_not_work(core: str, words: str) -> None:
    text = PATH.read_text().replace('["broker-2", "g-1", "g-4"]', core)
    with pytest.raises(ScenarioError) as caught:
        parse(text, "here.toml")
    assert words in str(caught.value)


def test_what_a_stopped_process_was_told_is_done_before_it_is_healed() -> None:
    """It would pause its partitions when it goes on, and nobody would resume them."""
    steps = "".join(
        f'[[step]]\nat = "{at}"\ndo = "{do}"\ntarget = "g-1"\n'
        for at, do in (("15s", "pause"), ("16s", "pause_partitions"))
    )
    watch, _ = healed(BASE + steps)
    assert [fact.paused for fact in watch.facts(o.PartitionsPaused)][-1] is False
