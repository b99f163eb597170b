"""Promotions, challengers and drift episodes in the ledger: who became what and why, what drift asked for.

Functions over an open connection. What may be promoted and what an episode does next are domain rules; here a
constraint of the database decides between two that act at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from fraud_pipeline.adapters.ledger_schema import challengers, drift_attempts, drift_episodes, promotions
from fraud_pipeline.domain.drift_episode import DriftAttempt, DriftEpisode, DriftObservation, EpisodeAction, RunState
from fraud_pipeline.domain.promotion import Challenger, Promotion


def insert_promotion(connection: Connection, promotion: Promotion) -> None:
    """Append the row. IntegrityError of SQLAlchemy where another promotion has the same one before it."""
    row = {c.name: getattr(promotion, c.name) for c in promotions.c}
    row["evidence"] = dict(promotion.evidence)
    connection.execute(sa.insert(promotions).values(**row))


def select_promotions(connection: Connection) -> list[Promotion]:
    """All of them, oldest first."""
    rows = connection.execute(sa.select(promotions).order_by(promotions.c.promotion_id)).mappings()
    return [Promotion(**row) for row in rows]


def newest_promotion(connection: Connection) -> Promotion | None:
    """The present champion's."""
    query = sa.select(promotions).order_by(promotions.c.promotion_id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else Promotion(**row)


def insert_challenger(connection: Connection, challenger: Challenger) -> None:
    """Append the row. IntegrityError of SQLAlchemy where another one took its number."""
    connection.execute(sa.insert(challengers).values(**{c.name: getattr(challenger, c.name) for c in challengers.c}))


def select_challengers(connection: Connection) -> list[Challenger]:
    """All of them, oldest first."""
    rows = connection.execute(sa.select(challengers).order_by(challengers.c.challenger_id)).mappings()
    return [Challenger(**row) for row in rows]


def newest_challenger(connection: Connection) -> Challenger | None:
    """What was said last: an appointment, or that there is none; None before the first."""
    query = sa.select(challengers).order_by(challengers.c.challenger_id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else Challenger(**row)


def select_episodes(connection: Connection, *, limit: int) -> list[DriftEpisode]:
    """The newest episodes with their attempts, newest first."""
    query = sa.select(drift_episodes).order_by(drift_episodes.c.episode_id.desc()).limit(limit)
    return [_episode(connection, row) for row in connection.execute(query).mappings().all()]


def apply_action(
    connection: Connection,
    action: EpisodeAction,
    observation: DriftObservation,
    *,
    verdict: Mapping[str, Any],
    now: datetime,
) -> bool:
    """Write what `next_action` decided. SQLAlchemy's IntegrityError, or False, where someone else has just done the same."""
    if action.kind == "open":
        connection.execute(
            sa.insert(drift_episodes).values(
                episode_id=action.episode_id,
                opened_at=observation.as_of,
                champion_version=observation.champion_version,
                verdict=dict(verdict),
                open_slot=1,
            )
        )
    if action.renews is not None:
        seen = sa.and_(drift_attempts.c.run_key == action.run_key, drift_attempts.c.requested_at == action.renews)
        return connection.execute(sa.update(drift_attempts).where(seen).values(requested_at=now)).rowcount == 1
    if action.starts_run:
        connection.execute(
            sa.insert(drift_attempts).values(
                episode_id=action.episode_id,
                attempt=action.attempt,
                run_key=action.run_key,
                as_of=observation.as_of,
                requested_at=now,
            )
        )
    if action.kind == "close":
        connection.execute(
            sa.update(drift_episodes)
            .where(drift_episodes.c.episode_id == action.episode_id, drift_episodes.c.closed_at.is_(None))
            .values(closed_at=observation.as_of, close_reason=action.reason, open_slot=None)
        )
    return True


def note_run(connection: Connection, run_key: str, *, outcome: RunState, run_id: str) -> bool:
    """Write the state of a requested run beside its attempt; False where no such run was requested."""
    update = sa.update(drift_attempts).where(drift_attempts.c.run_key == run_key)
    return connection.execute(update.values(outcome=outcome, run_id=run_id)).rowcount == 1


def _episode(connection: Connection, row: RowMapping) -> DriftEpisode:
    query = (
        sa.select(drift_attempts)
        .where(drift_attempts.c.episode_id == row["episode_id"])
        .order_by(drift_attempts.c.attempt)
    )
    attempts = tuple(
        DriftAttempt(r["attempt"], r["run_key"], r["as_of"], r["requested_at"], r["outcome"], r["run_id"])
        for r in connection.execute(query).mappings()
    )
    return DriftEpisode(
        episode_id=row["episode_id"],
        opened_at=row["opened_at"],
        champion_version=row["champion_version"],
        attempts=attempts,
        closed_at=row["closed_at"],
        close_reason=row["close_reason"],
    )
