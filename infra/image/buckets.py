"""Create the buckets that the settings name: `python infra/image/buckets.py`, once, at the start.

Which ones: the bucket of every s3:// address in FER_REGISTRY, FER_BATCH_INPUT and
FER_BATCH_OUTPUT. Those that exist stay as they are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from fer.settings import settings

# A server that has just started may answer a listing and refuse a PUT.
SECONDS = 120.0
_SENTINEL = ".fer-ready"


def named(addresses: Iterable[str | None]) -> list[str]:
    """The buckets of s3://bucket/prefix addresses, each once; folders have none."""
    split = [urlsplit(address) for address in addresses if address]
    return sorted({one.netloc for one in split if one.scheme == "s3" and one.netloc})


def ensure(client: Any, bucket: str) -> bool:
    """Create `bucket` if it is missing and prove that it keeps an object; whether it was new."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
        made = False
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.create_bucket(Bucket=bucket)
        made = True
    client.put_object(Bucket=bucket, Key=_SENTINEL, Body=b"ready")
    body = client.get_object(Bucket=bucket, Key=_SENTINEL)["Body"].read()
    client.delete_object(Bucket=bucket, Key=_SENTINEL)
    if body != b"ready":
        raise OSError(f"bucket {bucket} gave back other bytes than were written")
    return made


def main(seconds: float = SECONDS) -> int:
    """Exit status 0 when every bucket is there; 1 with the reason after `seconds`."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    here = settings()
    addressing: Any = here.s3_addressing  # botocore's type allows three words
    client = boto3.client(
        "s3",
        endpoint_url=here.s3_endpoint,
        config=Config(
            s3={"addressing_style": addressing},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "max_attempts": 2},
            connect_timeout=3,
            read_timeout=60,
        ),
    )
    end = time.monotonic() + seconds
    for bucket in named((here.registry, here.batch_input, here.batch_output)):
        while True:
            try:
                made = ensure(client, bucket)
            except (BotoCoreError, ClientError, OSError) as error:
                code = getattr(error, "response", {}).get("ResponseMetadata", {})
                refused = code.get("HTTPStatusCode") in (401, 403)
                if refused or time.monotonic() > end:
                    sys.stderr.write(
                        f"Bucket {bucket}: {error}. Check AWS_ACCESS_KEY_ID, "
                        "AWS_SECRET_ACCESS_KEY and FER_S3_ENDPOINT.\n"
                    )
                    return 1
                time.sleep(1)
            else:
                sys.stderr.write(f"Bucket {bucket}: {'created' if made else 'was there'}.\n")
                break
    return 0


if __name__ == "__main__":
    sys.exit(main())
