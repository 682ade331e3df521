"""Transfer: a finished file from the provider's delivery host into our bucket, resumable, verified, in bounded memory.

`copy_to_bucket` does one clip; `sweep_orphans` and `abandon` clear up what was given up.
"""

from __future__ import annotations

from orchestrator.transfer.answers import NotYetThereError
from orchestrator.transfer.checkpoints import Checkpoint, Checkpoints
from orchestrator.transfer.clearing import abandon, sweep_orphans
from orchestrator.transfer.copying import copy_to_bucket
from orchestrator.transfer.jobs import TransferJob, TransferLimits, TransferProgress, TransferResult, object_key
from orchestrator.transfer.postgres_checkpoints import PostgresCheckpoints
from orchestrator.transfer.source import HttpSource, SourceLimits

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "HttpSource",
    "NotYetThereError",
    "PostgresCheckpoints",
    "SourceLimits",
    "TransferJob",
    "TransferLimits",
    "TransferProgress",
    "TransferResult",
    "abandon",
    "copy_to_bucket",
    "object_key",
    "sweep_orphans",
]
