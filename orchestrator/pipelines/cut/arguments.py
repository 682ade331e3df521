"""ffmpeg's arguments for cutting; pure."""

from __future__ import annotations

from pathlib import Path

from orchestrator.pipelines.cut.ranges import Range

# Containers of uploads. Playlists are left out on purpose: one could make ffmpeg read other files of this machine.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,mxf,ogg,m4v"
_FROM_FILE = ("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS)
# One picture and one sound; what players of MP4 cannot show stays behind.
_PICK = ("-map", "0:V:0", "-map", "0:a:0?", "-sn", "-dn", "-map_metadata", "-1")
# Quick on two cores, and near enough to the source that nobody sees it.
_ENCODE = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "160k")
_COPY = ("-c", "copy", "-avoid_negative_ts", "make_zero")


def cut_arguments(source: Path, target: Path, wanted: Range, *, is_exact: bool) -> list[str]:
    """One MP4 of *wanted*: exact to the frame by encoding, or a copy that begins at the key frame before it."""
    window = ["-ss", f"{wanted.start_seconds:.6f}", "-t", f"{wanted.length_seconds:.6f}"]
    work = _ENCODE if is_exact else _COPY
    output = ["-movflags", "+faststart", "-f", "mp4", str(target)]
    return ["-loglevel", "error", "-y", *window, *_FROM_FILE, "-i", str(source), *_PICK, *work, *output]
