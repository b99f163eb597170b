"""The smallest service that BentoML can serve: what `/score` is compared with. It takes the same body and does nothing."""

from __future__ import annotations

from typing import Any

import bentoml


@bentoml.service(name="empty", workers=1, logging={"access": {"enabled": False}})
class EmptyService:
    """One endpoint that reads a JSON object and answers an empty one; no line per request, as the scoring service has it."""

    @bentoml.api(route="/score")
    def score(self, payment: dict[str, Any], /) -> dict[str, Any]:  # noqa: ARG002 read as `/score` reads its own
        """Answer nothing."""
        return {}
