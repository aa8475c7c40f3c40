"""Bad settings stop the operator at once, with every mistake named; logs keep secrets out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pinnace_operator.runtime import logs, settings


def test_the_defaults_are_a_valid_cluster_wide_operator() -> None:
    loaded = settings.load({"HOME": "/root"})
    assert loaded.namespaces == (None,)
    assert (loaded.lease_duration, loaded.lease_period) == (15, 2)
    assert loaded.pods_progress_url == "https://pinnace-operator.pinnace-system.svc:8443"


def test_namespaces_are_split_at_commas() -> None:
    assert settings.load({"PINNACE_OPERATOR_WATCH_NAMESPACES": "a, b,"}).namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"WORKER": "3"}, "PINNACE_OPERATOR_WORKER"),
        ({"WORKERS": "none"}, "PINNACE_OPERATOR_WORKERS"),
        ({"WORKERS": "0"}, "PINNACE_OPERATOR_WORKERS"),
        ({"IMAGE_PULL_POLICY": "Sometimes"}, "PINNACE_OPERATOR_IMAGE_PULL_POLICY"),
        ({"REQUEST_TIMEOUT": "9"}, "request_timeout must be shorter than lease_margin"),
        ({"LEASE_DURATION": "6"}, "lease_duration must be at least"),
    ],
)
def test_a_bad_setting_is_refused_by_name(given: dict[str, str], named: str) -> None:
    with pytest.raises(settings.InvalidSettings, match=named):
        settings.load({f"PINNACE_OPERATOR_{name}": value for name, value in given.items()})


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(settings.InvalidSettings) as caught:
        settings.load({"PINNACE_OPERATOR_WORKERS": "x", "PINNACE_OPERATOR_HTTP_PORT": "y"})
    assert "WORKERS" in str(caught.value)
    assert "HTTP_PORT" in str(caught.value)


def test_a_log_line_is_json_with_the_key_and_without_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.configure("json", "INFO")
        token = logs.current_key.set("SFTJob/team/tiny")
        logging.getLogger("test").warning("sent Bearer abcdefgh12345 and eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln")
        logs.current_key.reset(token)
    finally:
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (line["key"], line["level"]) == ("SFTJob/team/tiny", "WARNING")
    assert "abcdefgh" not in line["message"]
    assert "eyJ" not in line["message"]


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/operator.md").read_text()
    assert [name for name in settings.Settings.model_fields if f"`{name.upper()}`" not in text] == []
