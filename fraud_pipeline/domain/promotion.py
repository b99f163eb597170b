"""Who may become champion or its challenger, and the record of who did.

Pure rules over evidence: nothing is promoted whose required gates were not judged, for this very version and
fingerprint, against the champion that it would replace. Where the evidence and the records lie is the adapters'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Literal

from fraud_pipeline.domain.gates import GateResult

PromotionKind = Literal["promotion", "rollback", "forced"]


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """All gate results of one candidate: of which content (`fingerprint`), and against which champion's version."""

    fingerprint: str
    against_version: int | None
    results: tuple[GateResult, ...]

    @classmethod
    def of(cls, results: Iterable[GateResult], *, fingerprint: str, against_version: int | None) -> GateEvidence:
        """Results as they were judged; numpy's types become Python's, NaN becomes None."""
        plain = (replace(r, passed=bool(r.passed), value=_finite(r.value)) for r in results)
        return cls(fingerprint, against_version, tuple(plain))

    @property
    def failures(self) -> tuple[GateResult, ...]:
        """The gates that stop this candidate; a failed warning does not."""
        return tuple(r for r in self.results if not r.passed and r.severity != "warn")

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GateEvidence:
        """Raises ValueError where the text is not what `to_json` wrote."""
        try:
            raw = json.loads(text)
            return cls(raw["fingerprint"], raw["against_version"], tuple(GateResult(**r) for r in raw["results"]))
        except (KeyError, TypeError) as err:
            raise ValueError(f"not gate evidence: {err!r}") from err


@dataclass(frozen=True, slots=True)
class Promotion:
    """One row of the append-only table. `previous_id` is 0 for the first one."""

    promotion_id: int
    previous_id: int
    kind: PromotionKind
    version: int
    fingerprint: str
    previous_version: int | None
    who: str
    reason: str
    promoted_at: datetime
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Challenger:
    """One row of the append-only table: from here on this version is the challenger, or (both None) there is none."""

    challenger_id: int
    version: int | None
    fingerprint: str | None
    who: str
    reason: str
    appointed_at: datetime


def challenge_refusals(
    *,
    version: int,
    fingerprint: str,
    evidence: GateEvidence | None,
    required: Collection[str],
    champion_version: int | None,
    was_rolled_back: bool = False,
) -> tuple[str, ...]:
    """Why the version may not be challenger; empty where it may.

    Its gates must have passed, against whichever champion there was then: it is appointed to be seen beside the present one.
    """
    if champion_version is None:
        return ("there is no champion to challenge",)
    if version == champion_version:
        return ("it is the champion",)
    against = None if evidence is None else evidence.against_version
    return refusals(
        fingerprint=fingerprint,
        evidence=evidence,
        required=required,
        champion_version=against,
        was_rolled_back=was_rolled_back,
    )


def refusals(
    *,
    fingerprint: str,
    evidence: GateEvidence | None,
    required: Collection[str],
    champion_version: int | None,
    was_rolled_back: bool = False,
) -> tuple[str, ...]:
    """Why the version with this fingerprint may not become champion; empty where it may.

    A version that was rolled back stays so until a person forces it: else the next run would promote it again.
    `required` are the names of the gates that must have been judged; any judged gate that failed blocks, unless it only warns.
    """
    if evidence is None:
        return ("its gates were never judged",)
    reasons = ["it was rolled back"] if was_rolled_back else []
    if evidence.fingerprint != fingerprint:
        reasons.append(f"its gate results are of other content ({evidence.fingerprint[:12]}, not {fingerprint[:12]})")
    if evidence.against_version != champion_version:
        judged, now = (_version_name(v) for v in (evidence.against_version, champion_version))
        reasons.append(f"it was judged against {judged}, but the champion is {now}")
    judged_names = {r.name for r in evidence.results}
    reasons += [f"gate {name} was not judged" for name in sorted(set(required) - judged_names)]
    reasons += [f"gate {r.name} failed: {r.explanation}" for r in evidence.failures]
    return tuple(reasons)


def rollback_target(history: Iterable[Promotion]) -> Promotion | None:
    """The promotion to go back to: the newest one of another version than the current champion's that was not itself
    rolled back. None where there is none.

    `history` is in order, oldest first. Going back pops the champion off a stack, so two rollbacks in a row go back two
    versions and not to and fro.
    """
    stack: list[Promotion] = []
    for promotion in history:
        if promotion.kind == "rollback":
            while stack and stack[-1].version != promotion.version:
                stack.pop()
        if not stack or stack[-1].version != promotion.version:
            stack.append(promotion)
    return stack[-2] if len(stack) > 1 else None


def rolled_back_versions(history: Iterable[Promotion]) -> frozenset[int]:
    """Versions that a rollback took from their place and that nobody put back. `history` is in order."""
    versions: set[int] = set()
    for promotion in history:
        versions.discard(promotion.version)
        if promotion.kind == "rollback" and promotion.previous_version is not None:
            versions.add(promotion.previous_version)
    return frozenset(versions)


def put_back_by_hand(history: Iterable[Promotion]) -> bool:
    """Whether a person made the present champion champion again after a rollback had taken it away: they know why."""
    rows = list(history)
    return bool(rows) and rows[-1].kind == "forced" and rows[-1].version in rolled_back_versions(rows[:-1])


def _version_name(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _finite(number: float | None) -> float | None:
    """JSON has no NaN: a gate without a number says null."""
    return float(number) if number is not None and math.isfinite(number) else None
