"""Random histories that live on the borders of the windows, and the same history in every executor's own form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from numpy.typing import NDArray

from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, PRIOR_RATE, PRIOR_STRENGTH
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import LabelChange, Transaction
from fraud_pipeline_tests.domain.oracle import DAY, HOUR, MINUTE, SECOND, Change, Payment, log_of, oracle_matrix

T = TypeVar("T")
START = 20_000 * DAY
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BORDERS = [
    *(0, SECOND, MINUTE, 2 * MINUTE, 3 * MINUTE, 10 * MINUTE, 12 * MINUTE, 13 * MINUTE, HOUR, DAY, DAY + HOUR, 7 * DAY),
    *(8 * DAY, 10 * DAY, 11 * DAY, 14 * DAY, 28 * DAY, 30 * DAY, 35 * DAY, 37 * DAY, 60 * DAY, 61 * DAY, 90 * DAY),
]
PACES = [13 * MINUTE, DAY + HOUR, 14 * DAY, 90 * DAY]
PLACES = [(None, None), (50.0, 4.0), (51.5, -0.1), (-33.9, 151.2), (90.0, 0.0), (0.0, 180.0)]
TRAITS = 2**40
AMOUNTS = [0, 1, 10, 99, 100, 1_000, 1_999, 333_333, 1_000_000_000]


@dataclass(frozen=True)
class History:
    """Payments in log order and label changes in any order; `places` are theirs in a served log, else time says where."""

    payments: list[Payment]
    changes: list[Change]
    places: list[int] | None = None

    @property
    def log(self) -> list[Payment | Change]:
        return log_of(self.payments, self.changes, self.places)

    @property
    def labels(self) -> LabelColumns:
        columns = label_columns(self.changes)
        return columns if self.places is None else replace(columns, position=np.array(self.places, np.int64))


def gaps(pace: int) -> st.SearchStrategy[int]:
    """Microseconds between two payments: a border to the microsecond, or anything at this pace."""
    reachable = [border for border in BORDERS if border <= pace]
    near = st.builds(lambda b, off: max(0, b + off), st.sampled_from(reachable), st.sampled_from([-1, 0, 0, 1]))
    return near | st.integers(0, pace)


def whole(unit: int) -> st.SearchStrategy[int]:
    """Starts that put the borders on minutes, hours and days, or just beside them."""
    return st.builds(lambda n, off: START + n * unit + off, st.integers(0, 30), st.sampled_from([-1, 0, 0, 1]))


STARTS = whole(MINUTE) | whole(HOUR) | whole(DAY)
GAPS = {pace: gaps(pace) for pace in PACES}
STEPS = {pace: st.tuples(GAPS[pace], GAPS[pace], st.integers(0, TRAITS - 1)) for pace in PACES}
DELAYS = st.sampled_from([-HOUR, 0, 1, DAY, 7 * DAY - 1, 7 * DAY, 7 * DAY + 1, 14 * DAY, 28 * DAY]) | gaps(30 * DAY)
LABELS = st.tuples(
    st.integers(0, 63), DELAYS, st.sampled_from([1, 1, 1, 0, -1]), st.none() | gaps(14 * DAY), st.integers(0, 2**16)
)


@st.composite
def histories(draw: st.DrawFn, *, longest: int = 24, late: bool = True, served: bool = False) -> History:
    """Up to `longest` payments of few customers at few merchants and their labels, right, wrong, early, late, taken back.

    With `late` some payments are older than those before them; with `served` labels may stand anywhere in the log.
    """
    pace, clock = draw(st.sampled_from(PACES)), draw(STARTS)
    crowd, shops = draw(st.sampled_from([(1, 1), (1, 3), (2, 1), (3, 2), (3, 3)]))
    payments: list[Payment] = []
    least = draw(st.sampled_from([0, longest // 2]))  # Hypothesis' own lists are short, and few events seldom interact
    for gap, back, traits in draw(st.lists(STEPS[pace], min_size=least, max_size=longest)):
        clock += gap
        time = clock - back if late and traits % 8 == 7 else clock
        payments.append(payment_with(traits // 8, time=time, crowd=crowd, shops=shops))
    labels = draw(st.lists(LABELS, max_size=10)) if payments else []
    order = {}
    for at, delay, change, taken_back, rank in labels:
        paid = payments[at % len(payments)]
        order[change_of(paid, paid.time + delay, change)] = rank
        if taken_back is not None:
            order[change_of(paid, paid.time + delay + taken_back, -change)] = rank // 2
    changes = sorted(order, key=lambda change: order[change])
    if not (served and draw(st.booleans())):
        return History(payments, changes)
    return History(payments, changes, [order[change] % (len(payments) + 1) for change in changes])


def payment_with(traits: int, *, time: int, crowd: int, shops: int) -> Payment:
    """Decode one number into a payment's fields: one draw instead of eight is what makes many examples affordable."""

    def choice(options: Sequence[T]) -> T:
        nonlocal traits
        traits, at = divmod(traits, len(options))
        return options[at]

    place = choice(PLACES)
    return Payment(
        time=time,
        customer=choice("abc"[:crowd]),
        merchant=choice(["m0", "m1", "m2"][:shops]),
        country=choice([None, "BE", "FR", "LU"]),
        device=choice([None, "d0", "d1"]),
        category=choice(["unknown", "food"]),
        channel=choice(["pos", "online"]),
        latitude=place[0],
        longitude=place[1],
        amount_minor=choice([*AMOUNTS, traits % 100_000]),
    )


