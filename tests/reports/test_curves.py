from __future__ import annotations

from pathlib import Path

import pytest

from fer.errors import TableError
from fer.reports.curves import plot_curves, read_history

HEADER = "epoch,phase,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"


def history(path: Path, head: int, finetune: int) -> Path:
    lines = [HEADER]
    for epoch in range(1, head + finetune + 1):
        phase = "head" if epoch <= head else "finetune"
        lines.append(f"{epoch},{phase},{2 / epoch},{1 - 0.7 / epoch},{2.1 / epoch},0.5,1e-3,9.5")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("head", "finetune", "best", "stopped"),
    [(1, 11, 9, 12), (5, 60, 40, None), (1, 1, 2, None), (1, 0, 1, None), (0, 3, 1, 3)],
)
def test_it_draws(tmp_path: Path, head: int, finetune: int, best: int, stopped: int | None) -> None:
    source = history(tmp_path / "history.csv", head, finetune)
    plot_curves(source, tmp_path / "curves.png", best, stopped)
    plot_curves(source, tmp_path / "again.png", best, stopped)
    data = (tmp_path / "curves.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "again.png").read_bytes()


def test_best_epoch_and_stop_are_drawn(tmp_path: Path) -> None:
    source = history(tmp_path / "history.csv", 1, 9)
    drawn = set()
    for best, stopped in ((5, None), (6, None), (6, 9), (6, 10)):
        plot_curves(source, tmp_path / "curves.png", best, stopped)
        drawn.add((tmp_path / "curves.png").read_bytes())
    assert len(drawn) == 4


def test_history_is_read_as_numbers(tmp_path: Path) -> None:
    epochs = read_history(history(tmp_path / "history.csv", 1, 2))
    assert [one.epoch for one in epochs] == [1, 2, 3]
    assert [one.phase for one in epochs] == ["head", "finetune", "finetune"]
    assert epochs[1].val_loss == pytest.approx(1.05)


def test_an_epoch_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no epoch 7"):
        plot_curves(history(tmp_path / "history.csv", 1, 2), tmp_path / "curves.png", 7, None)
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no epoch"),
        (HEADER + "\n", "no epoch"),
        ("epoch,phase\n1,head\n", "line 2"),
        (HEADER + "\n1,head,x,1,1,1,1,1\n", "line 2"),
        (HEADER + "\n1,head,1\n", "line 2"),
    ],
)
def test_files_that_are_no_history(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        read_history(tmp_path / "history.csv")


def test_no_history(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="dvc repro train"):
        read_history(tmp_path / "history.csv")
