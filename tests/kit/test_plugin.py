"""The plugin of pytest, by runs of pytest within the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# Runs within this process drop what they load first, and classes that are there twice differ.
import ksim.kit.artefacts
import ksim.kit.scenarios
import ksim.recorders  # noqa: F401

ROOT = Path(__file__).parents[2]
APPLICATION = """
from ksim import Config, Consumer

CONFIG = Config(
    bootstrap_servers=("kafka:9092",), group_id="g", topics=("t",), auto_offset_reset="earliest"
)

def right(sink):
    with Consumer(CONFIG) as consumer:
        for message in consumer:
            sink(message)
            consumer.mark_offset(message)

def wrong(sink):
    with Consumer(CONFIG) as consumer:
        for message in consumer:
            consumer.mark_offset(message)
            consumer.commit_offsets()
            sink(message)
"""
TESTS = """
import pytest
from application import right, wrong

def play(cluster, app):
    cluster.topic("t", 2)
    cluster.produce("t", 10)
    cluster.start(app, "a")
    cluster.run("10s")
    cluster.check()

def test_right(ksim_cluster):
    play(ksim_cluster, right)

def test_wrong(ksim_cluster):
    play(ksim_cluster, wrong)

@pytest.mark.parametrize("word", ["x"])
def test_seeds(ksim_cluster, ksim_seed, word):
    assert ksim_cluster.seed == ksim_seed
    assert ksim_seed != 5
    play(ksim_cluster, right)
"""
SCENARIO = """
name = "two members, one crash"
until = "30s"
[topics.t]
partitions = 2
[[group]]
id = "g"
topics = ["t"]
members = 2
[[produce]]
topic = "t"
per_second = 10
count = 50
[[step]]
at = "10s"
do = "crash"
target = "g-1"
"""
STARVED = SCENARIO.replace('until = "30s"', 'until = "30s"\nmax_events = 50')


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(application=APPLICATION, test_app=TESTS)
    return pytester


def test_a_failure_says_its_seed_and_what_to_look_at(project: pytest.Pytester) -> None:
    result = project.runpytest("-p", "no:cacheprovider", "--strict-markers", "-k", "wrong or right")
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*CheckFailedError: safety: S1, S2",
            "*S1: a committed offset 1 of t-? at * it would be lost.",
            "seed 0; again with: pytest test_app.py::test_wrong --ksim-seed 0",
            "timeline: *.html",
            "saved regression: *.toml",
            "last 30 steps before S1:",
        ]
    )
    for kind in ("timeline", "saved regression"):
        found = re.search(f"^{kind}: (.+)$", text, re.MULTILINE)
        assert found is not None
        assert Path(found[1]).stat().st_size > 0
    after = text.split("last 30 steps before S1:\n")[1].split("\n=")[0]
    assert len(after.splitlines()) == 30
    again = project.runpytest("test_app.py::test_wrong", "--ksim-seed", "0")
    again.assert_outcomes(failed=1)


FIXTURES = """
import pytest
from application import right, wrong

@pytest.fixture
def before(ksim_cluster):
    ksim_cluster.topic("t", 2)
    ksim_cluster.start(right, "a")
    raise KeyError("before")

@pytest.fixture
def judged(ksim_cluster):
    ksim_cluster.topic("t", 2)
    ksim_cluster.produce("t", 10)
    yield ksim_cluster
    ksim_cluster.run("10s")
    ksim_cluster.check()

def test_before(before):
    pass

def test_after(judged):
    judged.start(wrong, "a")

def test_forgets(ksim_cluster):
    ksim_cluster.topic("t", 2)
    ksim_cluster.start(right, "a")
    ksim_cluster.run("1s")

def test_fails(ksim_cluster):
    ksim_cluster.topic("t", 2)
    ksim_cluster.start(right, "a")
    assert ksim_cluster.now_ms == 1
