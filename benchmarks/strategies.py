"""CPU seconds of so many examples of a three-member scenario: `python benchmarks/strategies.py`.

The target is 200 examples below 20 s on one core; run it while nothing else does.
"""

from __future__ import annotations

import sys
import time

from hypothesis import given, settings

from ksim.scenario import Scenario
from ksim.strategies import run, scenarios

EXAMPLES = 200


def main(examples: int) -> None:
    """Draw, run and judge, as a test would."""
    runs: list[int] = []

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(scenarios(min_members=3, max_members=3))
    def judge(scenario: Scenario) -> None:
        runs.append(run(scenario).cpu_ms)

    judge()
    sys.stdout.write(
        f"{len(runs)} examples: {time.process_time():.1f} s CPU with imports, "
        f"{sum(runs) / 1_000:.1f} s of it in runs\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else EXAMPLES)
