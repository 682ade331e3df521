"""The boto3 client as R2 needs it, and the one door through which its errors leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.drivers.object_store_errors import translate

T = TypeVar("T")

#: One answer of the store. Complete of a large object is the slow one; it stays silent while it works.
_READ_SECONDS = 60
_CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ObjectStoreSettings:
    """Where the bucket is and how to enter it; the keys do not print."""

    endpoint_url: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    bucket: str
    public_url: str


def build_client(settings: ObjectStoreSettings, connections: int) -> Any:
    """A client of its own session; blocking (about a second with the import), so call it in a thread.

    Checksums only where the operation demands one: the default sends them as a trailer, which R2 refuses with a
    misleading `Unauthorized` or 501. An empty proxy table keeps proxies of the environment out.
    """
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        aws_access_key_id=settings.access_key_id, aws_secret_access_key=settings.secret_access_key
    )
    config = Config(
        region_name="auto",
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=connections,
        proxies={},
    )
    return session.client("s3", endpoint_url=settings.endpoint_url, config=config)


def translated(call: Callable[[], T]) -> T:
    """What *call* returns; whatever botocore raises leaves as a driver error.

    Not chained: the texts quote addresses and what the store said, which may repeat a signature.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

    failure: DriverError
    try:
        return call()
    except ClientError as exc:
        failure = _from_answer(exc.response)
    except (ParamValidationError, NoCredentialsError) as exc:
        failure = PermanentError("store_misused", f"The object store's client refused the call ({type(exc).__name__}).")
    except (BotoCoreError, OSError) as exc:
        failure = TransientError("store_unreachable", f"The object store did not answer ({type(exc).__name__}).")
    raise failure


def _from_answer(response: dict[str, Any]) -> DriverError:
    meta = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    # HEAD has no body; botocore then puts the status where the code belongs.
    return translate(
        "" if code.isdigit() else code,
        int(meta.get("HTTPStatusCode", 0)),
        meta.get("HTTPHeaders", {}).get("retry-after"),
    )
