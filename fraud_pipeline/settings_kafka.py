"""Settings of librdkafka from the places of our own: FRAUD_KAFKA_SASL_MECHANISM is sasl.mechanism."""

from __future__ import annotations

from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

KAFKA_PREFIX: Final = "FRAUD_KAFKA_"
"""What begins with it and is no setting of ours is librdkafka's."""
FIELD: Final = "kafka_options"


class KafkaOptions(PydanticBaseSettingsSource):
    """Gathers them in one field, from the environment and from `.env`."""

    def __init__(self, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._sources = [source for source in sources if isinstance(source, EnvSettingsSource)]

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's
        """Not by field: `__call__` answers for all."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        ours = {f"{self.config['env_prefix']}{name}".lower() for name in self.settings_cls.model_fields}
        found: dict[str, str] = {}
        for source in reversed(self._sources):  # the first wins
            for name, value in source.env_vars.items():
                low = name.lower()
                if low.startswith(KAFKA_PREFIX.lower()) and low not in ours and value:
                    found[low.removeprefix(KAFKA_PREFIX.lower()).replace("_", ".")] = value
        return {FIELD: found} if found else {}
