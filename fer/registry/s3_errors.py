"""What an error of boto3 means to the user, and what to do about it."""

from __future__ import annotations

from typing import Final

from fer.errors import NotFoundError, SettingsError, StoreError, UnavailableError, UnsafeStoreError

_CREDENTIALS: Final = (
    "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile that AWS_PROFILE names."
)
_RENEW: Final = (
    "Renew them (`aws sso login`, or a new AWS_SESSION_TOKEN from whoever issued the old one)."
)
_WRONG: Final = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "UnrecognizedClientException"}
_EXPIRED: Final = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"}
_CLOCK: Final = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_DENIED: Final = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403", "401"}
_REGION: Final = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "301",
    "307",
}
_BUSY: Final = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "500",
    "502",
    "503",
    "504",
    "429",
}
_MISSING: Final = {"NoSuchKey", "404", "NotFound"}
_ALTERED: Final = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}


def code_of(error: Exception) -> tuple[str, int]:
    """Error code and HTTP status of a ClientError; ("", 0) of anything else."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return "", 0
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing_key(error: Exception) -> bool:
    """Whether the error says that the key (not the bucket) does not exist."""
    return code_of(error)[0] in _MISSING


def explain(error: Exception, *, bucket: str, place: str, doing: str, endpoint: str) -> Exception:
    """The `fer` error for a boto3 error.

    Args:
        error: what boto3 raised.
        bucket: the bucket's name.
        place: s3:// URL of the object or prefix concerned.
        doing: the operation in the words of IAM, such as s3:PutObject.
        endpoint: which server, for messages.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    if isinstance(error, boto.ClientError):
        return _explain_answer(error, bucket=bucket, place=place, doing=doing, endpoint=endpoint)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return StoreError(f"No complete S3 credentials were found for {place}. {_CREDENTIALS}")
    if isinstance(error, boto.ProfileNotFound):
        return StoreError(f"{error}. Correct AWS_PROFILE, or add the profile to ~/.aws/config.")
    if isinstance(
        error,
        boto.CredentialRetrievalError
        | boto.TokenRetrievalError
        | boto.UnauthorizedSSOTokenError
        | boto.SSOTokenLoadError,
    ):
        return StoreError(f"The S3 credentials cannot be renewed ({error}). {_RENEW}")
    if isinstance(error, boto.SSLError):
        return StoreError(
            f"{endpoint} has no certificate this machine trusts ({error}). Name its authority's "
            "file in AWS_CA_BUNDLE, or correct FER_S3_ENDPOINT."
        )
    if isinstance(error, ResponseParserError | boto.ChecksumError):
        return not_s3(endpoint)
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError):
        return UnavailableError(
            f"{endpoint} cannot be reached ({_short(error)}). Check that the server runs, "
            "FER_S3_ENDPOINT, the network and any proxy; then repeat. Pulled models still work "
            "from the cache."
        )
    if isinstance(error, boto.ParamValidationError | boto.InvalidDNSNameError):
        return SettingsError(f"{place} is no valid S3 address ({_short(error)}). Correct it.")
    return StoreError(f"{doing} on {place} failed: {_short(error)}.")


def _explain_answer(
    error: Exception, *, bucket: str, place: str, doing: str, endpoint: str
) -> Exception:
    code, status = code_of(error)
    if code == "NoSuchBucket":
        return StoreError(
            f"There is no bucket {bucket!r} at {endpoint}. Create it (`aws s3 mb s3://{bucket}`), "
            "or correct FER_REGISTRY or --registry."
        )
    if code in _WRONG:
        return StoreError(f"{endpoint} refuses the S3 credentials ({code}). {_CREDENTIALS}")
    if code in _EXPIRED:
        return StoreError(f"The S3 credentials have expired ({code}). {_RENEW}")
    if code in _CLOCK:
        return StoreError(
            f"{endpoint} refuses the request because this machine's clock is off ({code}). "
            "Synchronise it (`timedatectl set-ntp true`) and repeat."
        )
    if code in _REGION:
        return StoreError(
            f"The bucket {bucket!r} lies in another region ({code}). Set AWS_REGION to it."
        )
    if code in _DENIED or status == 403:
        return StoreError(
            f"The S3 credentials give no permission for {doing} on {place}. Ask the bucket's "
            "owner for it, or use other credentials (AWS_PROFILE). A reader needs s3:GetObject "
            "and s3:ListBucket, a writer also s3:PutObject and s3:DeleteObject."
        )
    if code in _MISSING and doing in {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}:
        return NotFoundError(f"{place} does not exist. `fer models list` shows what is there.")
    if code in _ALTERED:
        return StoreError(f"The bytes of {place} were altered on the way ({code}). Repeat.")
    if code == "NotImplemented" or status == 501:
        return UnsafeStoreError(
            f"{endpoint} does not implement what {doing} on {place} needs ({code}). Use a store "
            "with conditional writes (AWS S3, SeaweedFS 4.17 or later, a local folder)."
        )
    if code in _BUSY or status >= 500:
        return UnavailableError(f"{endpoint} is out of order or too busy ({code}). Repeat later.")
    # An S3 server names its errors; a bare status is what botocore makes of any other answer.
    if not code or code.isdigit():
        return not_s3(endpoint)
    return StoreError(f"{doing} on {place} failed: {_short(error)}.")


def not_s3(endpoint: str) -> StoreError:
    """The error for answers that no S3 server gives."""
    return StoreError(
        f"{endpoint} answers, but not as an S3 server (it may be a web page or a console). Set "
        "FER_S3_ENDPOINT to the server's S3 address; often that is another port."
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
