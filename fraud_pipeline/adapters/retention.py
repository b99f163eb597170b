"""Deleting what is old in a home and needed by nothing: rows of days, reports and plots, local copies of bundles.

The age of a day is counted from the newest one, not by the machine's clock: a home of the past keeps what it has. What stays
whatever its age: the state after the last deleted day and that of the history's last one, every day's manifest, the newest
report of each kind, and each bundle that a promotion, a challenger or a decision in the ledger names. Knows no Dagster.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_schema import decisions
from fraud_pipeline.adapters.source_store import SourceStore

NAMED_BY: Final = 16
"""Characters of its fingerprint that a bundle's folder is named by."""
_GOING: Final = ".deleted-"
"""A folder that is being deleted: renamed first, so that nobody finds half of it."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What was deleted, or would be."""

    cutoff: date | None
    """Days before it are old; None where there is no day or nothing is ever deleted."""
    days: tuple[date, ...] = ()
    files: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    freed_bytes: int = 0
    dry_run: bool = False
    needed: dict[str, str] = field(default_factory=dict)
    """Old bundles that stay, and why."""

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        content.update(cutoff=self.cutoff and str(self.cutoff), days=[str(day) for day in self.days])
        return content


class Retention:
    """Of one home. `folders` hold reports and plots; `bundles` the local copies of model versions."""

    def __init__(
        self, features: FeatureStore, source: SourceStore, ledger: Ledger, *, folders: Sequence[Path], bundles: Path
    ) -> None:
        self._features = features
        self._source = source
        self._ledger = ledger
        self._folders = tuple(folders)
        self._bundles = bundles

    def apply(self, days_kept: int, *, now: datetime, dry_run: bool = False) -> Retained:
        """Delete what is older than `days_kept` days; 0 keeps everything."""
        stored = self._features.store.days("transactions")
        if not days_kept or not stored:
            return Retained(None, dry_run=dry_run)
        cutoff = stored[-1] + timedelta(days=1 - days_kept)
        old_before = now - timedelta(days=days_kept)
        days = tuple(day for day in stored if day < cutoff)
        files = list(self._old_files(old_before))
        folders, needed = self._old_bundles(old_before)
        freed = sum(path.stat().st_size for path in files) + sum(map(_size, folders))
        if dry_run:
            freed += sum(map(_size, self._day_folders(days)))
        else:
            if days:
                freed += self._features.retire(days[-1], base=self._base())
            for path in files:
                path.unlink(missing_ok=True)
            for folder in folders:
                _delete(folder)
            for left in self._bundles.glob(f"{_GOING}*"):
                shutil.rmtree(left, ignore_errors=True)
        return Retained(
            cutoff, days, tuple(str(path) for path in files), tuple(folder.name for folder in folders), freed, dry_run,
            needed,
        )  # fmt: skip

    def _base(self) -> date | None:
        """The last day of the landed history, from which live states begin."""
        if not self._source.exists():
            return None
        end = self._source.manifest().end
        return max((day for day in self._features.usable_days() if day < end), default=None)

    def _day_folders(self, days: Sequence[date]) -> Iterator[Path]:
        root = self._features.store.root / "data"
        for dataset in ("transactions", "labels", "features"):
            yield from (root / dataset / f"day={day.isoformat()}" for day in days)

    def _old_files(self, before: datetime) -> Iterator[Path]:
        """Reports and plots, but the newest of each kind in its folder."""
        for root in self._folders:
            newest: dict[tuple[Path, str], float] = {}
            found = [path for path in root.rglob("*") if path.is_file()]
            ages = {path: path.stat().st_mtime for path in found}
            for path, at in ages.items():
                kind = (path.parent, path.suffix)
                newest[kind] = max(newest.get(kind, 0.0), at)
            for path, at in sorted(ages.items()):
                if at < before.timestamp() and at < newest[path.parent, path.suffix]:
                    yield path

    def _old_bundles(self, before: datetime) -> tuple[list[Path], dict[str, str]]:
        """Old folders that nothing names, and old ones that something does."""
        named, old, needed = self._named(), [], {}
        for folder in sorted(self._bundles.iterdir()) if self._bundles.exists() else ():
            if not folder.is_dir() or folder.name.startswith(".") or folder.stat().st_mtime >= before.timestamp():
                continue
            why = named.get(folder.name[-NAMED_BY:])
            if why is None:
                old.append(folder)
            else:
                needed[folder.name] = why
        return old, needed

    def _named(self) -> dict[str, str]:
        """Why a bundle stays, by the beginning of its fingerprint: the last reason counts."""
        promotions, challengers = self._ledger.promotions(), self._ledger.challengers()
        fingerprints = {str(each.version): each.fingerprint for each in promotions}
        fingerprints |= {str(each.version): each.fingerprint for each in challengers if each.fingerprint is not None}
        reasons = dict.fromkeys(self._deciding(), "decisions in the ledger")
        if challengers and challengers[-1].version is not None:
            reasons[str(challengers[-1].version)] = "challenger"
        if promotions:
            if promotions[-1].previous_version is not None:
                reasons[str(promotions[-1].previous_version)] = "champion before"
            reasons[str(promotions[-1].version)] = "champion"
        found = {fingerprints[version][:NAMED_BY]: why for version, why in reasons.items() if version in fingerprints}
        unknown = sorted(set(reasons) - set(fingerprints))
        if unknown:  # a decision of a version that was never promoted here: which folder it is, nobody can tell
            for folder in self._bundles.glob("*") if self._bundles.exists() else ():
                found.setdefault(folder.name[-NAMED_BY:], f"may be version {', '.join(unknown)}")
        return found

    def _deciding(self) -> set[str]:
        """The versions that decisions in the ledger name, whatever their role."""
        with self._ledger.database.reading() as connection:
            return set(connection.execute(sa.select(decisions.c.model_version).distinct()).scalars())


def _delete(folder: Path) -> None:
    gone = folder.with_name(f"{_GOING}{folder.name}")
    os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
