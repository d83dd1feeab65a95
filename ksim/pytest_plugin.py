"""The plugin of pytest: scenario files as tests, the fixtures of the kit, reports of failures.

Every pytest run of an environment with ksim loads this file: what costs time is imported late.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ksim.kit.artefacts import Failure
    from ksim.kit.scenarios import FailedScenario
    from ksim.real.kafka_server import KafkaServer
    from ksim.scenario import Scenario

SUFFIX = ".scenario.toml"
SEED = "ksim_seed"
CLUSTER = "ksim_cluster"
_ran = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """All options, in a group of their own."""
    group = parser.getgroup("ksim", "simulated Kafka consumer groups")
    group.addoption("--ksim-seed", type=int, default=0, help="The seed, or the first of them.")
    group.addoption(
        "--ksim-seeds", type=int, default=1, metavar="N", help="Run each test with so many seeds."
    )
    group.addoption(
        "--ksim-record",
        type=Path,
        default=None,
        metavar="DIR",
        help="Keep recordings, timelines and regressions in DIR; what has failed is run first.",
    )
    group.addoption(
        "--ksim-real", action="store_true", help="Run the tests of ksim_cluster on a real broker."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what has no meaning, before anything is collected."""
    if config.getoption("ksim_seeds") < 1 or config.getoption("ksim_seed") < 0:
        raise pytest.UsageError("--ksim-seeds is 1 or more, --ksim-seed 0 or more")
    directory = config.getoption("ksim_record")
    if directory is not None and directory.exists() and not directory.is_dir():
        raise pytest.UsageError(f"--ksim-record {directory}: is no directory")


def _seeds(config: pytest.Config, test: str) -> list[int]:
    """Those that have failed before, then those that are asked for."""
    first, count = config.getoption("ksim_seed"), config.getoption("ksim_seeds")
    asked = [*range(first, first + count)]
    directory = config.getoption("ksim_record")
    if directory is None or not directory.is_dir():
        return asked
    from ksim.kit.artefacts import saved_seeds

    return [*(seed for seed in saved_seeds(directory, test) if seed not in asked), *asked]


# Scenario files


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """`*.scenario.toml` are tests."""
    if file_path.name.endswith(SUFFIX):
        made: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
        return made
    return None


