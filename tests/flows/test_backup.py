"""What `make up` keeps comes back as it was, ETags too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from seaweed import weed_server

from flows.local import backup

MIB = 1 << 20


def test_objects_come_back_with_the_etags_that_results_name(tmp_path: Path) -> None:
    """Of one piece, and of the parts in which an uploader sent a large one."""
    from boto3.s3.transfer import TransferConfig

    with weed_server(tmp_path / "server") as server:
        for bucket in ("photographs", "restored"):
            server.make_bucket(bucket)
        asking = server.client()
        noise = np.random.default_rng(0).integers(0, 256, 13 * MIB, dtype=np.uint8).tobytes()
        (tmp_path / "large").write_bytes(noise)
        asking.put_object(Bucket="photographs", Key="a/whole.jpg", Body=noise)
        for size in (5, 6):
            cut = TransferConfig(multipart_threshold=size * MIB, multipart_chunksize=size * MIB)
            asking.upload_file(str(tmp_path / "large"), "photographs", f"{size}.tif", Config=cut)

        def etags(bucket: str) -> dict[str, str]:
            found = asking.list_objects_v2(Bucket=bucket)["Contents"]
            return {one["Key"]: one["ETag"] for one in found}

        s3: Any = SimpleNamespace(
            endpoint=server.endpoint_url,
            access_key=server.access_key,
            secret_key=server.secret_key,
        )
        postgres: Any = SimpleNamespace(dump=lambda path: path.write_bytes(b"dump"))
        note = backup.back_up(postgres, s3, "photographs", tmp_path / "backup")
        assert note["parts"] == {"5.tif": 5 * MIB, "6.tif": 6 * MIB}
        assert backup.restore_objects(s3, "restored", tmp_path / "backup") == 3
        assert len(set(etags("photographs").values())) == 3
        assert etags("restored") == etags("photographs")
