import io

import pytest
from rich.console import Console

from lilliput.train import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("CI", raising=False)
    return now


def on_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("rich.console.Console", lambda stderr: Console(file=io.StringIO(), force_terminal=terminal))


def test_it_appears_on_a_terminal_after_two_seconds(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    on_terminal(monkeypatch, True)
    with progress.Bar(total=10) as bar:
        clock[0] = 1.9
        bar.update(1, "epoch 1")
        assert not bar.visible
        clock[0] = 2.1
        bar.update(2)
        assert bar.visible


@pytest.mark.parametrize(("terminal", "ci", "show"), [(False, "", True), (True, "true", True), (True, "", False)])
def test_elsewhere_it_stays_silent(monkeypatch: pytest.MonkeyPatch, clock: list[float], terminal: bool, ci: str, show: bool) -> None:
    on_terminal(monkeypatch, terminal)
    monkeypatch.setenv("CI", ci)
    with progress.Bar(total=10, show=show) as bar:
        clock[0] = 60.0
        bar.update(5)
        assert not bar.visible
