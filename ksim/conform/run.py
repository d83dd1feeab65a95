"""Many scripts side by side, each in groups of its own, and the shortest of what diverged."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ksim.conform.arms import BrokerArm, Data
from ksim.conform.differences import PROTOCOLS, differences_of
from ksim.conform.pulse import Pulse
from ksim.conform.script import TOPIC, Step, draw_script, groups_of
from ksim.conform.trial import DivergenceError, Target, Trial
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.errors import KafkaError, NoBrokerError
from ksim.wire.client import BY_NAME

SIDE_BY_SIDE: Final = 40
AGAIN_SIDE_BY_SIDE: Final = 8
AGAIN: Final = 2  # so often a script is run again that may have diverged by mere disturbance
SHRINK_ROUNDS: Final = 8
TRIES_S: Final = 30.0
RETRY_S: Final = 0.1
NAMES: Final = 500  # ten for each partition of the offsets topic, if that has 50
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
    """Where the two first differed: the script that shows it, the steps done, and what was said.

    `stalled_ms` is how long this process or the broker stood still meanwhile, `tidied` whether the
    broker's periodic clean-up may have taken a group: then it may be nothing but that.
    """

    seed: int
    script: tuple[Step, ...]
    done: tuple[str, ...]
    sentence: str
    stalled_ms: int = 0
    tidied: bool = False


@dataclass(slots=True)
class Report:
    """`adopted`, `unseen`, `untold`, `tied`: what was normalised, see `Trial`. `known` counts how
    often each known difference decided something, `expected` are all that this broker may have.
    `stalled` and `tidied` count runs that were not believed and run again, see `Divergence`;
    `not_judged` are the seeds that stalled each time."""

    scripts: int
    expected: tuple[str, ...] = ()
    adopted: int = 0
    unseen: int = 0
    untold: int = 0
    tied: int = 0
    known: Counter[str] = field(default_factory=Counter)
    stalled: int = 0
    tidied: int = 0
    stalled_ms: int = 0
    not_judged: tuple[int, ...] = ()
    divergences: tuple[Divergence, ...] = ()


def _unheard(number: int, answer: Data) -> None:
    del number, answer


async def conform(
    host: str, port: int, seeds: Sequence[int], steps: int, *, shrink: bool = True
) -> Report:
    """Run the scripts of these seeds; the first divergence is shrunk. Raises NoBrokerError."""
    arm = BrokerArm(host, port, _unheard)
    try:
        target = await _prepared(arm, host, port)
        run = Run(target, Pulse(_beat(arm)))
        run.pulse.start()
        try:
            return await run.all(seeds, steps, shrink=shrink)
        finally:
            await run.pulse.stop()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise NoBrokerError(f"{host}:{port}: {str(error) or type(error).__name__}") from error
    finally:
        await arm.close()


class Run:
    """All scripts against one broker."""

    def __init__(self, target: Target, pulse: Pulse) -> None:
        self.pulse = pulse
        self._target = target
        self._report = Report(0)

    async def all(self, seeds: Sequence[int], steps: int, *, shrink: bool) -> Report:
        report = self._report = Report(len(seeds), self._target.config.differences)
        todo = [(seed, tuple(draw_script(seed, steps))) for seed in seeds]
        diverged: list[Divergence] = []
        disturbed: list[Divergence] = []
        for width in (SIDE_BY_SIDE, *[AGAIN_SIDE_BY_SIDE] * AGAIN):
            found = [each for each in await self._side_by_side(todo, width) if each is not None]
            disturbed = [each for each in found if each.stalled_ms or each.tidied]
            diverged += [each for each in found if each not in disturbed]
            report.stalled += sum(1 for each in disturbed if each.stalled_ms)
            report.tidied += sum(1 for each in disturbed if not each.stalled_ms)
            report.stalled_ms = max([report.stalled_ms, *[each.stalled_ms for each in disturbed]])
            todo = [(each.seed, each.script) for each in disturbed]
        # A clean-up comes every ten minutes: what looks like one three times is none.
        diverged += [each for each in disturbed if not each.stalled_ms]
        report.not_judged = tuple(each.seed for each in disturbed if each.stalled_ms)
        if diverged:
            first = min(diverged, key=lambda each: (len(each.done), each.seed))
            diverged.remove(first)
            self._report = Report(0)  # what shrinking sees counts for nothing
            diverged.insert(0, await self._shrunk(first) if shrink else first)
        report.divergences = tuple(diverged)
        return report

    async def _side_by_side(
        self, scripts: Sequence[tuple[int, tuple[Step, ...]]], width: int
    ) -> list[Divergence | None]:
        room = asyncio.Semaphore(width)

        async def one(seed: int, script: tuple[Step, ...]) -> Divergence | None:
            async with room:
                return await self._one(seed, script)

        return await asyncio.gather(*[one(seed, script) for seed, script in scripts])

    async def _one(self, seed: int, script: tuple[Step, ...]) -> Divergence | None:
        began_s = time.monotonic()
        name = f"{CLIENT}-{uuid.uuid4()}"
        trial = Trial(self._target, [f"{name}-{at}" for at in range(groups_of(seed))], seed)
        try:
            await trial.run(script)
        except DivergenceError as error:
            stalled_ms = self.pulse.worst_since_ms(began_s)
            return Divergence(seed, script, tuple(trial.done), str(error), stalled_ms, trial.tidied)
        self._report.adopted += trial.adopted
        self._report.unseen += trial.unseen
        self._report.untold += trial.untold
        self._report.tied += trial.tied
        self._report.known.update(trial.arm.machine.state.differed)
        return None

    async def _shrunk(self, found: Divergence) -> Divergence:
        """Leave out steps as long as the two still differ; all steps are tried side by side."""
        found = _cut(found)
        for _ in range(SHRINK_ROUNDS):
            seed, script = found.seed, found.script
            shorter = [(seed, (*script[:at], *script[at + 1 :])) for at in range(len(script))]
            tried = await self._side_by_side(shorter, SIDE_BY_SIDE)
            needed = tuple(step for step, each in zip(script, tried, strict=True) if each is None)
            if needed and len(needed) < len(script):
                tried += await self._side_by_side([(seed, needed)], 1)
            still = [_cut(each) for each in tried if each is not None and not each.stalled_ms]
            if not still:
                break
            found = min(still, key=lambda each: len(each.script))
        return found


def _cut(found: Divergence) -> Divergence:
    """Without the steps after the one that diverged."""
    return replace(found, script=found.script[: len(found.done)])


def _beat(arm: BrokerArm) -> Callable[[], Awaitable[object]]:
    """A commit to a group of its own: it goes the way of all writes of a coordinator."""
    partition = {"partition_index": 0, "committed_offset": 0}
    data = {
        "group_id": f"{CLIENT}-{uuid.uuid4()}",
        "generation_id_or_member_epoch": -1,
        "member_id": "",
        "topics": [{"name": TOPIC, "partitions": [partition]}],
    }
    return lambda: arm.call("OffsetCommit", 7, data, CLIENT)


async def _prepared(arm: BrokerArm, host: str, port: int) -> Target:
    try:
        return await asyncio.wait_for(_prepare(arm, host, port), TRIES_S)
    except TimeoutError as error:
        raise NoBrokerError(
            f"{host}:{port}: it did not serve every group within {TRIES_S:g} s; a broker is needed "
            "that coordinates all groups itself, one of a single broker"
        ) from error


async def _prepare(arm: BrokerArm, host: str, port: int) -> Target:
    """A topic to commit for, a coordinator that serves, and the broker's own settings."""
    topic = {"name": TOPIC, "num_partitions": 2, "replication_factor": -1}
    await arm.call("CreateTopics", 4, {"topics": [topic], "timeout_ms": 10_000}, CLIENT)
    key = {"key": CLIENT, "key_type": 0}
    while (found := await arm.call("FindCoordinator", 1, key, CLIENT))["error_code"]:
        await asyncio.sleep(RETRY_S)
    while await _loads(arm):
        await asyncio.sleep(RETRY_S)
    newest = await _newest_versions(arm)
    return Target(host, port, await _settings(arm, found["node_id"], newest), newest)