def change_of(payment: Payment, known_at: int, change: int = 1) -> Change:
    """A label change with the payment's own fields."""
    return Change(known_at, payment.time, change, payment.merchant, payment.category, payment.channel, payment.country)


def utc(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def transaction_of(payment: Payment, number: int) -> Transaction:
    return Transaction(
        transaction_id=f"t{number}",
        event_time=utc(payment.time),
        customer_id=payment.customer,
        merchant_id=payment.merchant,
        amount_minor=payment.amount_minor,
        merchant_category=payment.category,
        channel=payment.channel,
        country=payment.country,
        device_id=payment.device,
        latitude=payment.latitude,
        longitude=payment.longitude,
    )


def label_change_of(change: Change) -> LabelChange:
    return LabelChange(
        transaction_id="t",
        change=change.change,
        known_at=utc(change.known_at),
        event_time=utc(change.event_time),
        customer_id="c",
        merchant_id=change.merchant,
        merchant_category=change.category,
        channel=change.channel,
        country=change.country,
    )


def payment_of(transaction: Transaction) -> Payment:
    """The other way: what the oracle reads of a transaction."""
    return Payment(
        time=(transaction.event_time - EPOCH) // timedelta(microseconds=1),
        customer=transaction.customer_id,
        merchant=transaction.merchant_id,
        amount_minor=transaction.amount_minor,
        category=transaction.merchant_category,
        channel=transaction.channel,
        country=transaction.country,
        device=transaction.device_id,
        latitude=transaction.latitude,
        longitude=transaction.longitude,
    )


def change_from(label: LabelChange) -> Change:
    """The other way: what the oracle reads of a label change."""
    return Change(
        known_at=(label.known_at - EPOCH) // timedelta(microseconds=1),
        event_time=(label.event_time - EPOCH) // timedelta(microseconds=1),
        change=label.change,
        merchant=label.merchant_id,
        category=label.merchant_category,
        channel=label.channel,
        country=label.country,
    )


TIMESTAMP = pa.timestamp("us", tz="UTC")
TRANSACTION_FIELDS = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_time", TIMESTAMP),
        ("customer_id", pa.string()),
        ("merchant_id", pa.string()),
        ("amount_minor", pa.int64()),
        ("currency", pa.string()),
        ("merchant_category", pa.string()),
        ("channel", pa.string()),
        ("country", pa.string()),
        ("device_id", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
    ]
)
LABEL_FIELDS = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("is_fraud", pa.bool_()),
        ("source", pa.string()),
        ("author", pa.string()),
        ("known_at", TIMESTAMP),
        ("change", pa.int8()),
        ("event_time", TIMESTAMP),
        ("customer_id", pa.string()),
        ("merchant_id", pa.string()),
        ("merchant_category", pa.string()),
        ("channel", pa.string()),
        ("country", pa.string()),
        ("device_id", pa.string()),
    ]
)


