"""Settings: read once, judged by name, and described the same in code, .env.example and docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_pipeline.errors import SettingsError
from fraud_pipeline.settings import Settings, load_settings, variable, without_password
from fraud_pipeline.settings_reference import env_example, with_table

ROOT = Path(__file__).resolve().parent.parent


def test_everything_local_lives_under_the_home(home: Path) -> None:
    settings = load_settings()
    assert settings.home == home
    assert settings.ledger_url == f"sqlite:///{home}/ledger.db"
    assert settings.mlflow_tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert settings.checkpoint_url == f"file://{home}/checkpoints"
    assert settings.dagster_home == home / "dagster"


def test_a_home_is_absolute_from_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRAUD_HOME", "elsewhere")
    assert load_settings().home == tmp_path / "elsewhere"
    assert not (tmp_path / "elsewhere").exists(), "loading settings makes nothing"


def test_the_default_home_is_dot_fraud_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRAUD_HOME")
    assert load_settings().home == tmp_path / ".fraud"


def test_the_gates_start_where_the_reference_system_had_them() -> None:
    settings = load_settings()
    assert (settings.min_pr_auc, settings.min_recall, settings.alert_budget, settings.control_share) == (
        0.15,
        0.30,
        0.005,
        0.01,
    )
    assert settings.label_maturity_days == 7


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_CURRENCY", "")
    assert load_settings().currency == "USD"


def test_a_dotenv_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FRAUD_CURRENCY=EUR\nOTHER=1\n")
    monkeypatch.setitem(Settings.model_config, "env_file", str(tmp_path / ".env"))
    assert load_settings().currency == "EUR"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("FRAUD_ALERT_BUDGET", "2", "less than 0.5"),
        ("FRAUD_ALERT_BUDGET", "much", "valid number"),
        ("FRAUD_MODEL", "lstm", "'xgboost' or 'random_forest'"),
        ("FRAUD_TIME_ZONE", "Mars/Olympus", "not an IANA time zone"),
        ("FRAUD_TIME_ZONE", "Europe", "not an IANA time zone"),
        ("FRAUD_CURRENCY", "usd", "not an ISO 4217 code"),
        ("FRAUD_LEDGER_URL", "ledger.db", "needs a scheme"),
        ("FRAUD_SEED", "-1", "greater than or equal to 0"),
    ],
)
def test_a_bad_value_names_its_variable_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.message.startswith(f"{name}={value!r}: ")
    assert reason in caught.value.message
    assert "fraud settings" in caught.value.remedy


def test_every_broken_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_SEED", "x")
    monkeypatch.setenv("FRAUD_RATE", "0")
    with pytest.raises(SettingsError, match=r"FRAUD_SEED=.*; FRAUD_RATE="):
        load_settings()


def test_periods_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_MIN_PERIOD_DAYS", "100")
    with pytest.raises(SettingsError, match="FRAUD_MIN_PERIOD_DAYS must not be above FRAUD_MAX_PERIOD_DAYS"):
        load_settings()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://fraud:s3cret@db:5432/fraud", "postgresql+psycopg://fraud:***@db:5432/fraud"),
        ("https://user:p@ss@mlflow.example", "https://user:***@mlflow.example"),
        ("sqlite:////data/ledger.db", "sqlite:////data/ledger.db"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_passwords_are_not_shown(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_a_complaint_about_an_address_hides_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_LEDGER_URL", "fraud:s3cret@db")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_env_example_is_what_settings_say() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), "run `make docs`"


def test_the_table_in_operations_is_what_settings_say() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert page == with_table(page), "run `make docs`"


def test_the_example_read_back_gives_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = tmp_path / ".env"
    example.write_text("\n".join(line[1:] if line.startswith("#FRAUD_") else "" for line in env_example().splitlines()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRAUD_HOME")
    defaults = load_settings()
    monkeypatch.setitem(Settings.model_config, "env_file", str(example))
    assert load_settings() == defaults


def test_every_setting_is_described() -> None:
    undescribed = [
        variable(name)
        for name, info in Settings.model_fields.items()
        if not (info.description or "").endswith((".", "]"))
    ]
    assert not undescribed
