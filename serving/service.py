"""`bentoml serve serving.service:FraudScoringService`: BentoML around the application.

BentoML gives the process, the server, the bento, /livez and /readyz, and its own metrics; the routes are the application's,
since they need GET, paths, 422 and strict JSON. One worker: the process is the only writer of its log.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import bentoml

from fraud_pipeline import telemetry
from fraud_pipeline.runtime_choice import runtime_for
from fraud_pipeline.settings import load_settings
from serving.app import BATCH_PATIENCE, build_app
from serving.metrics import exposition
from serving.security import SecurityMiddleware

telemetry.disable()
for name in ("fraud_pipeline", "serving"):
    logging.getLogger(name).setLevel(logging.INFO)  # BentoML's handlers print it
settings = load_settings()
runtime = runtime_for(settings)  # opens nothing yet


@bentoml.service(
    name="fraud_scoring_service",
    workers=1,
    # The handlers have a shorter limit of their own, and answer it as a problem.
    traffic={"timeout": settings.request_timeout_s * BATCH_PATIENCE + 5},
    logging={"access": {"enabled": False}},
    http={"port": settings.rest_port, "host": settings.rest_host},
)
@bentoml.asgi_app(build_app(runtime), path="/")
class FraudScoringService:
    """Decides payments with the latest promoted model and the features of this very moment."""

    async def __is_ready__(self) -> bool:
        return not runtime.problems

    async def __metrics__(self, original: str) -> str:
        return original + exposition(runtime)


# The decorator has made it a bentoml.Service, which the type of a class does not say.
cast("Any", FraudScoringService).add_asgi_middleware(SecurityMiddleware, keys=runtime.keys, settings=settings)
