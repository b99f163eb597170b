"""The benchmarks' protocols on small data: what is trained on, what is tested, and that they run through the mappings."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import handbook
from benchmarks.imported import US_PER_DAY, ImportedWorld, read_world

START = date(2018, 8, 15)
FIRST = (START - date(1970, 1, 1)).days


def world(payments):
    """Payments as (day from the training week's first, customer, fraud), one feature."""
    day, customer, fraud = (np.array(column) for column in zip(*payments, strict=True))
    return ImportedWorld(
        features=np.zeros((len(day), 1), dtype=np.float32),
        feature_names=("amount",),
        event_time=(FIRST + day) * US_PER_DAY + 1,
        customer=customer.astype(np.int32),
        is_fraud=fraud.astype(bool),
    )


def test_the_handbook_leaves_out_customers_known_by_then():
    payments = [
        (-1, 9, 1),  # before the training week: trains only when it reaches further back
        (0, 1, 0), (6, 2, 1),  # the training week
        (7, 3, 1), (13, 4, 1),  # the gap: known on day 15 and on day 21
        (14, 1, 0), (14, 2, 0), (14, 3, 0), (14, 4, 0), (14, 9, 0),
        (15, 3, 0), (15, 4, 1), (20, 4, 0), (21, 1, 0),
    ]  # fmt: skip
    train, test = handbook.split(world(payments), START, train_days=7)
    assert np.flatnonzero(train).tolist() == [1, 2]
    assert np.flatnonzero(test).tolist() == [5, 7, 8, 9, 11, 12]
    longer, same = handbook.split(world(payments), START, train_days=28)
    assert np.flatnonzero(longer).tolist() == [0, 1, 2]
    assert np.array_equal(same, test)


def test_the_handbooks_result_has_the_promised_keys():
    rng = np.random.default_rng(0)
    n = 4_000
    payments = zip(np.sort(rng.integers(-30, 30, n)), rng.integers(0, 200, n), rng.random(n) < 0.05, strict=True)
    small = world(list(payments))
    small.features[:, 0] = small.is_fraud * 2 + rng.normal(size=n)
    result = handbook.run(small)
    assert (result["k"], result["train_days"], len(result["folds"])) == (4, 7, 4)
    for name in ("auc", "ap", "cp"):
        assert result[name] == pytest.approx(np.mean([fold[name] for fold in result["folds"]]))
    assert result["auc"] > 0.8


@pytest.fixture
def ulb_file(tmp_path):
    """A file of the ULB table's shape: seconds, 28 components, amount, class."""
    rng = np.random.default_rng(1)
    n = 3_000
    fraud = rng.random(n) < 0.03
    columns = {"Time": np.sort(rng.integers(0, 172_792, n)).astype(float)}
    columns |= {f"V{i}": rng.normal(size=n) - (3.0 * fraud if i in (10, 14) else 0) for i in range(1, 29)}
    table = pa.table({**columns, "Amount": np.round(rng.gamma(1, 80, n), 2), "Class": fraud.astype(np.int64)})
    path = tmp_path / "creditcard.parquet"
    pq.write_table(table, path)
    return path


def test_the_ulb_table_comes_through_its_mapping(ulb_file):
    small = read_world(ulb_file, "ulb")
    assert len(small.is_fraud) == 3_000
    assert {f"attributes.v{i}" for i in range(1, 29)} <= {name.lower() for name in small.feature_names}
    assert len(np.unique(small.customer)) == 3_000  # the row is the customer
    frauds = pq.read_table(ulb_file, columns=["Class"])["Class"].to_numpy().sum()
    assert small.is_fraud.sum() == frauds
    assert (np.diff(small.event_time) >= 0).all()


def test_the_ulb_benchmark_prints_one_object_last(ulb_file):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ulb", "--data", str(ulb_file), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["auc"] > 0.9
    assert result["ap"] > 0.3
    assert result["train_rows"] + result["test_rows"] == 3_000
    assert result["train_rows"] == pytest.approx(2_400, abs=80)


def test_sparkov_is_split_at_its_minute():
    from benchmarks import sparkov

    minute = int(datetime(2020, 6, 21, 12, 14, tzinfo=UTC).timestamp()) * 1_000_000
    times = np.array([minute - 1, minute, minute + 1])
    three = ImportedWorld(np.zeros((3, 1), np.float32), ("amount",), times, np.zeros(3, np.int32), np.zeros(3, bool))
    assert sparkov.split_at(three) == 1
