"""docker-compose.yml, `.env.example`, the settings and `fraud stack` say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from fraud_pipeline.adapters.stack.compose_file import ComposeFile, read_compose
from fraud_pipeline.adapters.stack.topology import SERVERS, Topology
from fraud_pipeline.errors import InputError, NotFound
from fraud_pipeline.settings import is_known
from fraud_pipeline.settings_reference import COMPOSE

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"
FOREIGN = {
    "BENTOML_HOME", "CLUSTER_ID", "DAGSTER_CODE_HOST", "DAGSTER_CODE_PORT", "DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_FILES_DIR",
    "DAGSTER_HOME", "DO_NOT_TRACK", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "OMP_WAIT_POLICY",
}  # fmt: skip
"""Variables of others' programs that our processes are given."""
OURS = {"migrate", "dagster-code", "dagster-webserver", "dagster-daemon", "service", "scorer", "sink", "producer"}
PUBLISHED = {"mlflow", "dagster-webserver", "service"}


@pytest.fixture(scope="module")
def compose() -> ComposeFile:
    return read_compose(FILE, {"POSTGRES_PASSWORD": "secret1"})


@pytest.fixture(scope="module")
def text() -> dict[str, dict[str, object]]:
    """The services as they are written, for what only Docker reads."""
    return dict(yaml.safe_load(FILE.read_text())["services"])


def topology(compose: ComposeFile) -> Topology:
    ports = {name: 20_000 + number for number, name in enumerate(compose.services)}
    return Topology(compose, Path("/srv/home"), ports)


def test_the_topology_is_the_one_that_was_agreed(compose: ComposeFile) -> None:
    assert set(compose.services) == {*SERVERS, "mlflow", *OURS}
    assert compose.one_shots == {"migrate"}
    assert [name for name, one in compose.services.items() if one.profiles] == ["producer"]
    assert compose.services["producer"].profiles == ("demo",)


def test_every_setting_that_compose_passes_is_one(compose: ComposeFile) -> None:
    for service in compose.services.values():
        if service.name in SERVERS:
            continue
        unknown = {name for name in service.environment if not is_known(name)} - FOREIGN
        assert not unknown, f"{service.name}: {unknown}"


def test_every_variable_that_compose_reads_is_in_the_example_with_the_same_default(compose: ComposeFile) -> None:
    described = {name: default or None for name, default, _ in COMPOSE}
    assert dict(compose.variables) == described
    example = (ROOT / ".env.example").read_text()
    for name, default, meaning in COMPOSE:
        line = f"#{name}={default}" if default else f"{name}="
        assert f"# {meaning}\n{line}\n" in example


def test_the_example_as_it_is_does_not_start_with_an_empty_password() -> None:
    pairs = [line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"\w+=", line)]
    assert pairs == [["POSTGRES_PASSWORD", ""]]
    with pytest.raises(InputError, match="POSTGRES_PASSWORD is not set"):
        read_compose(FILE, dict(map(tuple, pairs)))  # type: ignore[arg-type]


def test_no_password_stands_in_the_file() -> None:
    for match in re.finditer(r"://\w+:([^@\s]+)@", FILE.read_text()):
        assert match[1].startswith("${POSTGRES_PASSWORD:?")


def test_everybody_is_confined_and_checked(text: dict[str, dict[str, object]]) -> None:
    for name, body in text.items():
        assert body["cap_drop"] == ["ALL"], name
        assert body["security_opt"] == ["no-new-privileges:true"], name
        assert body["read_only"] is (name != "kafka"), name
        assert {"mem_limit", "cpus"} <= set(body), name
        assert body["networks"] == ["fraud"], name
        assert name == "kafka" or body["user"] not in ("root", "0"), name
        assert name in {"migrate", "producer"} or "healthcheck" in body, name
        assert not re.search(r":latest$|^[^:]+$", str(body["image"])), f"{name}: {body['image']} is not pinned"
        for port in body.get("ports", ()):  # type: ignore[attr-defined]
            assert str(port).startswith("127.0.0.1:"), f"{name} publishes {port} to everybody"
    assert {name for name, body in text.items() if "ports" in body} == PUBLISHED


