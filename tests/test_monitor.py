"""What a run says besides the article's lines."""

import pytest

from ptb import monitor


@pytest.mark.parametrize("seconds, said", [
    (0, "0 seconds"), (89, "89 seconds"), (90, "2 minutes"), (1500, "25 minutes"),
    (5400, "2 hours"), (36 * 3600 - 1, "36 hours"), (216_000, "2.5 days"),
])
def test_duration(seconds, said):
    assert monitor.duration(seconds) == said


def test_forecast_is_said_once_after_a_hundred_steps(monkeypatch, capsys):
    """Ten slow steps, then 0.5 s each: 30,100 steps are 15,000 s from the hundredth on."""
    clock = iter([100.0, 100.0 + 90 * 0.5])
    monkeypatch.setattr(monitor.time, "monotonic", lambda: next(clock))
    forecast = monitor.Forecast(30_100)
    for step in range(1, 300):
        forecast.after_step()
        assert capsys.readouterr().out == (
            "Training will take about 4 hours.\n" if step == 100 else ""
        )


def test_a_short_run_has_no_forecast(capsys):
    forecast = monitor.Forecast(100)
    for _ in range(100):
        forecast.after_step()
    assert capsys.readouterr().out == ""
