"""Signing versions, and pulling only what a trusted key signed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from fer.cli.models import app
from fer.errors import SignatureError
from fer.registry import Registry, pull
from fer.registry.signatures import check_signature, fingerprint, sign_manifest


@dataclass(frozen=True)
class Keys:
    private: Path
    public: Path

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)


def _keys(folder: Path, name: str, key: Any, password: str | None = None) -> Keys:
    encryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return Keys(private, public)


@pytest.fixture
def alice(tmp_path: Path) -> Keys:
    return _keys(tmp_path, "alice", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def bob(tmp_path: Path) -> Keys:
    return _keys(tmp_path, "bob", ec.generate_private_key(ec.SECP384R1()), "open sesame")


def test_a_pull_demands_a_trusted_signature(
    registry: Registry, make_package: Any, alice: Keys, bob: Keys
) -> None:
    registry.register(make_package(1).folder)
    with pytest.raises(SignatureError, match=r"faces:1 is signed by nobody, and by none of the"):
        registry.pull("faces:1", trusted=[alice.public])
    state = registry.sign("faces:1", alice.private)
    assert list(state.signatures) == [alice.fingerprint]
    assert registry.pull("faces:1", trusted=[bob.public, alice.public]).name == "faces"
    with pytest.raises(SignatureError, match=f"signed by {alice.fingerprint[:12]}, and by none"):
        registry.pull("faces:1", trusted=[bob.public])
    registry.sign("faces:1", bob.private, "open sesame")
    assert registry.pull("faces:1", trusted=[bob.public]).name == "faces"
    assert set(registry.state("faces", 1).signatures) == {alice.fingerprint, bob.fingerprint}
    events = [event for event in registry.events("faces") if event.action == "sign"]
    assert [event.details for event in events] == [
        {"key": alice.fingerprint},
        {"key": bob.fingerprint},
    ]
    assert registry.audit().ok


def test_the_environment_demands_it_everywhere(
    folder_registry: Registry,
    make_package: Any,
    alice: Keys,
    bob: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder_registry.register(make_package(1).folder)
    monkeypatch.setenv("FER_TRUSTED_KEYS", f"{bob.public}{os.pathsep}{alice.public}")
    with pytest.raises(SignatureError):
        pull("faces:1")
    # To sign is to say so oneself: it needs no signature of others.
    folder_registry.sign("faces:1", alice.private)
    assert pull("faces:1").name == "faces"
    monkeypatch.setenv("FER_OFFLINE", "1")
    assert pull("faces:1").name == "faces"
    monkeypatch.setenv("FER_TRUSTED_KEYS", str(bob.public))
    with pytest.raises(SignatureError, match="by none of the trusted keys"):
        pull("faces:1")


def test_a_signature_of_another_version_does_not_hold(
    folder_registry: Registry, make_package: Any, alice: Keys
) -> None:
    for seed in (1, 2):
        folder_registry.register(make_package(seed).folder)
    bundle = folder_registry.sign("faces:1", alice.private).signatures[alice.fingerprint]
    folder_registry.add_signature("faces", 2, alice.fingerprint, bundle)
    with pytest.raises(SignatureError, match=r"of faces:2 by \w{12} does not hold: Signature mism"):
        folder_registry.pull("faces:2", trusted=[alice.public])


def test_a_signature_under_a_borrowed_name_does_not_hold(alice: Keys, bob: Keys) -> None:
    _, bundle = sign_manifest(b"{}", bob.private, "open sesame")
    for forged in (bundle, {}, {"mediaType": 3}):
        with pytest.raises(SignatureError, match="does not hold"):
            check_signature(b"{}", {alice.fingerprint: forged}, [alice.public], "faces:1")
    hint = {"publicKey": {"hint": alice.fingerprint}, "tlogEntries": []}
    forged = bundle | {"verificationMaterial": hint}
    with pytest.raises(SignatureError, match="does not hold"):
        check_signature(b"{}", {alice.fingerprint: forged}, [alice.public], "faces:1")


def test_copies_stay_signed(
    folder_registry: Registry, make_package: Any, alice: Keys, tmp_path: Path
) -> None:
    folder_registry.register(make_package(1).folder)
    folder_registry.sign("faces:1", alice.private)
    other = Registry.open(str(tmp_path / "other"))
    folder_registry.copy_to(other, "faces:1")
    assert other.pull("faces:1", trusted=[alice.public]).name == "faces"


def test_keys_of_no_use(tmp_path: Path, alice: Keys, bob: Keys) -> None:
    with pytest.raises(SignatureError, match=r"missing.pem cannot be read: No such file"):
        sign_manifest(b"{}", tmp_path / "missing.pem")
    with pytest.raises(SignatureError, match=r"bob.pem cannot sign: .* FER_SIGNING_PASSWORD"):
        sign_manifest(b"{}", bob.private)
    with pytest.raises(SignatureError, match=r"bob.pem cannot sign"):
        sign_manifest(b"{}", bob.private, "guess")
    with pytest.raises(SignatureError, match=r"alice.pub cannot sign"):
        sign_manifest(b"{}", alice.public)
    with pytest.raises(SignatureError, match=r"alice.pem is no public key .* openssl pkey"):
        fingerprint(alice.private)
    curve = _keys(tmp_path, "curve", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(SignatureError, match=r"curve.pem cannot sign"):
        sign_manifest(b"{}", curve.private)
    other = _keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    with pytest.raises(SignatureError, match="no elliptic-curve key"):
        fingerprint(other.public)


def test_on_the_command_line(
    folder_registry: Registry, make_package: Any, bob: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    folder_registry.register(make_package(1).folder)
    monkeypatch.setenv("FER_SIGNING_PASSWORD", "open sesame")
    result = runner.invoke(app, ["sign", "faces:1", "--key", str(bob.private)])
    assert result.exit_code == 0, result.output
    assert f"faces:1 signed by {bob.fingerprint[:12]}" in result.stdout
    assert "sesame" not in result.output
    assert f"signed    by {bob.fingerprint[:12]}" in runner.invoke(app, ["show", "faces:1"]).stdout
    assert runner.invoke(app, ["pull", "faces:1", "--trusted", str(bob.public)]).exit_code == 0


def test_the_command_of_model_signing_agrees(
    folder_registry: Registry, make_package: Any, alice: Keys, tmp_path: Path
) -> None:
    folder_registry.register(make_package(1).folder)
    bundle = folder_registry.sign("faces:1", alice.private).signatures[alice.fingerprint]
    signature = tmp_path / "model.sig"
    signature.write_text(json.dumps(bundle))
    manifest = folder_registry.pull("faces:1").folder / "manifest.json"
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(manifest)]
    options = ["--signature", str(signature), "--public_key", str(alice.public)]
    done = subprocess.run(command + options, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
