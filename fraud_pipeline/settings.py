"""Every setting, in one place: environment variables with the prefix FRAUD_, or the same names in a file `.env`.

Entry points call `load_settings()` once and pass on what a function needs; the domain never sees this module. The
reference table and `.env.example` are generated from the descriptions below (`fraud_pipeline.settings_reference`).
Loading makes no directory and opens nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fraud_pipeline.domain.iso_codes import CURRENCIES
from fraud_pipeline.errors import SettingsError
from fraud_pipeline.settings_kafka import FIELD, KAFKA_PREFIX, KafkaOptions

PREFIX = "FRAUD_"
SHORTEST_RETENTION_DAYS = 98
"""STATE_HORIZON, the maturity of labels, and a day that has begun."""

TRAINING_DAYS = 90
"""Days of payments that a training has at least, when old ones are deleted: as long as an entity is remembered."""


class Settings(BaseSettings):
    """What an installation may decide; a default in the description's brackets is derived from another setting."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, protected_namespaces=()
    )

    home: Path = Field(
        Path(".fraud"),
        validate_default=True,
        description=(
            "Folder of everything local: data, models, ledger, Dagster's storage. It may be deleted at any time; "
            "one home holds one world."
        ),
    )
    ledger_url: str = Field(
        default_factory=lambda seen: f"sqlite:///{seen['home'] / 'ledger.db'}",
        description="SQLAlchemy address of the ledger (decisions, labels, promotions). [SQLite under the home]",
    )
    mlflow_tracking_uri: str = Field(
        default_factory=lambda seen: f"sqlite:///{seen['home'] / 'mlflow.db'}",
        description="MLflow tracking and registry address. [SQLite under the home]",
    )
    checkpoint_url: str = Field(
        default_factory=lambda seen: f"file://{seen['home'] / 'checkpoints'}",
        description="Where state checkpoints are kept, as fsspec understands it: a folder, s3://... [a folder under the home]",
    )

    currency: str = Field("USD", description="ISO 4217 code of every amount; sums never mix currencies.")
    time_zone: str = Field("UTC", description="IANA zone in which hour, weekday and night are meant.")
    label_maturity_days: int = Field(
        7,
        ge=1,
        le=90,
        description="Days after which a payment without a label counts as legitimate in training and evaluation.",
    )
    seed: int = Field(
        42, ge=0, lt=2**32, description="Seed of everything drawn by chance: simulation, training, bootstrap."
    )

    customers: int = Field(1_500, ge=1, description="Simulation: customers.")
    merchants: int = Field(600, ge=1, description="Simulation: merchants.")
    days: int = Field(120, ge=1, le=3_650, description="Simulation: days of history, ending at last midnight.")
    rate: float = Field(1.7, gt=0, le=1_000, description="Simulation: payments per customer and day.")
    fraud_rate: float = Field(0.006, gt=0, lt=0.5, description="Simulation: share of payments that are fraud.")

    model: Literal["xgboost", "random_forest"] = Field("xgboost", description="Classifier of the next training.")
    imbalance: Literal["none", "weight", "smote"] = Field(
        "none",
        description="How training meets the rare class: as it is, by class weights, or by SMOTE inside the training period.",
    )
    search_trials: int = Field(
        0, ge=0, le=1_000, description="Trials of the parameter search before a training; 0 is off."
    )
    min_period_days: int = Field(7, ge=1, description="Shortest validation and test period in days.")
    max_period_days: int = Field(90, ge=1, description="Longest validation and test period in days.")
    min_period_frauds: int = Field(
        100, ge=1, description="Frauds that validation and test must each hold; periods grow until they do."
    )

    alert_budget: float = Field(0.005, gt=0, lt=0.5, description="Share of payments that may become REVIEW or BLOCK.")
    control_share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of BLOCKs let through as REVIEW and marked, so that the next model still learns from them.",
    )
    review_cost: float = Field(5.0, ge=0, description="Cost of one analyst review, in the currency.")
    false_block_cost: float = Field(
        20.0, ge=0, description="Cost of blocking a legitimate payment (friction), in the currency."
    )
    fraud_loss_share: float = Field(
        1.0, gt=0, le=1, description="Share of a fraud's amount that is lost when it passes."
    )

    min_pr_auc: float = Field(0.15, ge=0, le=1, description="Gate: PR-AUC on the test period at least this.")
    min_recall: float = Field(0.30, ge=0, le=1, description="Gate: recall at the alert budget at least this.")
    min_calibration_ratio: float = Field(
        0.7, gt=0, lt=1, description="Gate: expected over observed frauds among alerts at least this."
    )
    max_calibration_ratio: float = Field(
        1.4, gt=1, description="Gate: expected over observed frauds among alerts at most this."
    )
    max_value_loss: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Gate: net value may fall below the champion's by this share, at the lower 95 % bound.",
    )
    max_decision_ms: float = Field(
        1.0, gt=0, description="Gate (warning): p99 of one decision in process, in milliseconds."
    )

    drift_share: float = Field(0.1, gt=0, le=1, description="Drift: share of the counted features that must drift.")
    drift_wasserstein: float = Field(
        0.1, gt=0, description="Drift: distance in standard deviations at which a numeric feature drifts."
    )
    drift_jensen_shannon: float = Field(
        0.1, gt=0, le=1, description="Drift: distance at which a feature of few values drifts."
    )
    drift_prediction: float = Field(
        0.2, gt=0, description="Drift: distance of the champion's scores in standard deviations."
    )
    drift_missed_ratio: float = Field(
        1.4, gt=1, description="Drift: how many times more frauds per payment the alerts may miss, of mature labels."
    )
    drift_fraud_rate_ratio: float = Field(
        2.0, gt=1, description="Drift: how many times the fraud rate among mature labels may rise."
    )

    rest_host: str = Field("127.0.0.1", description="Scoring service: address to listen on (`fraud serve`).")
    rest_port: int = Field(3001, ge=1, le=65_535, description="Scoring service: port to listen on (`fraud serve`).")
    require_keys: bool = Field(
        False,
        description=(
            "Scoring service: refuse every request without an API key even on loopback. Other addresses always need keys."
        ),
    )
    open_metrics: bool = Field(
        False,
        description=(
            "Scoring service: answer `GET /metrics` without an API key, where only our own network reaches it; figures, no payments."
        ),
    )
    max_body_bytes: int = Field(4_194_304, ge=1_024, description="Scoring service: largest request body, unpacked.")
    rate_limit_per_s: float = Field(
        0.0,
        ge=0,
        description="Scoring service: requests per second and API key (or address) on average; 0 is no limit.",
    )
    request_timeout_s: float = Field(
        10.0, gt=0, description="Scoring service: a request that takes longer is answered 503."
    )
    degraded_policy: Literal["journal", "refuse"] = Field(
        "journal",
        description=(
            "Scoring service while the ledger is away: `journal` decides into a local file and replays it, `refuse` answers 503."
        ),
    )
    journal_limit: int = Field(
        100_000, ge=1, description="Scoring service: decisions that the local journal may hold before it refuses."
    )
    kafka_bootstrap_servers: str = Field(
        "",
        description="Apache Kafka, as host:port or several with commas: the log of payments. Empty: the ledger is the service's log, "
        "and a file under the home the stream's.",
    )
    kafka_options: dict[str, SecretStr] = Field(
        default_factory=dict,
        description=(
            "Any setting of librdkafka, with the dots of its name as underscores, such as FRAUD_KAFKA_SECURITY_PROTOCOL and "
            "FRAUD_KAFKA_SASL_PASSWORD; what would break exactly-once is refused. Values are never shown."
        ),
    )
    topic_prefix: str = Field(
        "",
        max_length=200,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="What the names of all topics (and consumer groups) begin with, such as `test.`.",
    )
    state_view_url: str = Field(
        "",
        description=(
            "Redis or Valkey that shows the scorers' state to REST replicas: redis://..., rediss://... or unix://...; with "
            "FRAUD_KAFKA_BOOTSTRAP_SERVERS it makes `fraud serve` one of any number of replicas. Empty: none."
        ),
    )
    state_view_prefix: str = Field(
        "fraud", min_length=1, description="What the names of the state view's keys begin with."
    )
    challenger_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of customers (by a hash of the id) whom the challenger decides for; the others it scores in shadow.",
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000",
        description="Dagster's webserver, for `POST /drift/run` and links; empty where there is none.",
    )

    dagster_storage_url: str = Field(
        "",
        description=(
            "PostgreSQL of Dagster's runs and events, with its driver: postgresql+psycopg2://user:password@host:5432/dagster. Empty: "
            "SQLite under the home."
        ),
    )

    sensor_interval_s: int = Field(
        60,
        ge=1,
        le=3_600,
        description="Dagster: seconds between two looks of its sensors (days that have ended, drift, what must be made).",
    )
    data_retention_days: int = Field(
        0,
        ge=0,
        description=(
            "Days after which stored days, reports and models that nothing needs any more are deleted (`fraud retention`, and the "
            "daily job); 0 keeps everything, and no day that features, training or a report still reads is deleted."
        ),
    )

    retrain_min_frauds: int = Field(
        30,
        ge=0,
        description=(
            "Drift: new frauds with mature labels that a retraining asks for, counted from the last day that the champion learned; 0 asks "
            "for none."
        ),
    )
    shadow_days: int = Field(
        0,
        ge=0,
        le=90,
        description=(
            "Days of data that a candidate which passed its gates decides in shadow before it is promoted; 0 promotes it at once."
        ),
    )
    watch_days: int = Field(
        7,
        ge=0,
        le=90,
        description=(
            "Days of data after a promotion in which a model that breaks its limits is rolled back by itself; 0 watches none."
        ),
    )

    metrics_host: str = Field(
        "127.0.0.1", description="Address that the metrics of the stream's processes listen on (`fraud sink`)."
    )
    sink_metrics_port: int = Field(
        9402, ge=0, le=65_535, description="Sink: port of its metrics (`fraud sink`); 0 is none."
    )
    ledger_retention_days: int = Field(
        0,
        ge=0,
        description=(
            "Sink: days after which payments without a label, decisions and closed alerts are deleted from the ledger; 0 keeps "
            "everything, and fewer than 98 are refused."
        ),
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The usual ones, and librdkafka's settings from the same places."""
        options = KafkaOptions(settings_cls, env_settings, dotenv_settings)
        return init_settings, options, env_settings, dotenv_settings, file_secret_settings

    scorer_metrics_port: int = Field(
        9_105, ge=0, le=65_535, description="Stream scorer: port of its Prometheus metrics; 0 is none."
    )
    scorer_instance: str = Field(
        "",
        max_length=80,
        pattern=r"^[A-Za-z0-9._-]*$",
        description=(
            "Stream scorer: its name among all scorers, the same after a restart. [the host's name and the first free number"
            " under the home]"
        ),
    )

    notify_webhook_url: SecretStr = Field(
        SecretStr(""),
        description="Notices: address that each is posted to as JSON (docs/notifications.md); empty: none.",
    )
    notify_webhook_secret: SecretStr = Field(
        SecretStr(""), description="Notices: secret that the webhook's bodies are signed with (HMAC-SHA256)."
    )
    notify_slack_url: SecretStr = Field(
        SecretStr(""), description="Notices: incoming webhook of Slack, or of what understands its messages."
    )
    notify_pagerduty_key: SecretStr = Field(
        SecretStr(""),
        description="Notices: routing key of a PagerDuty service (Events API v2); it gets warnings and worse.",
    )
    notify_pagerduty_url: str = Field(
        "https://events.pagerduty.com/v2/enqueue",
        description="Notices: where PagerDuty's events go; the EU's region, or what is compatible, has another address.",
    )
    notify_smtp_url: SecretStr = Field(
        SecretStr(""),
        description="Notices: mail server, smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465; empty: no mail.",
    )
    notify_mail_from: str = Field("", description="Notices: sender of the mails.")
    notify_mail_to: str = Field("", description="Notices: receivers of the mails, with commas.")
    notify_least_severity: Literal["info", "warning", "critical"] = Field(
        "info", description="Notices: milder ones go to the log alone."
    )
    notify_source: str = Field(
        "fraud-pipeline",
        min_length=1,
        max_length=60,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Notices: name of this installation in each of them, so that two do not fall into one incident.",
    )
    watch_urls: str = Field(
        "",
        description="Notices: addresses of the /metrics pages of services, scorers and sinks, with commas; what is wrong there is told.",
    )
    watch_lag: int = Field(
        100_000,
        ge=1,
        description="Notices: records behind the end of the log, for two minutes, that are told: a scorer decides as many in 7 s.",
    )
    watch_dead_letters: int = Field(10, ge=1, description="Notices: new dead letters within ten minutes that are told.")
    watch_degraded_share: float = Field(
        0.01, gt=0, le=1, description="Notices: share of degraded decisions within ten minutes that is told."
    )

    service_url: str = Field(
        "",
        description="Where browsers reach the scoring service, for links to its drift pages. [http://FRAUD_REST_HOST:FRAUD_REST_PORT]",
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("ledger_url", "mlflow_tracking_uri", "checkpoint_url")
    @classmethod
    def _has_a_scheme(cls, value: str) -> str:
        if "://" not in value:
            raise ValueError(
                "an address needs a scheme, such as sqlite:///path, postgresql+psycopg://..., file:///path or s3://..."
            )
        return value

    @field_validator("dagster_storage_url")
    @classmethod
    def _is_dagsters_driver(cls, value: str) -> str:
        if value and not value.startswith("postgresql+psycopg2://"):
            raise ValueError("Dagster's storage is PostgreSQL by its own driver: it begins with postgresql+psycopg2://")
        return value

    @field_validator("state_view_url")
    @classmethod
    def _is_a_view(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("an address of Redis or Valkey begins with redis://, rediss:// or unix://")
        return value

    @field_validator("currency")
    @classmethod
    def _is_a_currency(cls, value: str) -> str:
        if value not in CURRENCIES:
            raise ValueError("not an ISO 4217 code, such as USD or EUR")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (
            KeyError,
            OSError,
            ValueError,
        ) as err:  # unknown, a folder of zones such as "Europe", and not even a name
            raise ValueError("not an IANA time zone, such as UTC or Europe/Berlin") from err
        return value

    @field_validator("ledger_retention_days")
    @classmethod
    def _keeps_what_state_is_made_of(cls, value: int) -> int:
        if 0 < value < SHORTEST_RETENTION_DAYS:
            raise ValueError(
                f"a state rebuilt from the ledger needs {SHORTEST_RETENTION_DAYS} days: 90 of payments and 7 of labels"
            )
        return value

    @field_validator(
        "notify_webhook_url", "notify_slack_url", "notify_pagerduty_url", "watch_urls", "notify_smtp_url", "service_url"
    )
    @classmethod
    def _are_addresses(cls, value: SecretStr | str, info: ValidationInfo) -> SecretStr | str:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        schemes = ("smtp://", "smtps://") if info.field_name == "notify_smtp_url" else ("http://", "https://")
        if not all(one.strip().startswith(schemes) for one in text.split(",") if one.strip()):
            raise ValueError(f"an address here begins with {' or '.join(schemes)}")
        return value

    @model_validator(mode="after")
    def _periods_fit(self) -> Self:
        if self.min_period_days > self.max_period_days:
            raise ValueError(f"{PREFIX}MIN_PERIOD_DAYS must not be above {PREFIX}MAX_PERIOD_DAYS")
        shortest = 2 * (self.max_period_days + self.label_maturity_days) + TRAINING_DAYS
        if 0 < self.data_retention_days < shortest:
            raise ValueError(
                f"{PREFIX}DATA_RETENTION_DAYS must be 0 or at least {shortest}: {TRAINING_DAYS} days to learn from, two periods of"
                f" {PREFIX}MAX_PERIOD_DAYS and two of {PREFIX}LABEL_MATURITY_DAYS"
            )
        return self

    @model_validator(mode="after")
    def _mail_has_an_address(self) -> Self:
        if self.notify_smtp_url.get_secret_value() and not (self.notify_mail_from and self.notify_mail_to):
            raise ValueError(f"{PREFIX}NOTIFY_SMTP_URL needs {PREFIX}NOTIFY_MAIL_FROM and {PREFIX}NOTIFY_MAIL_TO")
        return self

    @property
    def data_dir(self) -> Path:
        """What the assets materialized, by dataset and day."""
        return self.home / "data"

    @property
    def stream_file(self) -> Path:
        """The log of payments where no Kafka is named."""
        return self.home / "stream.db"

    @property
    def bundles_dir(self) -> Path:
        """Model bundles: as they were made, and as they were fetched from the registry."""
        return self.home / "bundles"

    @property
    def reports_dir(self) -> Path:
        """Drift and other reports for people."""
        return self.home / "reports"

    @property
    def plots_dir(self) -> Path:
        """Plots that the Dagster pages show."""
        return self.home / "plots"

    @property
    def artifacts_dir(self) -> Path:
        """MLflow's artifacts, where its server keeps none of its own."""
        return self.home / "mlartifacts"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of the embedded stack."""
        return self.home / "dagster"


def load_settings() -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: names every variable that makes no sense, what it holds and the rule it breaks.
    """
    try:
        return Settings()
    except ValidationError as err:
        raise SettingsError(
            _complaint(err), remedy="Correct or unset them; `fraud settings` lists every setting."
        ) from err


def variable(field: str) -> str:
    """The environment variable of a field; of librdkafka's settings, their pattern."""
    return f"{KAFKA_PREFIX}<NAME>" if field == FIELD else PREFIX + field.upper()


def is_known(name: str) -> bool:
    """Whether an environment variable is read."""
    return name.startswith(KAFKA_PREFIX) or name in {variable(field) for field in Settings.model_fields}


def without_password(address: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"(^|://)([^/@:]*):[^/]*@", r"\1\2:***@", address)


def _complaint(err: ValidationError) -> str:
    """One clause per broken setting; a default that could not be derived is the consequence of another one, not a complaint."""
    clauses = []
    for problem in err.errors(include_url=False):
        if problem["type"] == "default_factory_not_called":
            continue
        reason = problem["msg"].removeprefix("Value error, ")
        where = "".join(f"{variable(str(part))}={_shown(part, problem['input'])!r}: " for part in problem["loc"][:1])
        clauses.append(where + reason)
    return "; ".join(clauses)


def _shown(field: int | str, value: object) -> str:
    """What a setting holds, unless it is a secret."""
    info = Settings.model_fields.get(str(field))
    return "***" if info is not None and info.annotation is SecretStr else without_password(str(value))
