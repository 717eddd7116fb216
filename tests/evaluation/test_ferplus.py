from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import SourceError, TableError
from fer.evaluation.ferplus import VOTES, majority, majority_by_name, no_votes, read_votes
from fer.expressions import EXPRESSIONS, Expression

PUBLISHED = ["Usage", "Image name", *VOTES]


def votes(**counts: int) -> list[int]:
    return [counts.get(name, 0) for name in VOTES]


def write(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (votes(happiness=9, neutral=1), Expression.HAPPY),
        (votes(anger=4, disgust=3, fear=3), Expression.ANGRY),
        (votes(sadness=6, neutral=4), Expression.SAD),
        (votes(surprise=5, fear=4, unknown=1), Expression.SURPRISE),
        (votes(disgust=8, NF=2), Expression.DISGUST),
        (votes(fear=10), Expression.FEAR),
        (votes(neutral=10), Expression.NEUTRAL),
        (votes(anger=5, sadness=5), -1),  # a tie
        (votes(anger=4, unknown=4, NF=2), -1),  # a tie with no expression
        (votes(contempt=6, neutral=4), -1),
        (votes(unknown=6, neutral=4), -1),
        (votes(NF=10), -1),
        (votes(), -1),
    ],
)
def test_majority(counts: list[int], expected: int) -> None:
    assert majority(np.array([counts])).tolist() == [int(expected)]


@given(st.lists(st.lists(st.integers(0, 10), min_size=10, max_size=10), max_size=30))
def test_a_usable_majority_has_more_votes_than_any_other(rows: list[list[int]]) -> None:
    table = np.array(rows, dtype=np.int64).reshape(-1, 10)
    ours = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
    for row, found in zip(rows, majority(table), strict=True):
        if found >= 0:
            place = VOTES.index(ours[found])
            assert all(row[place] > other for at, other in enumerate(row) if at != place)
        else:
            best = [at for at, count in enumerate(row) if count == max(row)]
            assert len(best) > 1 or VOTES[best[0]] in ("contempt", "unknown", "NF")


def test_votes_joined_by_name_follow_the_source(tmp_path: Path) -> None:
    path = write(
        tmp_path / "joined.csv",
        ["csv_row", "name", *VOTES],
        [
            [0, "train/angry/a.png", *votes(anger=10)],
            [1, "train/happy/b.png", *votes(happiness=10)],
            [2, "train/sad/c.png", *votes(sadness=10)],
        ],
    )
    table = read_votes(path, ["train/sad/c.png", "train/fear/x.png", "root/train/angry/a.png"])
    assert table.column_names == ["name", *VOTES]
    assert table["name"].to_pylist() == ["train/sad/c.png", "root/train/angry/a.png"]
    assert table["sadness"].to_pylist() == [10, 0]
    assert table.schema.equals(no_votes().schema)


def test_published_votes_join_by_row_number(tmp_path: Path) -> None:
    path = write(
        tmp_path / "fer2013new.csv",
        PUBLISHED,
        [
            ["Training", "fer0000000.png", *votes(neutral=10)],
            ["Training", "", *votes(NF=10)],
            ["PrivateTest", "fer0000002.png", *votes(fear=10)],
        ],
    )
    # The source table is sorted by name, not by row.
    table = read_votes(path, ["PrivateTest/00002", "Training/00000", "Training/00001"])
    assert table["fear"].to_pylist() == [10, 0, 0]
    assert table["NF"].to_pylist() == [0, 0, 10]


def test_published_votes_are_not_given_to_files(tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", PUBLISHED, [["Training", "", *votes(fear=10)]])
    with pytest.raises(SourceError, match=r"row order.*fer2013\.csv"):
        read_votes(path, ["train/fear/Training_00000.png"])


def test_published_votes_of_another_table_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", PUBLISHED, [["PublicTest", "", *votes(fear=10)]])
    with pytest.raises(SourceError, match=r"line 2.*another table"):
        read_votes(path, ["Training/00000"])
    with pytest.raises(SourceError, match=r"has 1 rows.*row 5"):
        read_votes(path, ["PublicTest/00005"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("name,neutral\na,1\n", "lacks the FER\\+ columns happiness"),
        ("name," + ",".join(VOTES) + "\na,1,2\n", "line 2.*ten counts"),
        ("name," + ",".join(VOTES) + "\na" + ",x" * 10 + "\n", "line 2.*ten counts"),
        ("name," + ",".join(VOTES) + "\na" + ",-1" * 10 + "\n", "no counts"),
        ("name," + ",".join(VOTES) + "\nother" + ",1" * 10 + "\n", "None of the source's 1"),
    ],
)
def test_files_that_hold_no_votes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_votes(path, ["a"])


def test_a_file_that_is_absent_or_binary(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        read_votes(tmp_path / "none.csv", ["a"])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(SourceError, match="cannot be read"):
        read_votes(tmp_path / "binary.csv", ["a"])


@given(st.binary(max_size=300))
def test_any_bytes_are_votes_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("votes") / "votes.csv"
    path.write_bytes(data)
    with pytest.raises(SourceError):
        read_votes(path, ["a"])


def test_majority_by_name_from_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    csv_file = write(
        tmp_path / "joined.csv", ["name", *VOTES], [["a", *votes(anger=9)], ["b", *votes(NF=9)]]
    )
    pq.write_table(read_votes(csv_file, ["a", "b"]), tmp_path / "ferplus.parquet")
    assert majority_by_name(tmp_path / "ferplus.parquet", ["b", "a", "c"]).tolist() == [-1, 0, -1]
    pq.write_table(no_votes(), tmp_path / "none.parquet")
    assert majority_by_name(tmp_path / "none.parquet", ["a"]).tolist() == [-1]


def test_majority_by_name_of_another_file(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(TableError, match="FER"):
        majority_by_name(tmp_path / "text.parquet", ["a"])
    with pytest.raises(TableError, match="FER"):
        majority_by_name(tmp_path / "absent.parquet", ["a"])
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(TableError, match="neutral"):
        majority_by_name(tmp_path / "other.parquet", ["a"])


@pytest.mark.shared
def test_the_real_votes(shared: Path) -> None:
    path = shared / "data" / "ferplus.csv"
    with path.open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    test = [name for name in names if "PrivateTest_" in name]
    table = read_votes(path, test)
    found = majority(np.stack([table[name].to_numpy() for name in VOTES], axis=1))
    labels = np.array([EXPRESSIONS.index(name.split("/")[1]) for name in test])
    usable = found >= 0
    assert len(test) == 3589
    assert usable.sum() == 3350
    # Ten annotators agree with FER2013's own label on two images in three.
    assert (found[usable] == labels[usable]).mean() == pytest.approx(0.6555, abs=0.0005)
