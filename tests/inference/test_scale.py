"""A batch in shares: the same results as in one process, whoever is lost on the way."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fer.errors import (
    ConflictError,
    DetectorError,
    PackageError,
    UnavailableError,
    UsageError,
)
from fer.inference.batch import BatchSummary, run_batch
from fer.inference.results import read_parts
from fer.inference.scale import HerePool, ShareJob, lost_share, run_share, run_shares
from fer.inference.shares import SMALLEST, Share
from fer.params import FacesParams

Encode = Callable[..., bytes]
SURE = FacesParams(min_score=0.3)  # leaves out chance finds just over HOG's threshold
TWO = 2 * SMALLEST  # bytes: two small pictures


class Watched(HerePool):
    """Keeps what was submitted; `lost` numbers the shares whose workers die."""

    def __init__(self, room: int = 3, lost: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.size, self.lost = room, lost
        self.given: list[tuple[ShareJob, Share]] = []
        self.waiting: deque[tuple[ShareJob, Share, int]] = deque()
        self.most = 0
        self.drained = False

    def room(self) -> int:
        return self.size

    def submit(self, job: ShareJob, share: Share, number: int) -> None:
        self.given.append((job, share))
        self.waiting.append((job, share, number))
        self.most = max(self.most, len(self.waiting))

    def take(self) -> BatchSummary:
        job, share, number = self.waiting.pop()  # the last first: any order will do
        return lost_share(job, share, "lost") if number in self.lost else run_share(job, share)

    def drain(self) -> None:
        self.drained = True


@pytest.fixture
def walls(tmp_path: Path, encode: Encode) -> Path:
    """Twelve tiny pictures without a face."""
    folder = tmp_path / "walls"
    folder.mkdir()
    for number in range(12):
        level = np.full((4, 4), number, np.uint8)
        (folder / f"{number:02}.png").write_bytes(encode(level, "PNG"))
    return folder


def recorded(output: Path) -> Counter[str]:
    """How many times each picture is recorded, by file name; faces of one picture count once."""
    files = [*output.glob("parts/*.parquet"), *output.glob("quarantine/*.parquet")]
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    return Counter(row["uri"].rsplit("/", 1)[-1] for row in rows if not row.get("face"))


def files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.rglob("part-*")}


def test_shares_give_what_one_process_gives(model: Path, folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pool = Watched()
    summary = run_shares(
        folder,
        tmp_path / "shares",
        pool=pool,
        model=model,
        faces=SURE,
        share_bytes=1,
        progress=lambda *at: seen.append(at),
    )
    alone = run_batch(folder, tmp_path / "alone", model=model, faces=SURE)
    assert len(pool.given) == 9
    assert pool.most == 3
    assert pool.drained
    assert seen[-1] == (9, 9)

    own = {"run_id", "started_at", "analysed_at"}
    shared, single = (
        [{name: value for name, value in row.items() if name not in own} for row in table]
        for table in (read_parts(tmp_path / "shares").to_pylist(),
                      read_parts(tmp_path / "alone").to_pylist())
    )  # fmt: skip
    assert shared == single
    differ = own | {"output", "parts", "seconds", "pictures_per_second", "problems"}
    documents = [
        {name: value for name, value in one.as_dict().items() if name not in differ}
        for one in (summary, alone)
    ]
    assert documents[0] == documents[1]
    assert sorted(one["uri"] for one in summary.problems) == sorted(
        one["uri"] for one in alone.problems
    )
    assert len(summary.parts) == 6
    document = json.loads((tmp_path / "shares" / "summary.json").read_text())
    assert document == summary.as_dict()


def test_what_is_recorded_is_in_no_share(model: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_batch(folder, output, model=model, part_size=2)
    before = files(output)
    pool = Watched()
    again = run_shares(folder, output, pool=pool, model=model, share_bytes=1)
    assert (again.skipped, again.quarantined_before, again.analysed) == (9, 3, 0)
    assert not pool.given
    assert files(output) == before
    # And the other way round.
    (folder / "new.png").write_bytes((folder / "f-dot.png").read_bytes())
    assert run_shares(folder, output, pool=pool, model=model).analysed == 1
    assert run_batch(folder, output, model=model).analysed == 0


def test_what_fits_in_one_share_needs_no_pool(model: Path, walls: Path, tmp_path: Path) -> None:
    pool = Watched()
    summary = run_shares(walls, tmp_path / "out", pool=pool, model=model)
    assert summary.analysed == 12
    assert not pool.given
    assert len(summary.parts) == 1


def test_a_share_done_again_is_there_once(model: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    pool = Watched()
    run_shares(folder, output, pool=pool, model=model, share_bytes=300_000, csv=True)
    before = files(output)
    assert len(pool.given) > 1
    for job, share in pool.given:
        # Its worker was lost after the part was written: the part is counted, not made again.
        first = run_share(job, share)
        assert files(output) == before
        # Before it was written, but after the quarantine: both are replaced.
        for part in first.parts:
            (output / part).unlink()
        second = run_share(job, share)
        for name in ("analysed", "faces", "without_face", "quarantined", "failed", "expressions"):
            assert getattr(second, name) == getattr(first, name)
        assert second.parts == first.parts
        assert files(output).keys() == before.keys()
        before = files(output)
    assert set(recorded(output).values()) == {1}
    assert len(recorded(output)) == 9


def test_a_run_that_was_taken_over_writes_nothing_more(
    model: Path, walls: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    pool = Watched(lost=(1, 2, 3, 4, 5, 6))
    first = run_shares(walls, output, pool=pool, model=model, share_bytes=TWO)
    assert (first.analysed, first.failed) == (0, 12)
    assert run_batch(walls, output, model=model, part_size=5).analysed == 12
    for job, share in pool.given:
        with pytest.raises(ConflictError, match="taken over"):
            run_share(job, share)
    assert set(recorded(output).values()) == {1}


def test_a_share_that_kills_its_workers_fails_alone(
    model: Path, walls: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    pool = Watched(lost=(2, 5))
    summary = run_shares(walls, output, pool=pool, model=model, share_bytes=TWO)
    assert (summary.analysed, summary.failed) == (8, 4)
    assert {one["reason"] for one in summary.problems} == {"lost"}
    again = run_shares(walls, output, pool=Watched(), model=model, share_bytes=TWO)
    assert (again.analysed, again.skipped, again.failed) == (4, 8, 0)
    assert recorded(output) == Counter({f"{number:02}.png": 1 for number in range(12)})


def test_shares_that_all_fail_end_the_run(
    model: Path, walls: Path, tmp_path: Path, encode: Encode
) -> None:
    for number in range(12, 40):
        (walls / f"{number}.png").write_bytes(encode(np.zeros((4, 4), np.uint8), "PNG"))
    pool = Watched(room=2, lost=tuple(range(40)))
    with pytest.raises(UnavailableError, match=r"3 shares in a row .* because: lost"):
        run_shares(walls, tmp_path / "out", pool=pool, model=model, share_bytes=8 * SMALLEST)
    assert pool.drained
    assert len(pool.given) == 4
    # Not so where they are few pictures.
    pool = Watched(lost=(1, 2, 3, 4))
    assert run_shares(
        walls, tmp_path / "out", pool=pool, model=model, share_bytes=TWO
    ).analysed == 32  # fmt: skip


def test_a_worker_with_another_model_is_found_out(
    model: Path, walls: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(model.read_bytes())

    class Replaced(Watched):
        def submit(self, job: ShareJob, share: Share, number: int) -> None:
            make_model(own, shift=0.2)
            super().submit(job, share, number)

    with pytest.raises(PackageError, match="another model"):
        run_shares(walls, tmp_path / "out", pool=Replaced(), model=own, share_bytes=TWO)
    assert not recorded(tmp_path / "out")


def test_a_worker_that_describes_faces_otherwise_is_found_out(
    model: Path, walls: Path, tmp_path: Path
) -> None:
    class Elsewhere(Watched):
        def submit(self, job: ShareJob, share: Share, number: int) -> None:
            super().submit(replace(job, faces_digest="0" * 16), share, number)

    with pytest.raises(DetectorError, match="FER_LANDMARKS"):
        run_shares(walls, tmp_path / "out", pool=Elsewhere(), model=model, share_bytes=TWO)
    assert not recorded(tmp_path / "out")


def test_bad_input_is_told_before_anything_is_given_out(model: Path, tmp_path: Path) -> None:
    pool = Watched()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no picture"):
        run_shares(tmp_path / "empty", tmp_path / "out", pool=pool, model=model)
    with pytest.raises(UsageError, match="There is no"):
        run_shares(tmp_path / "none", tmp_path / "out", pool=pool, model=model)
    assert not (tmp_path / "out").exists()
    assert not pool.given


def test_the_pool_of_this_process(model: Path, walls: Path, tmp_path: Path) -> None:
    summary = run_shares(walls, tmp_path / "out", pool=HerePool(), model=model, share_bytes=TWO)
    assert (summary.analysed, len(summary.parts)) == (12, 6)
