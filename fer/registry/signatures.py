"""Signatures of packages, made and checked by OpenSSF model-signing.

What is signed is manifest.json, which names the sha256 of every other file, so a signature covers
the whole package. It is a Sigstore bundle as JSON, kept in the version's state under its key's
fingerprint; with the manifest, the `model_signing` command can check it too.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fer.errors import SignatureError
from fer.registry.manifest import MANIFEST

Bundle = dict[str, Any]
"""A Sigstore bundle."""

_KEYGEN: Final = (
    "A key is made with: "
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
)


def fingerprint(key: Path) -> str:
    """The sha256 (hex) of a public key, as bundles name it.

    Args:
        key: PEM file of a public key on NIST P-256, P-384 or P-521.

    Raises:
        SignatureError: absent, or no such key.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        loaded = serialization.load_pem_public_key(key.read_bytes())
    except OSError as error:
        raise SignatureError(f"The key {key} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise SignatureError(
            f"{key} is no public key in PEM form. Make one of a private key with: "
            "openssl pkey -in private.pem -pubout -out public.pem"
        ) from None
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise SignatureError(f"{key} is no elliptic-curve key. {_KEYGEN}")
    pem = loaded.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def sign_manifest(manifest: bytes, key: Path, password: str | None = None) -> tuple[str, Bundle]:
    """Sign a manifest.

    Args:
        manifest: the bytes of manifest.json.
        key: PEM file of a private key on NIST P-256, P-384 or P-521.
        password: of the key, where it is encrypted.

    Returns:
        The public key's fingerprint, and the signature.

    Raises:
        SignatureError: the key cannot be used, or model-signing is not installed.
    """
    signing = _model_signing("signing")
    with _lying(manifest) as (model, signature):
        try:
            # The library hands the password to a function that wants bytes.
            config = signing.Config().use_elliptic_key_signer(
                private_key=key, password=password.encode() if password else None
            )
            config.sign(model, signature)
        except OSError as error:
            raise SignatureError(f"The key {key} cannot be read: {error.strerror}.") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise SignatureError(
                f"{key} cannot sign: {str(error).rstrip('.')}. If it is encrypted, set "
                f"FER_SIGNING_PASSWORD. {_KEYGEN}"
            ) from None
        bundle: Bundle = json.loads(signature.read_bytes())
    return str(bundle["verificationMaterial"]["publicKey"]["hint"]), bundle


def check_signature(
    manifest: bytes, signatures: Mapping[str, Bundle], trusted: Sequence[Path], label: str
) -> str:
    """Demand that one of the trusted keys signed a manifest.

    Args:
        manifest: the bytes of manifest.json, whose digest the caller has checked.
        signatures: bundles by their key's fingerprint.
        trusted: PEM files of public keys.
        label: the version, for messages.

    Returns:
        The fingerprint of the key that did.

    Raises:
        SignatureError: none of them did, or a signature is not of this manifest.
    """
    keys = {fingerprint(key): key for key in trusted}
    signed = [one for one in keys if one in signatures]
    if not signed:
        others = ", ".join(one[:12] for one in signatures) or "nobody"
        raise SignatureError(
            f"{label} is signed by {others}, and by none of the trusted keys "
            f"({', '.join(one[:12] for one in keys)}). Nothing was loaded. Ask who registered it "
            f"to run `fer models sign {label} --key private.pem`, or trust another key."
        )
    verifying = _model_signing("verifying")
    problem = ""
    for one in signed:
        with _lying(manifest) as (model, signature):
            signature.write_text(json.dumps(signatures[one]))
            try:
                verifying.Config().use_elliptic_key_verifier(public_key=keys[one]).verify(
                    model, signature
                )
                return one
            # Bytes of anyone's making go through parsers that are not ours: all means "no".
            except Exception as error:
                problem = str(error).partition(":")[0] or type(error).__name__
    raise SignatureError(
        f"The signature of {label} by {signed[0][:12]} does not hold: {problem}. Nothing was "
        f"loaded. Somebody altered it: look at `fer models show {label}`."
    )


@contextmanager
def _lying(manifest: bytes) -> Iterator[tuple[Path, Path]]:
    """A manifest as a file, for a library that reads files, and where its signature goes."""
    with tempfile.TemporaryDirectory(prefix="fer-sign-") as folder:
        model = Path(folder) / MANIFEST
        model.write_bytes(manifest)
        yield model, Path(folder) / "model.sig"


def _model_signing(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{module}")
    except ImportError:
        raise SignatureError(
            "Signatures need model-signing: pip install 'fer-workflow[signing]'."
        ) from None
