"""The test kit: an application's own code on a simulated cluster, or on a real one.

With pytest the fixture `ksim_cluster` is all that is needed; see `docs/test-kit.md`.
"""

from ksim.kit.arm import App
from ksim.kit.errors import (
    ApplicationError,
    BlockedError,
    BlockingCallError,
    CheckFailedError,
    OnlySimulatedError,
)
from ksim.kit.report import NotJudgedWarning, Report
from ksim.kit.simulated import SimulatedCluster

__all__ = [
    "App",
    "ApplicationError",
    "BlockedError",
    "BlockingCallError",
    "CheckFailedError",
    "NotJudgedWarning",
    "OnlySimulatedError",
    "Report",
    "SimulatedCluster",
]
