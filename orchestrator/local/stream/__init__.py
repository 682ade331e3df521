"""A local Cloudflare Stream: real uploads, real encoding, real delivery, and faults on request.

async with StreamStandIn(StandInOptions(data_dir=path)) as stream:
    ...  # stream.url, stream.account_id, stream.api_token
"""

from orchestrator.local.stream.faults import Faults
from orchestrator.local.stream.options import FAST, PLEASANT, Dwell, StandInOptions
from orchestrator.local.stream.server import StreamStandIn

__all__ = ["FAST", "PLEASANT", "Dwell", "Faults", "StandInOptions", "StreamStandIn"]
