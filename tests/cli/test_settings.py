"""Where the command line's configuration comes from, and which of several values counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.cli.settings import config_of, duration_ms
from ksim.core.errors import ConfigError
from tests.cli.commands import ksim

NEEDED = {"group_id": "g", "topics": ("t",)}
SECRET = "hunter2-secret"


def test_each_place_goes_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.properties"
    path.write_text("client.id=file\ncommit.interval.ms=1s\nretry.backoff.ms=1s\ngroup.id=file\n")
    monkeypatch.setenv("KSIM_CONFIG_CLIENT_ID", "environment")
    monkeypatch.setenv("KSIM_CONFIG_AUTO_COMMIT_INTERVAL_MS", "2s")
    monkeypatch.setenv("KSIM_CONFIG_GROUP_ID", "environment")
    settings = ["client.id=option", "group.id=option"]
    found = config_of({"topics": ("t",), "group_id": "flag", "client_id": None}, settings, path)
    assert found.group_id == "flag"
    assert found.client_id == "option"
    assert found.commit_interval_ms == 2_000
    assert found.retry_backoff_ms == 1_000
    assert found.session_timeout_ms == 30_000


def test_a_mistake_names_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.toml"
    path.write_text("grup_id = 'g'\n")
    with pytest.raises(
        ConfigError, match=r"c\.toml: grup_id = 'g': unknown .* nearest: 'group_id'"
    ):
        config_of(NEEDED, [], path)
    with pytest.raises(ConfigError, match=r"-X: retry\.backoff\.ms .* = 'x': a whole number"):
        config_of(NEEDED, ["retry.backoff.ms=x"], None)
    with pytest.raises(ConfigError, match=r"-X client\.id is given more than once"):
        config_of(NEEDED, ["client.id=a", "client.id=b"], None)
    monkeypatch.setenv("KSIM_CONFIG_GRUP_ID", "g")
    with pytest.raises(ConfigError, match="environment: grup_id = 'g': unknown"):
        config_of(NEEDED, [], None)


def test_a_text_gone_astray_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="-X, the one with number 2: must be KEY=VALUE") as caught:
        config_of(NEEDED, ["client.id=a", SECRET], None)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ("--help",)),
        (69, ("-b", "127.0.0.1:1", "-X", "bootstrap.timeout.ms=100")),
        (2, ("-X", "security.protocol=plaintext")),
        (2, ("-X", f"sasl.pasword={SECRET}")),
        (2, ("-X", f"sasl.jaas.config={SECRET}")),
        (2, ("-X", SECRET)),
    ],
)
def test_no_output_has_the_secret(code: int, arguments: tuple[str, ...]) -> None:
    login = {
        "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": "u",
        "SASL_PASSWORD": SECRET,
    }
    environment = {f"KSIM_CONFIG_{name}": found for name, found in login.items()}
    found = ksim("consume", "-g", "g", "-t", "t", *arguments, **environment)
    assert found.returncode == code
    assert found.stdout + found.stderr
    assert SECRET not in found.stdout + found.stderr


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 5_000 + ")" * 5_000])
def test_a_pattern_that_is_none_is_a_mistake_like_any_other(pattern: str) -> None:
    found = ksim("consume", "-b", "h", "-g", "g", "-X", f"topics_whitelist={pattern}")
    assert found.returncode == 2
    assert found.stderr.startswith("ksim: -X: topics_whitelist = '")
    assert found.stderr.count("\n") == 1


def test_durations_of_options() -> None:
    assert [duration_ms("x", text) for text in ("1500ms", "30s", "5m", "7")] == [
        1_500,
        30_000,
        300_000,
        7,
    ]
    with pytest.raises(ConfigError, match="x = 'soon'"):
        duration_ms("x", "soon")


def test_what_is_needed_may_come_from_any_place(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("bootstrap.servers = '127.0.0.1:1'\ntopics = 't'\nbootstrap.timeout.ms = 100\n")
    found = ksim("consume", "--config", str(path), KSIM_CONFIG_GROUP_ID="g")
    assert (found.returncode, found.stdout) == (69, "")
    missing = ksim("consume", "--config", str(path))
    assert missing.returncode == 2
    assert missing.stderr == "ksim: group_id = '': must not be empty\n"
