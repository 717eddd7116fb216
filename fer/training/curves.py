"""The learning curves as files: history.csv, and DVCLive's for `dvc plots`."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import asdict, fields
from pathlib import Path

from fer.files import write_text
from fer.training.checkpoint import EpochRecord


def write_history(path: Path, history: list[EpochRecord]) -> None:
    """Write one CSV row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in history)
    write_text(path, text.getvalue())


class DvcLiveCurves:
    """Feeds DVCLive, which `dvc plots` and editors watch while the training runs.

    A resumed run starts over with a fresh folder and shows the earlier epochs first, because
    DVC removes a stage's outputs before it runs the stage.
    """

    _SHOWN = ("loss", "accuracy", "learning_rate")

    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        shutil.rmtree(folder, ignore_errors=True)
        self._shown = 0
        self._live = Live(
            str(folder), report=None, save_dvc_exp=False, dvcyaml=None, monitor_system=False
        )

    def show(self, history: list[EpochRecord]) -> None:
        """Log the epochs that were not logged yet."""
        for record in history[self._shown :]:
            for name in self._SHOWN:
                self._live.log_metric(f"train/{name}", getattr(record, name))
            self._live.log_metric("validation/loss", record.val_loss)
            self._live.log_metric("validation/accuracy", record.val_accuracy)
            self._live.next_step()
            self._shown += 1

    def close(self) -> None:
        """Write the summary."""
        self._live.end()