class ScenarioFile(pytest.File):
    """One scenario; an item for each seed."""

    def collect(self) -> Iterator[ScenarioItem]:
        from ksim.kit.scenarios import load_checked

        scenario = load_checked(self.path)
        for seed in _seeds(self.config, self.nodeid):
            made: ScenarioItem = ScenarioItem.from_parent(
                self, name=f"seed-{seed}", scenario=scenario, seed=seed
            )
            yield made

    def repr_failure(  # type: ignore[override] # as the base of all collectors has it
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> Any:
        """A mistake in the file is one line."""
        from ksim.scenario_table import ScenarioError

        if isinstance(excinfo.value, ScenarioError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class ScenarioFailedError(Exception):
    """A run of a scenario did not pass."""

    def __init__(self, found: FailedScenario) -> None:
        super().__init__(found.text())
        self.found = found


class ScenarioItem(pytest.Item):
    """One scenario with one seed; all points of a sweep."""

    def __init__(self, *, scenario: Scenario, seed: int, **named: Any) -> None:
        super().__init__(**named)
        self.scenario = scenario
        self.seed = seed

    def runtest(self) -> None:
        if self.config.getoption("ksim_real"):
            pytest.skip("a scenario is for the simulator; --ksim-real runs tests of ksim_cluster")
        from ksim.kit.artefacts import folder_of
        from ksim.kit.scenarios import judge

        directory = self.config.getoption("ksim_record")
        record = None if directory is None else folder_of(directory, self._test)
        found = judge(self.path, self.scenario, self.seed, record)
        if found is not None:
            self.stash[_ran] = found
            raise ScenarioFailedError(found)

    @property
    def _test(self) -> str:
        assert self.parent is not None, f"{self.name} has no file"
        return self.parent.nodeid

    def failure(self) -> Failure:
        found: FailedScenario = self.stash[_ran]
        return found.failure(self._test)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, ScenarioFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"scenario {self.path.name}, seed {self.seed}"


# Tests of applications


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each seed, where there is more than one."""
    if SEED not in metafunc.fixturenames or metafunc.config.getoption("ksim_real"):
        return
    seeds = _seeds(metafunc.config, metafunc.definition.nodeid)
    if len(seeds) > 1:
        metafunc.parametrize(SEED, seeds, indirect=True, ids=[f"seed-{seed}" for seed in seeds])


@pytest.fixture
def ksim_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test."""
    seed: int = getattr(request, "param", request.config.getoption("ksim_seed"))
    return seed


@pytest.fixture
def ksim_settings() -> dict[str, Any]:
    """Keys of `[cluster]` in scenarios, such as {"brokers": 3}; for tests to override."""
    return {}


@pytest.fixture(scope="session")
def ksim_kafka() -> Iterator[KafkaServer]:
    """A real broker that ends with the run; needs the extra `kafka-server`."""
    import os
    import tempfile

    from ksim.real.kafka_server import KafkaUnavailableError, brokers_of_one_run, shared_server

    run_dir = Path(tempfile.mkdtemp(prefix="ksim-kafka-"))
    with brokers_of_one_run(run_dir):
        try:
            found = shared_server(run_dir)
        except KafkaUnavailableError as error:
            message = f"no Apache Kafka here (pip install kafka-ksim[kafka-server]): {error}"
            if os.environ.get("KSIM_REQUIRE_KAFKA") == "1":
                pytest.fail(message, pytrace=False)
            pytest.skip(message)
        yield found


@pytest.fixture
def ksim_cluster(
    request: pytest.FixtureRequest, ksim_seed: int, ksim_settings: dict[str, Any]
) -> Iterator[Any]:
    """A cluster for the applications of one test: simulated, or real with --ksim-real."""
    if request.config.getoption("ksim_real"):
        from ksim.kit.real import RealCluster

        bootstrap = request.getfixturevalue("ksim_kafka").bootstrap
        with RealCluster(bootstrap, ksim_settings, skip=pytest.skip) as real:
            request.node.stash[_ran] = real
            yield real
        return
    from ksim.kit.artefacts import SEED_FOLDER, folder_of
    from ksim.kit.simulated import SimulatedCluster
    from ksim.recorders import Recorders

    directory = request.config.getoption("ksim_record")
    recorders = None
    if directory is not None:
        folder = folder_of(directory, _test_of(request.node, ksim_seed))
        recorders = Recorders(folder / f"{SEED_FOLDER}{ksim_seed}", ksim_seed)
    try:
        with SimulatedCluster(ksim_seed, ksim_settings, recorder=recorders) as cluster:
            request.node.stash[_ran] = cluster
            yield cluster
    finally:
        if recorders is not None:
            recorders.close()


# Reports


def _test_of(item: pytest.Item, seed: int) -> str:
    """The id of a test without its seed."""
    name = f"seed-{seed}"
    found = item.nodeid.replace(f"[{name}]", "")
    return found.replace(f"-{name}]", "]").replace(f"[{name}-", "[").replace(f"-{name}-", "-")


def _failure_of(item: pytest.Item) -> Failure:
    if isinstance(item, ScenarioItem):
        return item.failure()
    from ksim.kit.artefacts import Failure

    cluster = item.stash[_ran]
    test = _test_of(item, cluster.seed)
    how = "--ksim-real" if cluster.real else f"--ksim-seed {cluster.seed}"
    # Ids are as seen from the root of the project, which need not be where pytest was called.
    _, found, inner = test.partition("::")
    called_at = os.path.relpath(item.path, item.config.invocation_params.dir)
    command = f"pytest {shlex.quote(called_at + found + inner)} {how}"
    report = cluster.so_far()
    return Failure(test, cluster.seed, command, report.steps, report.violations)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that has failed says its seed, and leaves what one has to look at."""
    report = yield
    ran = item.stash.get(_ran, None)
    if ran is not None and not report.passed and not isinstance(item, ScenarioItem):
        ran.judged = True
    if report.failed and ran is not None:
        import tempfile

        from ksim.kit.artefacts import save

        directory = item.config.getoption("ksim_record")
        try:
            kept = directory or Path(tempfile.mkdtemp(prefix="ksim-failure-"))
            told = "\n".join(save(_failure_of(item), kept))
        except Exception as error:  # noqa: BLE001 - the failure itself must be told
            told = f"nothing of it could be kept: {error!r}"
        if hasattr(report.longrepr, "addsection"):
            # What is captured may be hidden by --show-capture; this is no capture.
            report.longrepr.addsection("ksim", told)
        else:
            report.sections.append(("ksim", told))
    return report
