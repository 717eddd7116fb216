"""The IAM policies of docs/registry.md allow all that a reader and a writer ask of S3."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from policies import documented_policies
from seaweed import S3Server

from fer.registry import Registry
from fer.registry.s3_store import S3Store

ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


class Requests:
    """What was asked of S3: (action, resource, prefix of a listing)."""

    def __init__(self) -> None:
        self.made: set[tuple[str, str, str]] = set()

    def __call__(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        resource = "arn:aws:s3:::BUCKET"
        if "Key" in params:
            resource += f"/{params['Key']}"
        self.made.add((ACTIONS[model.name], resource, params.get("Prefix", "")))

    def denied(self, policy: dict[str, Any]) -> list[tuple[str, str, str]]:
        return sorted(one for one in self.made if not _allows(policy, *one))


def _allows(policy: dict[str, Any], action: str, resource: str, prefix: str) -> bool:
    for statement in policy["Statement"]:
        actions, resources = statement["Action"], statement["Resource"]
        actions = [actions] if isinstance(actions, str) else actions
        resources = [resources] if isinstance(resources, str) else resources
        wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", "*")
        if (
            action in actions
            and any(fnmatchcase(resource, pattern) for pattern in resources)
            and fnmatchcase(prefix, wanted)
        ):
            return True
    return False


@pytest.fixture
def requests(moto: str, monkeypatch: pytest.MonkeyPatch) -> Requests:
    S3Server(moto, "policies", "any").use(monkeypatch)
    monkeypatch.setenv("FER_REGISTRY", "s3://models/PREFIX".lower())
    store = Registry.open().store
    assert isinstance(store, S3Store)
    found = Requests()
    # One client is shared by all stores of these credentials.
    store._client.meta.events.register("provide-client-params.s3", found)
    return found


@pytest.fixture(scope="session")
def policies(checkout: Path) -> dict[str, dict[str, Any]]:
    return documented_policies(checkout, prefix="prefix")


def test_the_policies_are_enough_and_no_more(
    requests: Requests, policies: dict[str, Any], make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.registry.s3_store._MULTIPART", 1 << 20)
    monkeypatch.setattr("fer.registry.store._probed", set())
    registry = Registry.open()
    registry.register(make_package(1, size=6_000_000).folder)
    registry.register(make_package(2).folder)
    registry.register(make_package(2).folder)
    for number in (1, 2):
        registry.promote("faces", number)
    registry.rollback("faces")
    registry.tag("faces", 2, {"a": "b"})
    registry.note("faces", 2, "text")
    registry.judge("faces", 2, {"passed": True, "champion": 1})
    registry.deprecate("faces", 2)
    registry.delete("faces", 2, force=True)
    registry.restore("faces", 2)
    assert requests.denied(policies["writer"]) == []
    assert ("s3:DeleteObject", "arn:aws:s3:::BUCKET/prefix/models") not in requests.made
    assert requests.denied(policies["reader"])

    requests.made.clear()
    reader = Registry.open()
    reader.models()
    reader.summaries("faces")
    reader.versions("faces")
    reader.events("faces")
    reader.aliases("faces")
    reader.pull("faces")
    assert reader.verify("faces@latest").ok
    assert reader.collect_garbage(timedelta(0)).applied is False
    denied = requests.denied(policies["reader"])
    # Only the look for unfinished uploads, of a collection that deletes nothing.
    assert {action for action, _, _ in denied} <= {"s3:ListBucketMultipartUploads"}

    requests.made.clear()
    registry.collect_garbage(timedelta(0), apply=True)
    denied = requests.denied(policies["writer"])
    assert {action for action, _, _ in denied} == {"s3:ListBucketMultipartUploads"}
