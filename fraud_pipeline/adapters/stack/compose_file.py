"""docker-compose.yml as it is read: its services, with variables filled in, as far as running them elsewhere needs.

Knows nothing of where or how they run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.errors import InputError, NotFound

VARIABLE: Final = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<word>[^}]*))?\})")
"""$$, ${NAME}, ${NAME:-default} and ${NAME:?complaint}, as Compose has them."""
UNITS_S: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DEFAULT_GRACE_S: Final = 10.0
"""Compose's own stop_grace_period."""
DEFAULT_CHECK_S: Final = 30.0
"""Compose's own limit of one health check."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """Another service, and whether it must be done (a one-shot) or healthy first."""

    name: str
    completed: bool


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service. `port` is the one that it listens on, 0 for none; `published` that of the host, where there is one."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    published: int
    depends_on: tuple[Dependency, ...]
    health: tuple[str, ...]
    health_timeout_s: float
    health_limit_s: float
    profiles: tuple[str, ...]
    folders: Mapping[str, str]
    """Where named volumes and tmpfs are mounted: path in the container -> name; a tmpfs has its path as name."""
    stop_s: float


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """All of it. `variables` are those that it reads, with their default, or None where it demands one."""

    path: Path
    services: Mapping[str, ComposeService]
    variables: Mapping[str, str | None] = field(default_factory=dict)

    def service(self, name: str) -> ComposeService:
        if name not in self.services:
            raise NotFound(f"There is no service {name!r}.", remedy=f"There are: {', '.join(self.services)}.")
        return self.services[name]

    @property
    def one_shots(self) -> frozenset[str]:
        """Services that others wait for to be done."""
        return frozenset(one.name for service in self.services.values() for one in service.depends_on if one.completed)

    def in_order(self, names: Iterable[str] = (), *, profiles: Iterable[str] = ()) -> list[ComposeService]:
        """The named services and what they need, or all of the given profiles; each after what it depends on."""
        wanted = list(names) or [
            one.name for one in self.services.values() if not one.profiles or set(one.profiles) & set(profiles)
        ]
        ordered: dict[str, ComposeService] = {}

        def add(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                raise InputError(f"{self.path}: services depend on each other: {' -> '.join((*above, name))}.")
            if name not in ordered:
                service = self.service(name)
                for one in service.depends_on:
                    add(one.name, (*above, name))
                ordered[name] = service

        for name in wanted:
            add(name, ())
        return list(ordered.values())


def read_compose(path: Path, variables: Mapping[str, str], *, lenient: bool = False) -> ComposeFile:
    """Read it with these variables; `lenient` takes the variable's own name where one is demanded and not there.

    Raises:
        NotFound: there is no such file.
        InputError: it is no compose file, or demands a variable that is not set.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        remedy = "Run it in the project's folder, or name the file: --file path/to/docker-compose.yml."
        raise NotFound(f"There is no {path}.", remedy=remedy) from err
    except yaml.YAMLError as err:
        raise InputError(f"{path} is no YAML: {' '.join(str(err).split())}.") from err
    if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
        raise InputError(f"{path} is no compose file: it has no `services`.")
    read: dict[str, str | None] = {}
    filled = _filled(document["services"], variables, read, lenient=lenient)
    try:
        services = {name: _service(name, body) for name, body in filled.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InputError(f"{path} cannot be read as a compose file: {err!r}.") from err
    return ComposeFile(path, services, read)


def _filled(value: Any, variables: Mapping[str, str], read: dict[str, str | None], *, lenient: bool) -> Any:
    """Variables filled in, everywhere in the tree."""
    if isinstance(value, dict):
        return {key: _filled(part, variables, read, lenient=lenient) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, variables, read, lenient=lenient) for part in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name, how, word = match["name"], match["how"] or "", match["word"] or ""
        demanded = how.endswith("?")
        if name not in read or read[name] is None:
            read[name] = None if demanded else word
        if variables.get(name):
            return variables[name]
        if not demanded:
            return word
        if lenient:
            return name.lower()
        raise InputError(
            f"{name} is not set{f': {word}' if word else ''}.", remedy="Set it in .env (.env.example has it)."
        )

    return VARIABLE.sub(fill, value)


def _service(name: str, body: Mapping[str, Any]) -> ComposeService:
    exposed = [int(port) for port in body.get("expose", ())]
    if len(exposed) > 1:
        raise ValueError(f"{name} exposes more than one port")
    published = [str(entry).split(":") for entry in body.get("ports", ())]
    health = body.get("healthcheck", {})
    return ComposeService(
        name=name,
        image=str(body["image"]),
        command=tuple(map(str, body.get("command", ()))),
        environment={key: str(value) for key, value in body.get("environment", {}).items()},
        port=exposed[0] if exposed else 0,
        published=int(published[0][-2]) if published else 0,
        depends_on=tuple(_dependencies(body.get("depends_on", {}))),
        health=tuple(map(str, health.get("test", ()))),
        health_timeout_s=_seconds(health.get("timeout"), DEFAULT_CHECK_S),
        health_limit_s=_seconds(health.get("interval"), DEFAULT_CHECK_S) * int(health.get("retries", 3)),
        profiles=tuple(body.get("profiles", ())),
        folders=_folders(body),
        stop_s=_seconds(body.get("stop_grace_period"), DEFAULT_GRACE_S),
    )


def _dependencies(body: Mapping[str, Mapping[str, str]]) -> Iterable[Dependency]:
    for name, condition in body.items():
        yield Dependency(name, completed=condition["condition"] == "service_completed_successfully")


def _folders(body: Mapping[str, Any]) -> dict[str, str]:
    mounted = [str(volume).split(":") for volume in body.get("volumes", ())]
    memory = [str(entry).split(":")[0] for entry in body.get("tmpfs", ())]
    return {parts[1]: parts[0] for parts in mounted} | {path: path for path in memory}


def _seconds(value: Any, default: float) -> float:
    if value is None:
        return default
    parts = re.findall(r"(\d+)(ms|s|m|h)", str(value))
    if "".join(number + unit for number, unit in parts) != str(value):
        raise ValueError(f"{value!r} is no duration")
    return sum(int(number) * UNITS_S[unit] for number, unit in parts)
