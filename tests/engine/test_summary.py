"""How long a training is going to take is told once, soon after it has begun."""

import pytest

from maskclippp.engine import summary
from maskclippp.engine.summary import ExpectedTime


class Clock:
    """Stands in for the module time: no load on the machine moves it."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter(self) -> int:
        return self.now


def run(steps: int, total: int, clock: Clock) -> None:
    """Steps of 2 seconds, of which the first three take 50, and an evaluation after each."""
    expected = ExpectedTime()
    for index in range(steps):
        with expected.step(total - index - 1):
            clock.now += 50 if index < 3 else 2
        clock.now += 1000


def test_the_time_is_that_of_the_steps_without_the_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(summary, "time", clock)
    with caplog.at_level("INFO"):
        run(steps=25, total=100, clock=clock)
    (message,) = caplog.messages
    assert "Expected time: 0:03:00 for the remaining 90 iterations, 2.00 s each" in message


def test_a_short_training_is_over_before_it_could_be_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(summary, "time", clock)
    with caplog.at_level("INFO"):
        run(steps=10, total=10, clock=clock)
    assert not caplog.messages
