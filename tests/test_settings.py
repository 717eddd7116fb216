"""The FER_* environment: read afresh each time, and a bad value names its variable."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fer.errors import SettingsError
from fer.settings import Settings, settings


def test_defaults_need_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER_CACHE")
    found = settings()
    assert found.data is None
    assert found.registry is None
    assert found.offline is False
    assert found.cache == Path.home() / ".cache" / "fer"


def test_variables_are_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_DATA", "/data/fer2013.zip")
    monkeypatch.setenv("FER_OFFLINE", "1")
    monkeypatch.setenv("FER_THREADS", "3")
    assert (settings().data, settings().offline, settings().threads) == (
        Path("/data/fer2013.zip"), True, 3,
    )  # fmt: skip
    monkeypatch.setenv("FER_DATA", "/other")
    assert settings().data == Path("/other")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FER_DATA", "FER_REGISTRY", "FER_THREADS", "FER_OFFLINE"):
        monkeypatch.setenv(name, "")
    found = settings()
    assert (found.data, found.registry, found.threads, found.offline) == (None, None, None, False)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FER_THREADS", "0"), ("FER_THREADS", "many"), ("FER_OFFLINE", "perhaps")],
)
def test_a_bad_value_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as caught:
        settings()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@hypothesis_settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_a_count_of_threads_or_an_error(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FER_THREADS", text)
    try:
        threads = settings().threads
    except SettingsError as error:
        assert "FER_THREADS" in str(error)  # noqa: PT017 - either is right
    else:
        assert threads is None or threads >= 1


def test_home_is_meant_where_no_shell_replaced_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_CACHE", "~/faces")
    monkeypatch.setenv("FER_DATA", "/odd~name/fer2013.zip")
    assert settings().cache == Path.home() / "faces"
    assert settings().data == Path("/odd~name/fer2013.zip")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a home")
def test_a_user_without_a_home_has_a_cache() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    environment.pop("FER_CACHE")
    code = """
import os
from fer.settings import settings
settings()  # imports what it needs while it may be read
os.setuid(54321)
print(settings().cache)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(Path(tempfile.gettempdir()) / "fer-cache"), done.stderr


def test_a_webhook_is_a_secret_even_where_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_NOTIFY_URL", "https://hooks.example.org/T0/jTx9QwErTy")
    assert "jTx9QwErTy" not in repr(settings())
    monkeypatch.setenv("FER_NOTIFY_URL", "hooks.example.org/T0/jTx9QwErTy")
    with pytest.raises(SettingsError, match="FER_NOTIFY_URL") as caught:
        settings()
    assert "jTx9QwErTy" not in str(caught.value)


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
