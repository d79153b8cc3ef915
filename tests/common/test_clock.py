"""The time that processes agree on, by clocks of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.common.clock import SharedClock

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Machine:
    """A machine whose clock is ahead of the database's by so many seconds."""

    def __init__(self, off_s: float) -> None:
        self.elapsed, self.off_s = 1000.0, off_s
        self.clock = SharedClock(elapsed=lambda: self.elapsed, wall=lambda: self.truth + timedelta(seconds=self.off_s))

    @property
    def truth(self) -> datetime:
        """The database's time."""
        return NOON + timedelta(seconds=self.elapsed - 1000.0)

    def ask(self, *, before_s: float, after_s: float) -> None:
        """Ask the database, whose answer is made and comes after so long."""
        asked_at = self.clock.elapsed()
        self.elapsed += before_s
        at = self.truth
        self.elapsed += after_s
        self.clock.learn(at, asked_at)

    @property
    def wrong_s(self) -> float:
        """How far its time is from the database's."""
        return (self.clock.now() - self.truth).total_seconds()


def test_the_databases_time_is_gone_by_once_it_was_told() -> None:
    """Five minutes ahead or behind: what is left is no more than its answer took."""
    for off_s in (300.0, -300.0):
        machine = Machine(off_s)
        assert abs(machine.wrong_s) == 300
        machine.ask(before_s=0.01, after_s=0.02)
        assert abs(machine.wrong_s) < 0.031


def test_a_slow_answer_does_not_blur_what_a_quick_one_told() -> None:
    """An answer that took seconds tells less than is known."""
    machine = Machine(300.0)
    machine.ask(before_s=0.001, after_s=0.001)
    known = machine.wrong_s
    assert abs(known) < 0.002
    machine.ask(before_s=4.0, after_s=0.0)
    machine.ask(before_s=0.0, after_s=4.0)
    assert abs(machine.wrong_s) <= abs(known) + 1e-6


def test_a_clock_that_is_set_while_a_process_runs_changes_nothing() -> None:
    """An operator or a time service may set it back or on by minutes."""
    machine = Machine(0.0)
    machine.ask(before_s=0.001, after_s=0.001)
    machine.off_s = 300.0
    assert abs(machine.wrong_s) < 0.01


def test_another_server_with_another_time_is_gone_by_when_it_tells_it() -> None:
    """The server that takes the database over may have a clock of its own."""
    machine = Machine(0.0)
    machine.ask(before_s=0.001, after_s=0.001)
    machine.clock.learn(machine.truth + timedelta(seconds=20), machine.clock.elapsed())
    assert abs(machine.wrong_s - 20) < 0.01
