"""One part's bytes to a presigned address, counted out exactly and never held whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import ClientError, ClientResponse, ClientSession
from yarl import URL

from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.object_store_errors import translate

#: Error documents are a few hundred bytes; this is what is read of one at most.
_LARGEST_ERROR_BYTES = 64 * 1024
_ERROR_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")


@dataclass(frozen=True, slots=True)
class PresignedAddress:
    """A bearer secret: whoever holds the text may write this part. It prints as dots."""

    text: str = field(repr=False)


async def put_part(
    session: ClientSession,
    address: PresignedAddress,
    chunks: AsyncIterator[bytes],
    length_bytes: int,
    stall_seconds: float,
) -> str:
    """Send *chunks*, *length_bytes* in all, and return the ETag the store computed (without quotes).

    Ends when no chunk has moved for *stall_seconds*, whoever of the two sides stopped.
    Errors of the library are not chained: their texts hold the address.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_seconds) as limit:

            async def watched() -> AsyncIterator[bytes]:
                async for chunk in chunks:
                    yield chunk
                    if not limit.expired():
                        limit.reschedule(loop.time() + stall_seconds)

            headers = {"Content-Length": str(length_bytes)}
            async with session.put(
                URL(address.text, encoded=True), data=watched(), headers=headers, allow_redirects=False
            ) as response:
                return await _etag_or_refusal(response)
    except TimeoutError:
        raise TransientError("store_stalled", f"No byte moved for {stall_seconds:.0f} s.") from None
    except (ClientError, OSError) as exc:
        raise TransientError("store_unreachable", f"Sending a part broke off ({type(exc).__name__}).") from None


async def _etag_or_refusal(response: ClientResponse) -> str:
    etag = response.headers.get("ETag", "").strip('"')
    if response.status == 200 and etag:
        return etag
    try:
        document = await response.content.read(_LARGEST_ERROR_BYTES)
    except (ClientError, OSError):
        document = b""
    finally:
        # The rest of the body would be sent to nobody; the connection cannot be used again.
        response.close()
    code = _ERROR_CODE.search(document)
    if response.status == 200:
        raise TransientError("store_failing", "The object store took a part without naming its ETag.")
    raise translate(code.group(1).decode() if code else "", response.status, response.headers.get("Retry-After"))