def test_whoever_is_started_is_preceded_by_what_it_needs(compose: ComposeFile) -> None:
    order = [one.name for one in compose.in_order(compose.services)]
    for service in compose.services.values():
        for needed in service.depends_on:
            assert order.index(needed.name) < order.index(service.name)
    assert [one.name for one in compose.in_order(["sink"])][-1] == "sink"
    assert "producer" not in {one.name for one in compose.in_order()}
    assert "producer" in {one.name for one in compose.in_order(profiles=["demo"])}
    assert "dagster-webserver" not in {one.name for one in compose.in_order(["scorer"])}
    with pytest.raises(NotFound, match="There is no service 'scorers'"):
        compose.in_order(["scorers"])


def test_fraud_stack_runs_every_service_with_the_same_settings_on_loopback(compose: ComposeFile) -> None:
    local = topology(compose)
    names = set(compose.services)
    for name in names - set(SERVERS):
        service, process = compose.service(name), local.process(name)
        assert set(process.environment) == set(service.environment)
        assert len(process.command) == len(service.command)
        everything = " ".join((*process.command, *process.health, *process.environment.values()))
        assert "0.0.0.0" not in everything
        assert not re.search(rf"(?<![\w.-])(?:{'|'.join(names)}):\d", everything), f"{name}: {everything}"
        assert "/var/lib/fraud" not in everything
        assert "/app" not in everything


def test_addresses_ports_and_folders_are_those_of_this_machine(compose: ComposeFile) -> None:
    local = topology(compose)
    ports = {name: 20_000 + number for number, name in enumerate(compose.services)}
    settings = local.process("dagster-code").environment
    assert settings["FRAUD_HOME"] == "/srv/home"
    assert settings["FRAUD_CHECKPOINT_URL"] == "file:///srv/home/checkpoints"
    assert settings["FRAUD_LEDGER_URL"] == f"postgresql+psycopg://fraud:secret1@127.0.0.1:{ports['postgres']}/ledger"
    assert settings["FRAUD_WATCH_URLS"].split(",") == [
        f"http://127.0.0.1:{ports[name]}/metrics" for name in ("service", "scorer", "sink")
    ]
    assert settings["FRAUD_SERVICE_URL"] == f"http://127.0.0.1:{ports['service']}"
    assert (settings["DAGSTER_CODE_HOST"], settings["DAGSTER_CODE_PORT"]) == ("127.0.0.1", str(ports["dagster-code"]))
    assert settings["DAGSTER_HOME"] == str(ROOT)
    assert local.process("dagster-webserver").command[-1] == f"{ROOT}/deploy/workspace.yaml"
    assert local.process("service").command[-4:] == ("--host", "127.0.0.1", "--port", str(ports["service"]))
    assert f"--port={ports['mlflow']}" in local.process("mlflow").command
    assert "--artifacts-destination=/srv/home/mlartifacts" in local.process("mlflow").command
    assert local.process("scorer").health[-1] == f"http://127.0.0.1:{ports['scorer']}/metrics"


def test_a_home_below_a_folder_of_the_containers_is_not_moved_twice(compose: ComposeFile) -> None:
    ports = dict.fromkeys(compose.services, 3001)  # and a local port may be another's in the file
    settings = Topology(compose, Path("/tmp/homes/one"), ports).process("service").environment
    assert settings["FRAUD_HOME"] == "/tmp/homes/one"
    assert settings["FRAUD_DAGSTER_URL"] == "http://127.0.0.1:3001"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("services: [", "is no YAML"),
        ("a: 1", "has no `services`"),
        ("services: {a: {image: x, expose: ['1', '2']}}", "more than one port"),
        ("services: {a: {image: x, stop_grace_period: soon}}", "'soon' is no duration"),
        ("services: {a: {command: [x]}}", "cannot be read as a compose file"),
    ],
)
def test_what_is_no_compose_file_is_said(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "docker-compose.yml").write_text(content)
    with pytest.raises(InputError, match=re.escape(said)):
        read_compose(tmp_path / "docker-compose.yml", {})
    with pytest.raises(NotFound, match="There is no"):
        read_compose(tmp_path / "other.yml", {})


def test_services_that_wait_for_each_other_are_told(tmp_path: Path) -> None:
    healthy = "{condition: service_healthy}"
    (tmp_path / "c.yml").write_text(
        f"services: {{a: {{image: x, depends_on: {{b: {healthy}}}}}, b: {{image: x, depends_on: {{a: {healthy}}}}}}}"
    )
    with pytest.raises(InputError, match="depend on each other: a -> b -> a"):
        read_compose(tmp_path / "c.yml", {}).in_order()
