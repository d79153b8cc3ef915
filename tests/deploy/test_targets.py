"""The table of goals for speed."""

from __future__ import annotations

import pytest

from bench import gateway, targets
from bench.target import Target
from bench.targets import MOA, ONE, TWO


def test_each_row_says_what_it_can_of_whom_was_measured() -> None:
    """Ratios are over the peer of the same run; where it is not installed, and where a target has no such measure, the
    cell is empty."""
    one = {"requests_per_s": 600.0, "cpu_us_per_request": 1500.0, "memory_mb": 250.0}
    found = {"direct": one, MOA: one, TWO: {**one, "requests_per_s": 900.0}, "portkey": {"requests_per_s": 800.0}}
    lines = {line[:62].strip(): line[62:] for line in targets.table(found).splitlines()[1:]}
    assert lines["requests/s ÷ Portkey's, 16 at once"].split() == ["0.75", "1.12", "1.00", "1.0", "1.2", "1.5"]
    assert lines["requests/s ÷ LiteLLM's"].split() == ["11", "13", "16"]
    assert lines["requests/s with two routers ÷ with one"].split() == ["1.50"]
    assert lines["CPU of a request, ms"].split() == ["1.50", "1.50", "1.0", "0.85", "0.7"]


def test_streams_count_as_kept_up_with_by_their_latest_tokens() -> None:
    """And only where none was cut off; what was not tried is not claimed."""
    lags = {"paced_20_lag_p99_ms": 2.0, "paced_200_lag_p99_ms": 29.9, "paced_300_lag_p99_ms": 12.0}
    assert targets.kept_up({ONE: {**lags, "paced_400_lag_p99_ms": 31.0}}, ONE) == 300
    assert targets.kept_up({ONE: {**lags, "paced_300_unfinished": 4.0}}, ONE) == 200
    assert targets.kept_up({ONE: {"paced_20_lag_p99_ms": 90.0}}, ONE) == 0


def test_a_peer_that_fails_leaves_the_others_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked no more, and told why; where the gateway fails the bench has failed."""
    asked = gateway.Asked([Target(name=name, base_url="") for name in (MOA, "litellm")])

    def measured(target: Target) -> dict[str, float]:
        if target.name in fails:
            raise gateway.NotGood("11 that were waited for no longer")
        return {"requests_per_s": 1.0}

    fails = ["litellm"]
    assert list(asked.each(measured)) == [(MOA, {"requests_per_s": 1.0})]
    assert capsys.readouterr().err == "litellm is left out from here on: 11 that were waited for no longer\n"
    fails = [MOA]
    with pytest.raises(SystemExit, match="moa: 11 that were waited for no longer"):
        list(asked.each(measured))