async def _loads(arm: BrokerArm) -> bool:
    """Whether a partition of the offsets topic is not served yet; the names fall into all."""
    names = [f"{CLIENT}-{at}" for at in range(NAMES)]
    answer = await arm.call("DescribeGroups", 5, {"groups": names}, CLIENT)
    return any(each["error_code"] for each in answer["groups"])


async def _newest_versions(arm: BrokerArm) -> dict[str, int]:
    answer = await arm.call("ApiVersions", 0, {}, CLIENT)
    newest = {each["api_key"]: each["max_version"] for each in answer["api_keys"]}
    return {name: newest.get(api.api_key, -1) for name, api in BY_NAME.items()}


async def _settings(arm: BrokerArm, node_id: int, newest: Mapping[str, int]) -> CoordinatorConfig:
    resource = {
        "resource_type": BROKER_RESOURCE,
        "resource_name": str(node_id),
        "configuration_keys": [*SETTINGS, PROTOCOLS],
    }
    answer = await arm.call("DescribeConfigs", 1, {"resources": [resource]}, CLIENT)
    (result,) = answer["results"]
    if result["error_code"] != KafkaError.NONE:
        raise NoBrokerError(f"DescribeConfigs has error {result['error_code']}")
    found = {each["name"]: each["value"] for each in result["configs"]}
    values = {SETTINGS[name]: int(found[name]) for name in SETTINGS if name in found}
    differences = differences_of(newest, found.get(PROTOCOLS) or "")
    return CoordinatorConfig(**values, differences=differences)