def event_columns(payments: Sequence[Payment], time_zone: str = "UTC") -> EventColumns:
    rows = []
    for number, payment in enumerate(payments):
        row = asdict(transaction_of(payment, number))
        rows.append({field: row[field] for field in TRANSACTION_FIELDS.names})
    return EventColumns.from_table(pa.Table.from_pylist(rows, schema=TRANSACTION_FIELDS), time_zone=time_zone)


def label_columns(changes: Sequence[Change]) -> LabelColumns:
    rows = [
        {"is_fraud": change.change == 1, "source": "simulation", "author": "test", **asdict(label_change_of(change))}
        for change in changes
    ]
    return LabelColumns.from_table(pa.Table.from_pylist(rows, schema=LABEL_FIELDS))


def apply_online(state: FeatureState, log: Sequence[Payment | Change]) -> NDArray[np.float32]:
    """Feed a log to the live state as a service would, one event at a time; the features of its payments."""
    rows: list[NDArray[np.float32]] = []
    for entry in log:
        if isinstance(entry, Payment):
            transaction = transaction_of(entry, len(rows))
            rows.append(np.array(state.read(transaction), copy=True))
            state.update(transaction)
        else:
            state.apply_label(label_change_of(entry))
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(FEATURE_NAMES))


def online_matrix(history: History, time_zone: str = "UTC") -> NDArray[np.float32]:
    return apply_online(FeatureState.empty(time_zone=time_zone), history.log)


def expected(history: History, *, time_zone: str = "UTC", rows: Sequence[int] | None = None) -> NDArray[np.float32]:
    """The oracle's values of these payments (all by default)."""
    return oracle_matrix(
        history.payments,
        history.changes,
        FEATURE_NAMES,
        prior_strength=PRIOR_STRENGTH,
        prior_rate=PRIOR_RATE,
        time_zone=time_zone,
        places=history.places,
        rows=rows,
    )


# The only values whose float64 arithmetic may be ordered or rounded differently by another compiler's math library (log1p,
# sin, cos, asin, and fused multiply-adds in the sum of squares), which can move a float32 by one unit in the last place.
ONE_ULP = {"amount_log", "amount_zscore_30d", "distance_from_last_km", "speed_from_last_kmh"}


def difference(computed: NDArray[np.float32], oracle: NDArray[np.float32]) -> str:
    """Empty when equal bit for bit (within an ulp for `ONE_ULP`), else every differing feature of the first differing row."""
    assert computed.dtype == oracle.dtype == np.float32
    assert computed.shape == oracle.shape
    same = (computed.view(np.uint32) == oracle.view(np.uint32)) | (np.isnan(computed) & np.isnan(oracle))
    loose = np.array([name in ONE_ULP for name in FEATURE_NAMES])
    with np.errstate(invalid="ignore"):
        near = np.abs(computed - oracle) <= np.spacing(np.abs(oracle))
    wrong = ~(same | (loose & near))
    if not wrong.any():
        return ""
    row = int(np.flatnonzero(wrong.any(axis=1))[0])
    parts = [f"{FEATURE_NAMES[j]}: {computed[row, j]!r}, oracle {oracle[row, j]!r}" for j in np.flatnonzero(wrong[row])]
    return f"row {row} of {len(oracle)}: " + "; ".join(parts)
