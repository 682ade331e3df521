"""The stand-in as a program: `python -m orchestrator.local.stream --port 8788 --data-dir stream-data`.

Prints one line with its address once it listens, and ends on SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import structlog

from orchestrator.drivers.ffmpeg import FfmpegMissing
from orchestrator.local.stream.faults import Faults
from orchestrator.local.stream.options import (
    FAST,
    FILE_LIMIT_BYTES,
    FORM_LIMIT_BYTES,
    MAX_IN_FLIGHT,
    PLEASANT,
    RATE_LIMIT_COUNT,
    RATE_LIMIT_WINDOW_SECONDS,
    StandInOptions,
)
from orchestrator.local.stream.server import DataDirBusy, StreamStandIn
from orchestrator.local.stream.switchboard import UnknownFault, faults_from_json

_PACES = {"fast": FAST, "pleasant": PLEASANT}
# What a person at a page sees of `ready` before the last quality level is there.
_READY_AT_PERCENT = 85.0


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; 0 after an orderly stop, 1 when it could not start, 2 for wrong options."""
    try:
        options = _options(_parser().parse_args(arguments))
    except (ValueError, UnknownFault) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    # Standard output is for the one line that scripts read.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        asyncio.run(_serve(options))
    except (FfmpegMissing, DataDirBusy, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: StandInOptions) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with StreamStandIn(options) as stream:
        print(f"Stream stand-in: {stream.url} (account {stream.account_id})", flush=True)
        await stopped.wait()


def _options(given: argparse.Namespace) -> StandInOptions:
    return StandInOptions(
        data_dir=given.data_dir,
        host=given.host,
        port=given.port,
        public_url=given.public_url,
        account_id=given.account,
        api_token=given.token,
        webhook_url=given.webhook_url,
        webhook_secret=given.webhook_secret,
        encode=given.encode,
        ffmpeg=given.ffmpeg,
        encoders=given.encoders,
        dwell=_PACES[given.pace],
        ready_at_percent=given.ready_at_percent,
        max_in_flight=given.max_in_flight,
        rate_limit_count=given.rate_limit_count,
        rate_limit_window_seconds=given.rate_limit_window_seconds,
        form_limit_bytes=given.form_limit_bytes,
        file_limit_bytes=given.file_limit_bytes,
        storage_minutes_limit=given.storage_minutes_limit,
        faults=faults_from_json(given.faults) if given.faults else Faults(),
    )


def _parser() -> argparse.ArgumentParser:
    defaults = StandInOptions(data_dir=Path("stream-data"))
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.local.stream", description="A local Cloudflare Stream."
    )
    add = parser.add_argument
    add("--data-dir", type=Path, default=defaults.data_dir, help="where videos are kept between runs (%(default)s)")
    add("--host", default=defaults.host, help="address to listen on (%(default)s)")
    add("--port", type=int, default=defaults.port, help="port to listen on; 0 takes a free one (%(default)s)")
    add("--public-url", help="address written into answers, if it is not http://host:port")
    add("--account", default=defaults.account_id, help="account id (%(default)s)")
    add("--token", default=defaults.api_token, help="API token (%(default)s)")
    add("--webhook-url", help="where notifications go; PUT /stream/webhook changes it")
    add("--webhook-secret", help="what signs them; without it one is drawn")
    add(
        "--encode",
        choices=("h264", "copy"),
        default=defaults.encode,
        help="copy serves an MP4 as it came (%(default)s)",
    )
    add("--ffmpeg", type=Path, help="the ffmpeg to use; else the PATH, else imageio-ffmpeg")
    add("--encoders", type=int, default=defaults.encoders, help="videos encoded at once (%(default)s)")
    add("--pace", choices=tuple(_PACES), default="pleasant", help="how long each state lasts (%(default)s)")
    add("--ready-at-percent", type=float, default=_READY_AT_PERCENT, help="pctComplete at `ready` (%(default)s)")
    add("--max-in-flight", type=int, default=MAX_IN_FLIGHT, help="videos worked on before 429 (%(default)s)")
    add("--rate-limit-count", type=int, default=RATE_LIMIT_COUNT, help="API calls a window (%(default)s)")
    add("--rate-limit-window-seconds", type=float, default=RATE_LIMIT_WINDOW_SECONDS, help="(%(default)s)")
    add("--form-limit-bytes", type=int, default=FORM_LIMIT_BYTES, help="largest form upload (%(default)s)")
    add("--file-limit-bytes", type=int, default=FILE_LIMIT_BYTES, help="largest file (%(default)s)")
    add("--storage-minutes-limit", type=float, default=defaults.storage_minutes_limit, help="(%(default)s)")
    add("--faults", help='faults from the start, as JSON: {"webhook_lost": {"times": 1}}')
    return parser


if __name__ == "__main__":
    sys.exit(main())
