"""The document shows what the kit prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.reports import TITLES, sections

DOCUMENT = Path(__file__).parents[2] / "docs" / "test-kit.md"


def test_the_reports_in_the_document_are_those_of_today(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("ksim_real"):
        pytest.skip("the document shows what the simulator says")
    text = DOCUMENT.read_text("utf-8")
    missing = [title for title, each in zip(TITLES, sections(), strict=True) if each not in text]
    assert not missing, "python -m tests.examples.reports prints them anew"
