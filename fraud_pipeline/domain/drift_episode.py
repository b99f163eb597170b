"""What to do about drift: an episode opens, asks for retraining at most a few times, and closes.

Pure rules. An episode is state, so it lives in the ledger; who runs the training is the caller's business. Two clocks
are kept apart: `as_of` moves with the data (a simulated world lies in the past), `now` is the clock of the machine
that runs the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

RunState = Literal["running", "succeeded", "failed"]
ActionKind = Literal["none", "open", "request", "close"]


@dataclass(frozen=True, slots=True)
class DriftAttempt:
    """One retraining that was asked for. `run_key` is unique for ever, so the same one starts at most one run."""

    attempt: int
    run_key: str
    as_of: datetime
    requested_at: datetime
    outcome: RunState | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class DriftEpisode:
    """From the first verdict of drift to the one that ends it. `opened_at` and `closed_at` are as-of times."""

    episode_id: int
    opened_at: datetime
    champion_version: int
    attempts: tuple[DriftAttempt, ...] = ()
    closed_at: datetime | None = None
    close_reason: str | None = None


@dataclass(frozen=True, slots=True)
class DriftObservation:
    """A verdict of one drift report: about which champion, as of when, and why.

    `broken_input`: a broken source hides whether the world has drifted; nothing is retrained on it, and no episode ends.
    """

    as_of: datetime
    champion_version: int
    drifted: bool
    reason: str
    broken_input: bool = False


@dataclass(frozen=True, slots=True)
class EpisodePolicy:
    """How patient to be.

    `cooldown` and `new_evidence_after` are counted in the data's time: a week, because that is what labels need to
    mature, so that before it is over nothing new could be learned. `retry_after` is the machine's time: a failed run
    mostly failed for a reason that somebody must mend first. `start_within`, too: a run that was asked for is there
    seconds later, or its asker died.
    """

    cooldown: timedelta = timedelta(days=7)
    new_evidence_after: timedelta = timedelta(days=7)
    retry_after: timedelta = timedelta(hours=1)
    max_attempts: int = 3
    start_within: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class EpisodeAction:
    """What to do, and why in words for the sensor's tick.

    "open" opens episode `episode_id`, and asks for its first run unless `attempt` is 0; "request" asks for run `run_key` of the
    open episode; "close" closes it; "none" waits. `renews` is when the same run was asked for before, and never came.
    """

    kind: ActionKind
    reason: str
    episode_id: int = 0
    attempt: int = 0
    renews: datetime | None = None

    @property
    def run_key(self) -> str:
        """`episode:attempt`. A run key deduplicates for ever, a failed run's too: hence the attempt."""
        return f"{self.episode_id}:{self.attempt}"

    @property
    def starts_run(self) -> bool:
        return self.kind in ("open", "request") and self.attempt > 0


def next_action(
    last: DriftEpisode | None,
    observation: DriftObservation,
    *,
    champion_version: int,
    now: datetime,
    last_run: RunState | None = None,
    training_in_progress: bool = False,
    shortage: str = "",
    trial: str = "",
    policy: EpisodePolicy = EpisodePolicy(),
) -> EpisodeAction:
    """Judge the newest verdict against the newest episode.

    `last_run` is the state of the run of the newest attempt, None where no such run is known;
    `training_in_progress` says that a training runs for any other reason (the weekly schedule, a person). `shortage` says
    which labels a retraining still lacks: the episode opens, and its run waits for them. `trial` names a candidate that decides
    in shadow: another one would only take its place.
    """
    opened = last if last is not None and last.closed_at is None else None
    if opened is not None and opened.champion_version != champion_version:
        return EpisodeAction("close", f"Version {champion_version} was promoted.", opened.episode_id)
    if aside := _set_aside(opened, observation, champion_version):
        return EpisodeAction("none", aside)
    if not observation.drifted:
        if opened is None:
            return EpisodeAction("none", "No drift.")
        return EpisodeAction("close", "The drift is over.", opened.episode_id)
    if trial:
        return EpisodeAction("none", f"Drift, but {trial}: the end of its shadow period is waited for.")
    if opened is None:
        return _opening(last, observation, training_in_progress, shortage, policy)
    return _further_request(opened, observation, now, last_run, training_in_progress, shortage, policy)


