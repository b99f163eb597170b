"""The generated part of docs/features.md, from the feature spec: `python -m fraud_pipeline.feature_docs [FILE]`.

What stands outside the two markers is written by hand and kept. A test holds the committed file to this output.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from fraud_pipeline.domain.feature_spec import FEATURES, SCHEMA_HASH, Feature
from fraud_pipeline.errors import InputError

BEGIN: Final = "<!-- generated from feature_spec.py by `python -m fraud_pipeline.feature_docs`: begin -->"
END: Final = "<!-- generated: end -->"
DEFAULT_FILE: Final = Path("docs/features.md")

_SAID_OF_ALIAS: Final = {
    "minutes_since_last_txn": "ours is in seconds: divide by 60",
    "amount_zscore": "over 30 days, before this payment",
    "user_avg_amount_30d": "before this payment",
    "user_merchant_first_time": "forgotten after 90 days",
    "is_night": "before 6 in `FRAUD_TIME_ZONE`",
}


def generated() -> str:
    """The tables of all features by family, and the names that users of other systems know them by."""
    parts = [f"{len(FEATURES)} features; schema `{SCHEMA_HASH}`.", ""]
    for family, features in groupby(FEATURES, key=lambda f: f.family):
        parts += [f"### {family.capitalize()}", "", *_table(list(features)), ""]
    return "\n".join([*parts, "### Names elsewhere", "", *_aliases()])


def with_generated(text: str) -> str:
    """`text` with what stands between the markers replaced. Raises InputError where a marker is missing."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError("The page has lost its markers.", remedy=f"It needs the lines {BEGIN} and {END}.")
    return f"{head}{BEGIN}\n\n{generated()}\n\n{END}{tail}"


def _table(features: list[Feature]) -> list[str]:
    rows = [
        f"| `{f.name}` | {f.entity} | {f.unit} | {f.window} | {f.meaning} | {f.missing} | `{f.definition_hash}` |"
        for f in features
    ]
    return ["| name | of | unit | window | meaning | NaN means | definition |", "|---|---|---|---|---|---|---|", *rows]


def _aliases() -> list[str]:
    rows = [
        f"| `{alias}` | `{feature.name}` | {_SAID_OF_ALIAS.get(alias, 'the same')} |"
        for feature in FEATURES
        for alias in feature.aliases
    ]
    return ["| there | here | difference |", "|---|---|---|", *rows]


def main(path: Path = DEFAULT_FILE) -> None:
    """Rewrite the generated part of the page in place."""
    path.write_text(with_generated(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
