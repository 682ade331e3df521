"""What is done to media: probe, encode, cut, remux, split into segments, take pictures.

Argument lists are pure functions; `Media` runs them with the one ffmpeg that was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.drivers.ffmpeg import FfmpegFailed, run_ffmpeg
from orchestrator.local.stream.files import size_of
from orchestrator.local.stream.mp4 import looks_like_mp4, read_mp4
from orchestrator.local.stream.videos import Cut

# Containers of uploads. Playlists and single pictures are left out on purpose: a playlist could make
# ffmpeg read other files of this machine, and a picture is not a video.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,mxf,ogg,gif,wav,mp3,h264,hevc,m4v"
_FROM_FILE = ["-protocol_whitelist", "file", "-format_whitelist", _CONTAINERS]
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_PICTURE = re.compile(r"Stream #.*Video: (?!.*attached pic).*?\b([1-9]\d{0,4})x([1-9]\d{0,4})\b")
# Stream gives up to 1080p, H.264, 8 bit, 70 frames a second and two channels.
_FIT = "scale=w='min(1920,iw)':h='min(1080,ih)':force_original_aspect_ratio=decrease:force_divisible_by=2"
# What players are used to: short enough to start fast, long enough to be few.
_SEGMENT_SECONDS = 4
TOO_SHORT_SECONDS = 0.1


class ProcessingFailed(Exception):
    """The video ends in `error` with this reason code and text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Facts:
    """What the source is; duration None where the container does not say."""

    duration_seconds: float | None
    width: int
    height: int


def facts_from_messages(said: str) -> Facts | None:
    """The facts in ffmpeg's description of its input; None without a moving picture."""
    picture = _PICTURE.search(said)
    if picture is None:
        return None
    clock = _DURATION.search(said)
    seconds = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]) if clock else None
    return Facts(seconds, int(picture[1]), int(picture[2]))


def encode_arguments(source: Path, target: Path, cut: Cut | None) -> list[str]:
    """One faststart MP4 of H.264 and AAC, as Stream would make it, quickly rather than small."""
    video = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-vf", _FIT, "-fpsmax", "70"]
    # Segments begin at key frames.
    video += ["-force_key_frames", f"expr:gte(t,n_forced*{_SEGMENT_SECONDS})"]
    audio = ["-c:a", "aac", "-ac", "2"]
    pick = ["-map", "0:V:0", "-map", "0:a:0?", "-sn", "-dn"]
    return ["-y", *_window(cut), *_FROM_FILE, "-i", str(source), *pick, *video, *audio, *_mp4(target)]


def remux_arguments(source: Path, target: Path) -> list[str]:
    """The same streams in a faststart MP4."""
    pick = ["-map", "0:V:0", "-map", "0:a:0?", "-sn", "-dn", "-c", "copy"]
    return ["-y", *_FROM_FILE, "-i", str(source), *pick, *_mp4(target)]


def clip_copy_arguments(source: Path, target: Path, cut: Cut) -> list[str]:
    """A piece of the same streams; it begins at the key frame before the cut."""
    pick = ["-map", "0:V:0", "-map", "0:a:0?", "-c", "copy"]
    return ["-y", *_window(cut), *_FROM_FILE, "-i", str(source), *pick, *_mp4(target)]


def audio_arguments(source: Path, target: Path) -> list[str]:
    """The sound alone, as M4A."""
    return ["-y", *_FROM_FILE, "-i", str(source), "-map", "0:a:0", "-c", "copy", *_mp4(target)]


def manifest_arguments(source: Path, folder: Path) -> list[str]:
    """HLS and DASH over one set of segments: video.m3u8 and video.mpd in *folder*."""
    segments = ["-seg_duration", str(_SEGMENT_SECONDS), "-hls_playlist", "1", "-hls_master_name", "video.m3u8"]
    return ["-y", *_FROM_FILE, "-i", str(source), "-c", "copy", "-f", "dash", *segments, str(folder / "video.mpd")]


def picture_arguments(source: Path, target: Path, at_seconds: float, picture_filter: str) -> list[str]:
    """One JPEG of the moment *at_seconds*."""
    seek = ["-ss", f"{at_seconds:.3f}"]
    take = ["-map", "0:V:0", "-frames:v", "1", "-vf", picture_filter, "-q:v", "3", "-f", "mjpeg"]
    return ["-y", *seek, *_FROM_FILE, "-i", str(source), *take, str(target)]


def _window(cut: Cut | None) -> list[str]:
    if cut is None:
        return []
    return ["-ss", str(cut.start_seconds), "-t", str(cut.end_seconds - cut.start_seconds)]


def _mp4(target: Path) -> list[str]:
    return ["-movflags", "+faststart", "-f", "mp4", str(target)]


class Media:
    """ffmpeg's work on files, with failures as the reason codes of the API."""

    def __init__(self, ffmpeg: str) -> None:
        self._ffmpeg = ffmpeg

    async def probe(self, source: Path) -> Facts:
        """What *source* is. Raises ProcessingFailed when it is no video or broken beyond use."""
        if size_of(source) == 0:
            raise ProcessingFailed("ERR_NON_VIDEO", "The file is empty.")
        # Without an output ffmpeg describes the input and ends with an error; that is the way to ask.
        said = await run_ffmpeg(self._ffmpeg, [*_FROM_FILE, "-i", str(source)], must_succeed=False)
        facts = facts_from_messages(said)
        if facts is None:
            raise _not_a_video(source)
        return facts

    def probe_mp4(self, source: Path) -> Facts:
        """What the MP4 at *source* is, without a child process. Raises ProcessingFailed if it is not whole."""
        facts = read_mp4(source)
        if facts is None or not facts.is_whole:
            raise ProcessingFailed("ERR_MALFORMED_VIDEO", "The file is cut off or damaged.")
        if not facts.width:
            raise ProcessingFailed("ERR_NON_VIDEO", "The file has no picture.")
        return Facts(facts.duration_seconds, facts.width, facts.height)

    async def make(self, target: Path, arguments: list[str], on_seconds: Callable[[float], None] | None = None) -> None:
        """Run *arguments*, which write *target*. Raises ProcessingFailed when nothing usable came out."""
        try:
            await run_ffmpeg(self._ffmpeg, ["-loglevel", "error", *arguments], on_seconds)
        except FfmpegFailed as exc:
            raise ProcessingFailed("ERR_MALFORMED_VIDEO", "The video could not be decoded.") from exc
        if size_of(target) == 0:
            raise ProcessingFailed("ERR_MALFORMED_VIDEO", "The video has no usable picture.")


def _not_a_video(source: Path) -> ProcessingFailed:
    if looks_like_mp4(source) and read_mp4(source) is None:
        return ProcessingFailed("ERR_MALFORMED_VIDEO", "The file is cut off or damaged.")
    return ProcessingFailed("ERR_NON_VIDEO", "The file is not a video.")