"""


def test_failures_of_fixtures_say_their_seed_and_a_forgotten_check_is_told(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(application=APPLICATION, test_fixtures=FIXTURES)
    result = pytester.runpytest("-p", "no:cacheprovider", "-W", "default", "--ksim-seed", "4")
    result.assert_outcomes(errors=2, passed=2, failed=1, warnings=1)
    for name in ("before", "after", "fails"):
        again = f"seed 4; again with: pytest test_fixtures.py::test_{name} --ksim-seed 4"
        result.stdout.fnmatch_lines([again])
    result.stdout.fnmatch_lines(["*NotJudgedWarning: check() was not called: nothing that a did*"])


def test_each_seed_is_a_test_and_what_has_failed_is_run_first(project: pytest.Pytester) -> None:
    record = ("--ksim-record", "kept")
    result = project.runpytest("-k", "seeds", "--ksim-seeds", "3", "--ksim-seed", "4", *record)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["seed 5; again with: pytest 'test_app.py::test_seeds[[]x]' --ksim-seed 5"]
    )
    kept = project.path / "kept" / "test_app.py-test_seeds-x"
    names = sorted(str(path.relative_to(kept)) for path in kept.glob("*/*"))
    assert names == [
        "seed-4/a.ksim",
        "seed-5/regression.toml",
        "seed-5/timeline.html",
        "seed-6/a.ksim",
    ]
    assert '"payload":[{"topic":' in (kept / "seed-4" / "a.ksim").read_text("utf-8")
    later = project.runpytest("-k", "seeds", "-v", *record)
    later.assert_outcomes(passed=1, failed=1)
    later.stdout.fnmatch_lines(["*test_seeds[[]*seed-5* FAILED*", "*test_seeds[[]*seed-0* PASSED*"])


def test_scenario_files_are_tests(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("crash.scenario.toml").write_text(SCENARIO)
    pytester.path.joinpath("starved.scenario.toml").write_text(STARVED)
    pytester.path.joinpath("plain.toml").write_text("x = 1")
    result = pytester.runpytest("--ksim-seeds", "2", "--ksim-record", "kept", "--strict-markers")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*scenario starved.scenario.toml, seed 0*",
            "starved.scenario.toml, seed 0: liveness",
            "*max_events = 50 are spent*",
            "seed 0; again with: ksim run '*/starved.scenario.toml' --seed 0",
        ]
    )
    kept = pytester.path / "kept"
    assert (kept / "crash.scenario.toml" / "seed-1" / "g-2.ksim").exists()
    saved = kept / "starved.scenario.toml" / "seed-1" / "regression.scenario.toml"
    assert "# Fails budget with --seed 1" in saved.read_text()
    assert pytester.runpytest(str(saved)).ret == 1
    later = pytester.runpytest("starved.scenario.toml", "-v", "--ksim-record", "kept")
    later.assert_outcomes(failed=2)


def test_a_failure_is_told_whatever_its_name_and_whatever_is_hidden(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        test_long="""
        import pytest
        from application import wrong

        @pytest.mark.parametrize("what", ["x" * 300])
        def test_one(ksim_cluster, what):
            ksim_cluster.topic("payments")
            ksim_cluster.produce("payments", 10)
            ksim_cluster.start(wrong, "a")
            ksim_cluster.run("10s")
            ksim_cluster.check()
        """
    )
    result = project.runpytest("test_long.py", "--show-capture=no")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- ksim -*", "seed 0; again with: pytest *", "timeline: *"])


def test_a_test_is_named_as_seen_from_where_pytest_was_called(project: pytest.Pytester) -> None:
    project.makeini("[pytest]")
    project.mkdir("below")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path / "below")
        result = project.runpytest("../test_app.py", "-k", "wrong")
    result.stdout.fnmatch_lines(["*again with: pytest ../test_app.py::test_wrong --ksim-seed 0"])


def test_recordings_need_a_folder(project: pytest.Pytester) -> None:
    project.path.joinpath("file").write_text("")
    result = project.runpytest("--ksim-record", "file")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--ksim-record file: is no directory*"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("untill = 3", "untill = 3: unknown key; nearest: 'until'"),
        ("version = 9", "version = 9: this ksim reads scenario files up to version 1"),
    ],
)
def test_a_scenario_file_that_cannot_be_read_is_one_line(
    pytester: pytest.Pytester, line: str, words: str
) -> None:
    pytester.path.joinpath("bad.scenario.toml").write_text(f"{line}\n{SCENARIO}")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert f"bad.scenario.toml: {words}" in text
    assert "Traceback" not in text


def test_it_works_with_xdist(project: pytest.Pytester) -> None:
    project.path.joinpath("crash.scenario.toml").write_text(SCENARIO)
    result = project.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider", "--ksim-seeds", "2")
    result.assert_outcomes(passed=6, failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "seed 1; again with: pytest test_app.py::test_wrong --ksim-seed 1",
            "last 30 steps before S1:",
        ]
    )


def test_options_that_cannot_be_are_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--ksim-seeds", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--ksim-seeds is 1 or more*"])


def test_a_run_that_does_not_use_it_loads_nothing_of_it(pytester: pytest.Pytester) -> None:
    """What a start costs is what it imports."""
    pytester.makepyfile(
        """
        import sys

        def test_one():
            assert [name for name in sys.modules if name.startswith("ksim.")] == [
                "ksim.pytest_plugin"
            ]
            heavy = ("kafka", "simpy", "greenlet", "click", "rich")
            assert not set(heavy) & set(sys.modules)
        """
    )
    # Hypothesis' own plugin loads it at the end of every run, and with it what it knows of ksim.
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            loaded = {name for name in sys.modules if name.startswith("ksim.")}
            assert loaded <= {"ksim.pytest_plugin", "ksim.strategies", "ksim.strategies.hook"}
        """
    )
    for options in ((), ("-p", "no:hypothesispytest")):
        command = [sys.executable, "-m", "pytest", "-q", *options]
        found = subprocess.run(
            command, cwd=pytester.path, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr


def test_the_kit_names_its_own_fixtures(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--fixtures", "-v")
    result.stdout.fnmatch_lines_random(["ksim_cluster*", "ksim_kafka*", "ksim_seed*"])
