"""Many scripts side by side, each in a group of its own, and the shortest of what diverged."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ksim.conform.arms import BrokerArm, Data
from ksim.conform.script import TOPIC, Step, draw_script
from ksim.conform.trial import DivergenceError, Trial
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.errors import KafkaError, NoBrokerError

Runner = Callable[[int, Sequence[Step]], Awaitable["Divergence | None"]]
SIDE_BY_SIDE: Final = 40
SHRINK_ROUNDS: Final = 8
TRIES_S: Final = 30.0
RETRY_S: Final = 0.1
BROKER_RESOURCE: Final = 4
CLIENT: Final = "ksim-conform"
SETTINGS: Final = {
    "group.initial.rebalance.delay.ms": "initial_rebalance_delay_ms",
    "group.min.session.timeout.ms": "min_session_timeout_ms",
    "group.max.session.timeout.ms": "max_session_timeout_ms",
    "group.max.size": "group_max_size",
    "offset.metadata.max.bytes": "offset_metadata_max",
}


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where the two first differed: the script that shows it, the steps done, and what was said."""

    seed: int
    script: tuple[Step, ...]
    done: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    """`adopted` counts leaders that Kafka took in hash order, and the machine after it."""

    scripts: int
    adopted: int
    divergences: tuple[Divergence, ...]


def _unheard(number: int, answer: Data) -> None:
    del number, answer


async def conform(
    host: str, port: int, seeds: Sequence[int], steps: int, *, shrink: bool = True
) -> Report:
    """Run the scripts of these seeds; the first divergence is shrunk. Raises NoBrokerError."""
    arm = BrokerArm(host, port, _unheard)
    try:
        config = await asyncio.wait_for(_prepare(arm), TRIES_S)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise NoBrokerError(f"{host}:{port}: {error or type(error).__name__}") from error
    finally:
        await arm.close()
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    adopted = 0

    async def one(seed: int, script: Sequence[Step]) -> Divergence | None:
        nonlocal adopted
        async with room:
            trial = Trial(config, host, port, f"{CLIENT}-{uuid.uuid4()}", seed)
            try:
                await trial.run(script)
            except DivergenceError as error:
                return Divergence(seed, tuple(script), tuple(trial.done), str(error))
            adopted += trial.adopted
            return None

    found = await asyncio.gather(*[one(seed, draw_script(seed, steps)) for seed in seeds])
    diverged = [each for each in found if each is not None]
    if diverged:
        first = min(diverged, key=lambda each: (len(each.done), each.seed))
        diverged.remove(first)
        diverged.insert(0, await _shrunk(first, one) if shrink else first)
    return Report(len(seeds), adopted, tuple(diverged))


async def _shrunk(found: Divergence, one: Runner) -> Divergence:
    """Leave out steps as long as the two still differ; all steps are tried side by side."""
    found = _cut(found)
    for _ in range(SHRINK_ROUNDS):
        script = found.script
        shorter = [(*script[:at], *script[at + 1 :]) for at in range(len(script))]
        tried = await asyncio.gather(*[one(found.seed, each) for each in shorter])
        still = [_cut(each) for each in tried if each is not None]
        needed = tuple(step for step, each in zip(script, tried, strict=True) if each is None)
        together = await one(found.seed, needed) if still and needed else None
        if together is not None:
            still.append(_cut(together))
        if not still:
            break
        found = min(still, key=lambda each: len(each.script))
    return found


def _cut(found: Divergence) -> Divergence:
    """Without the steps after the one that diverged."""
    return replace(found, script=found.script[: len(found.done)])


async def _prepare(arm: BrokerArm) -> CoordinatorConfig:
    """A topic to commit for, a coordinator that is there, and the broker's own settings."""
    topic = {"name": TOPIC, "num_partitions": 2, "replication_factor": -1}
    await arm.call("CreateTopics", 4, {"topics": [topic], "timeout_ms": 10_000}, CLIENT)
    key = {"key": CLIENT, "key_type": 0}
    while (found := await arm.call("FindCoordinator", 1, key, CLIENT))["error_code"]:
        await asyncio.sleep(RETRY_S)
    return await _settings(arm, found["node_id"])


async def _settings(arm: BrokerArm, node_id: int) -> CoordinatorConfig:
    resource = {
        "resource_type": BROKER_RESOURCE,
        "resource_name": str(node_id),
        "configuration_keys": list(SETTINGS),
    }
    answer = await arm.call("DescribeConfigs", 1, {"resources": [resource]}, CLIENT)
    (result,) = answer["results"]
    if result["error_code"] != KafkaError.NONE:
        raise NoBrokerError(f"DescribeConfigs has error {result['error_code']}")
    values = {SETTINGS[each["name"]]: int(each["value"]) for each in result["configs"]}
    return CoordinatorConfig(**values)
