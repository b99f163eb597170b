from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.drift_report import MAX_ROWS, ReportSample, render, write_verdict
from fraud_pipeline.domain.drift import Outcomes, Window, judge, nothing_came
from fraud_pipeline.errors import DependencyError, InputError

ROWS = 400


def columns(seed: int, *, moved: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "amount": rng.lognormal(3 + moved, 1, ROWS),
        "customer_count_24h": rng.poisson(2, ROWS).astype(np.float32),
        "never_there": np.full(ROWS, np.nan),
        "country_code": np.where(rng.random(ROWS) < (0.5 if moved else 0.02), np.nan, rng.integers(0, 4, ROWS)),
        "always_one": np.ones(ROWS),
        "merchant_fraud_share_7d": rng.choice([0.01, 0.02], ROWS),
    }


def labels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(ROWS) < 0.02


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    before, now = columns(0), columns(1, moved=1.0)
    scores = tuple(np.random.default_rng(seed).normal(-5, 1, ROWS) for seed in (2, 3))
    verdict = judge(
        before,
        now,
        predictions=(scores[0], scores[1]),
        outcomes=(Outcomes(9_000, 90, 45, 40), Outcomes(4_000, 41, 20, 18)),
    )
    path = tmp_path_factory.mktemp("report") / "sub" / "drift.html"
    made = render(
        verdict,
        path,
        reference=ReportSample(before, scores[0], labels(4)),
        current=ReportSample(now, scores[1], labels(5)),
        title="Drift of version 3 <as of 2026-05-01>",
    )
    assert made == path
    assert [p.name for p in path.parent.iterdir()] == ["drift.html"]
    return path.read_text()


def test_the_page_begins_with_our_verdict_and_its_reasons(page: str):
    summary = page[page.index("<section") : page.index("</section>")]
    assert "<h1>Drift of version 3 &lt;as of 2026-05-01&gt;</h1>" in summary
    assert '<span class="status broken_input">broken input</span>' in summary
    assert re.search(r"<li>country_code is missing in [45]\d%, it was in \d%</li>", summary)


def test_missing_rates_and_outcomes_are_told_by_us(page: str):
    rows = re.findall(r"<tr>(?:<td>[^<]*</td>)+</tr>", page[: page.index("</section>")])
    cells = [re.findall(r"<td>([^<]*)</td>", row) for row in rows]
    assert ["recall", "44.44%", "43.90%"] in cells
    fault, missing = (c for c in cells if c[0] == "country_code")
    assert fault[1:] == ["missing", "", ""]
    assert missing[3] == "yes"
    assert [c[0] for c in cells if "wasserstein" in c or "jensenshannon" in c] == ["merchant_fraud_share_7d"]
    assert "not shown below: never_there" in page


def test_evidently_shows_the_inputs_the_scores_and_the_labels(page: str):
    below = page[: page.index("<section")] + page[page.index("</section>") :]
    for name in ("amount", "customer_count_24h", "country_code", "always_one", "prediction (raw score)", "label"):
        assert name in below, name
    for name in ("never_there", "merchant_fraud_share_7d"):
        assert name not in below, name


def test_the_page_needs_no_network(page: str):
    assert re.findall(r'(?:src|href)="(https?:[^"]+)"', page) in ([], ["https://plotly.com/"])
    assert "<link" not in page


def test_a_sample_without_scores_and_labels_is_enough_and_a_large_one_is_cut(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("fraud_pipeline.adapters.drift_report.MAX_ROWS", 250)
    assert MAX_ROWS == 5_000
    before = {name: columns(0)[name] for name in ("amount", "always_one")}
    verdict = judge(before, before)
    path = render(
        verdict, tmp_path / "r.html", reference=ReportSample(before), current=ReportSample(before), title="x", seed=1
    )
    page = path.read_text()
    assert "No mature labels since the champion was fitted" in page
    assert "No input is missing more or less often" in page


def test_samples_without_any_value_are_refused_and_leave_the_old_page(tmp_path: Path):
    path = tmp_path / "r.html"
    path.write_text("old")
    nothing = {"a": np.full(ROWS, np.nan)}
    with pytest.raises(InputError, match="No input has values"):
        render(judge(nothing, nothing), path, reference=ReportSample(nothing), current=ReportSample(nothing), title="x")
    assert path.read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    before = {"amount": columns(0)["amount"]}
    with pytest.raises(DependencyError, match=r"file/r\.html cannot be written"):
        render(
            judge(before, before),
            tmp_path / "file" / "r.html",
            reference=ReportSample(before),
            current=ReportSample(before),
            title="x",
        )


def test_the_verdict_is_a_file_too_with_missing_numbers_as_null(tmp_path: Path):
    nothing = {"a": np.full(ROWS, np.nan), "b": np.ones(ROWS)}
    verdict, now = judge(nothing, nothing), datetime(2026, 5, 1, 3, tzinfo=UTC)
    path = write_verdict(tmp_path / "sub" / "v.json", verdict, champion=3, as_of=date(2026, 5, 1), now=now)
    told = json.loads(path.read_text())
    assert (told["timestamp"], told["as_of"], told["champion"]) == ("2026-05-01T03:00:00+00:00", "2026-05-01", 3)
    assert told["feature_details"][0]["reference_mean"] is None
    assert told.items() >= verdict.to_dict().items()


def test_a_verdict_that_judged_nothing_is_a_page_too(tmp_path: Path):
    before = {"amount": columns(0)["amount"]}
    nothing = nothing_came(first=date(2026, 5, 1), last=date(2026, 5, 7), reference_rows=ROWS)
    empty = ReportSample({"amount": before["amount"][:0]})
    path = render(nothing, tmp_path / "r.html", reference=ReportSample(before), current=empty, title="Silence")
    page = path.read_text()
    assert "<li>not one payment came from 2026-05-01 to 2026-05-07</li>" in page
    assert page.endswith("</body></html>")
    assert "Below:" not in page


def test_a_broken_input_says_since_when_on_the_page(tmp_path: Path):
    before, now = columns(0), columns(1)
    day = np.repeat(np.arange(20_000, 20_008), ROWS // 8)
    now["amount"] = np.where(day >= 20_006, np.nan, now["amount"])
    verdict = judge(before, now, window=Window(day, np.arange(ROWS)))
    path = render(verdict, tmp_path / "r.html", reference=ReportSample(before), current=ReportSample(now), title="x")
    assert "<tr><td>amount</td><td>missing</td><td>2024-10-10</td><td></td></tr>" in path.read_text()


def test_importing_the_adapter_loads_no_evidently():
    program = "import sys, fraud_pipeline.adapters.drift_report; assert not {'evidently', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