def _set_aside(opened: DriftEpisode | None, observation: DriftObservation, champion_version: int) -> str:
    """Why a verdict neither opens, goes on with nor closes anything; empty where it counts."""
    if observation.champion_version != champion_version:
        about = observation.champion_version
        return f"The newest verdict is about version {about}; version {champion_version} serves now."
    if opened is not None and observation.as_of < opened.opened_at:
        return f"The newest report is of {observation.as_of:%Y-%m-%d}, before the episode opened."
    if observation.broken_input:
        return f"The input is broken, which retraining would learn: {observation.reason}"
    return ""


def _opening(
    last: DriftEpisode | None,
    observation: DriftObservation,
    training_in_progress: bool,
    shortage: str,
    policy: EpisodePolicy,
) -> EpisodeAction:
    if last is not None and last.closed_at is not None and observation.as_of < last.closed_at + policy.cooldown:
        until = last.closed_at + policy.cooldown
        return EpisodeAction("none", f"Drift, but episode {last.episode_id} cools down until {until:%Y-%m-%d %H:%M}.")
    if training_in_progress:
        return EpisodeAction("none", "Drift, but a training is already running: its result is waited for.")
    number = last.episode_id + 1 if last is not None else 1
    if shortage:
        return EpisodeAction("open", f"Episode {number} opens and waits for labels: {shortage}", number)
    return EpisodeAction("open", observation.reason, number, 1)


def _further_request(
    opened: DriftEpisode,
    observation: DriftObservation,
    now: datetime,
    last_run: RunState | None,
    training_in_progress: bool,
    shortage: str,
    policy: EpisodePolicy,
) -> EpisodeAction:
    name = f"Episode {opened.episode_id}"
    if not opened.attempts:
        return _request(opened, 1, observation.reason, training_in_progress, shortage)
    newest = opened.attempts[-1]
    state = last_run or newest.outcome
    if state is None:
        # Asked for, but no run is known: it is about to start, or the asker died in between. The same key again can start
        # one run at most.
        if _has_just_been(newest.requested_at, now, policy.start_within):
            return EpisodeAction("none", f"{name}: its run was asked for a moment ago.")
        why = f"{name}: its run was never started."
        return EpisodeAction("request", why, opened.episode_id, newest.attempt, renews=newest.requested_at)
    if state == "running" or training_in_progress:
        return EpisodeAction("none", f"{name}: its training is running.")
    if newest.attempt >= policy.max_attempts:
        return EpisodeAction("none", f"{name}: {newest.attempt} trainings did not end it; a person is needed.")
    if state == "failed" and _has_just_been(newest.requested_at, now, policy.retry_after):
        return EpisodeAction("none", f"{name}: its run failed; again after {newest.requested_at + policy.retry_after}.")
    if state == "succeeded" and observation.as_of < newest.as_of + policy.new_evidence_after:
        return EpisodeAction(
            "none",
            f"{name}: its candidate was not promoted; again with the data of {policy.new_evidence_after.days} more days.",
        )
    return _request(opened, newest.attempt + 1, observation.reason, training_in_progress, shortage)


def _request(
    opened: DriftEpisode, attempt: int, reason: str, training_in_progress: bool, shortage: str
) -> EpisodeAction:
    if training_in_progress:
        return EpisodeAction("none", f"Episode {opened.episode_id}: a training is running: its result is waited for.")
    if shortage:
        return EpisodeAction("none", f"Episode {opened.episode_id} waits for labels: {shortage}")
    return EpisodeAction("request", reason, opened.episode_id, attempt)


def _has_just_been(moment: datetime, now: datetime, within: timedelta) -> bool:
    """Less than `within` ago. A moment that lies ahead was written before the clock was set back: it holds nobody up."""
    return timedelta(0) <= now - moment < within
