"""What went wrong with a request to S3, in words that say what to do.

s3fs turns error codes into Python's exceptions and loses differences that matter here: a missing object and a
missing bucket both become `FileNotFoundError`. The code itself is still in the cause.
"""

from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from s3fs.core import S3_RETRYABLE_ERRORS

from infra.objects import StoreError, UnavailableError

_DENIED = "the server refuses access ({error}); the key may lack a right: reading, writing and listing are needed"
_BUSY = "the server is overloaded ({error}); run again later, or raise AWS_MAX_ATTEMPTS"
_REGION = "the bucket is in another region ({error}); set AWS_DEFAULT_REGION, and AWS_ENDPOINT_URL where one is set"
_OTHER = "{error}; check that AWS_ENDPOINT_URL is the address of an S3 server, and that server's log"
_BY_CODE = {
    "NoSuchBucket": "there is no bucket of this name at this endpoint; create it, or correct the store's URL",
    "InvalidBucketName": "this is not a legal bucket name; correct the store's URL",
    "InvalidAccessKeyId": "the server does not know the access key; check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the temporary credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "503": _BUSY,
}
_NO_CREDENTIALS = (
    "no complete credentials found ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
    " or use another standard AWS source"
)
_UNREACHABLE = (
    "the server cannot be reached or the connection broke ({error}); check AWS_ENDPOINT_URL, the network and the"
    " server, then run again"
)


def error_code(error: BaseException) -> str:
    """S3's error code, such as `NoSuchKey`; empty when the error did not come from the server."""
    for candidate in (error, error.__cause__):
        if isinstance(candidate, ClientError):
            return str(candidate.response.get("Error", {}).get("Code", ""))
    return ""


def is_missing_key(error: BaseException) -> bool:
    """Whether the bucket is there and the object is not."""
    return error_code(error) == "NoSuchKey"


def is_refused_condition(error: BaseException) -> bool:
    """Whether a conditional write was refused, or lost to another one that was going on."""
    return error_code(error) in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")


def is_denied(error: BaseException) -> bool:
    """Whether the server refused the credentials."""
    return error_code(error) in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403")


def explain(error: BaseException, doing: str, url: str) -> StoreError:
    """The error to raise instead: `cannot read s3://…: why; what to do`."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        advice = _NO_CREDENTIALS
    elif isinstance(error, (ConnectionError, HTTPClientError, *S3_RETRYABLE_ERRORS)):
        advice = _UNREACHABLE
    else:
        advice = _BY_CODE.get(error_code(error), _OTHER)
    kind = UnavailableError if advice in (_BUSY, _UNREACHABLE) else StoreError
    return kind(f"cannot {doing} {url}: {advice.format(error=error)}")
