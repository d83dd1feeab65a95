"""Time, streams, gates and links."""

from __future__ import annotations

from ksim.sim.gate import Gate
from ksim.sim.network import Network
from ksim.sim.world import World

A, B = "a", "b"


def draws(seed: int, name: str) -> list[int]:
    stream = World(seed).stream(name)
    return [stream.randrange(1_000) for _ in range(10)]


def test_a_stream_depends_on_the_seed_and_its_name_alone() -> None:
    assert draws(1, "x") == draws(1, "x")
    assert draws(1, "x") != draws(2, "x")
    assert draws(1, "x") != draws(1, "y")
    world = World(1)
    world.stream("y").random()
    assert [world.stream("x").randrange(1_000) for _ in range(10)] == draws(1, "x")


def instant(seed: int) -> list[int]:
    world = World(seed)
    seen: list[int] = []
    for number in range(20):
        world.call_at(5, seen.append, number)
    world.run_until(10)
    return seen


def test_the_order_of_one_instant_is_seeded() -> None:
    assert instant(1) == instant(1)
    assert instant(1) != instant(2)
    assert sorted(instant(1)) == list(range(20))


def test_a_call_that_was_taken_back_does_not_come() -> None:
    world = World(0)
    seen: list[int] = []
    world.call_at(5, seen.append, 1).cancel()
    world.call_at(6, seen.append, 2)
    world.run_until(10)
    assert seen == [2]


def test_a_paused_gate_keeps_the_order_of_each_lane() -> None:
    world = World(0)
    gate = Gate(world, "n")
    seen: list[tuple[str, int]] = []
    gate.pause()
    for number in range(10):
        gate.enter("one", seen.append, ("one", number))
        gate.enter("two", seen.append, ("two", number))
    assert not seen
    gate.resume()
    world.run_until(100)
    assert [n for lane, n in seen if lane == "one"] == list(range(10))
    assert [n for lane, n in seen if lane == "two"] == list(range(10))
    assert [lane for lane, _ in seen] != ["one", "two"] * 10


def test_nothing_passes_a_gate_after_a_crash() -> None:
    world = World(0)
    gate = Gate(world, "n")
    seen: list[int] = []
    gate.pause()
    gate.enter("x", seen.append, 1)
    gate.shut()
    gate.resume()
    gate.enter("x", seen.append, 2)
    world.run_until(100)
    assert not seen


def sent(network: Network, world: World, count: int = 50) -> list[int]:
    seen: list[int] = []
    for number in range(count):
        network.carry(A, B, "c", seen.append, number)
    world.run_until(world.now_us + 1_000_000)
    return seen


def test_a_connection_is_first_in_first_out() -> None:
    world = World(3)
    assert sent(Network(world, (1, 50), 0.0), world) == list(range(50))


def test_loss_loses_some_and_only_some() -> None:
    world = World(3)
    arrived = sent(Network(world, (1, 2), 0.5), world)
    assert 5 < len(arrived) < 45
    assert arrived == sorted(arrived)


def test_a_partition_loses_until_it_is_healed() -> None:
    world = World(0)
    network = Network(world, (1, 2), 0.0)
    network.partition(A, B)
    assert sent(network, world) == []
    network.heal(A, B)
    assert len(sent(network, world)) == 50


def test_what_is_held_comes_in_order_when_it_is_released() -> None:
    world = World(0)
    network = Network(world, (1, 9), 0.0)
    seen: list[int] = []
    network.hold(A, B)
    for number in range(10):
        network.carry(A, B, "c", seen.append, number)
    world.run_until(1_000_000)
    assert not seen
    network.heal_all(lambda _: True)
    world.run_until(2_000_000)
    assert seen == list(range(10))
