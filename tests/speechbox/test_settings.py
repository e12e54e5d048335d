"""Tests of the command line and environment variables."""

from pathlib import Path

import pytest

from speechbox.settings import parse


def test_command_line_overrides_the_environment() -> None:
    environment = {"SPEECHBOX_PORT": "1", "SPEECHBOX_PUBLIC_URL": "http://box", "SPEECHBOX_API_KEY": "secret"}
    settings = parse(["--port", "2"], environment)
    assert (settings.port, settings.public_url, settings.key) == (2, "http://box", "secret")


def test_defaults_apply_without_arguments() -> None:
    settings = parse([], {})
    assert (settings.host, settings.port, settings.engine, settings.key) == ("127.0.0.1", 8008, "whisper", None)
    assert settings.data == Path("speechbox-data")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--engine", "other"], {}),
        ([], {"SPEECHBOX_ENGINE": "other"}),
        ([], {"SPEECHBOX_LOG_LEVEL": "loud"}),
        (["--jobs", "0"], {}),
        (["--chats-at-once", "0"], {}),
        ([], {"SPEECHBOX_REQUESTS_PER_5_MINUTES": "-1"}),
        (["--port", "http"], {}),
        (["--engine", "scripted", "--model", "base"], {}),
        (["--script", "answers.yaml"], {}),
    ],
)
def test_invalid_settings_are_refused(arguments: list[str], environment: dict[str, str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments, environment)


def test_help_does_not_show_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], {"SPEECHBOX_API_KEY": "secret"})
    assert "secret" not in capsys.readouterr().out
