"""What a step does when a system that it needs is away: wait and try again, longer each time. Bad data fails at once."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import dagster as dg

from fraud_pipeline.errors import Busy, DependencyError

RETRIES: Final = 4
FIRST_WAIT_S: Final = 10.0
"""Ten seconds, then twice as long each time: two and a half minutes in all, in which a database or a broker is started anew.
What stays away longer fails the run, which the sensors and conditions ask for again."""

AT_A_TERMINAL: Final = "fraud/at_a_terminal"
"""Tag of a run that a person waits for: what is away is told at once."""


def patient(compute: Callable[..., Any]) -> Callable[..., Any]:
    """An asset's body that is tried again when a dependency does not answer or someone holds what one alone may hold.

    A RetryPolicy of Dagster's would try everything again, bad data too.
    """

    @wraps(compute)
    def tried(*args: Any, **kwargs: Any) -> Any:
        try:
            return compute(*args, **kwargs)
        except (DependencyError, Busy) as err:
            context = next(
                (each for each in (*args, *kwargs.values()) if isinstance(each, dg.AssetExecutionContext)), None
            )
            if context is None or AT_A_TERMINAL in context.run.tags:
                raise
            wait_s = FIRST_WAIT_S * 2**context.retry_number
            if context.retry_number < RETRIES:
                context.log.warning("%s Trying again in %.0f s.", err, wait_s)
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait_s) from err

    return tried
