"""A whole MP4 passes; one cut at any byte, of another length, or of another kind does not."""

from __future__ import annotations

import struct
import subprocess

import imageio_ffmpeg
import pytest

from orchestrator.transfer.structure import Expected, ObjectRefusedError, check_structure

KNOWN = Expected(10.0, is_length_known=True)
HIDDEN = Expected(10.0, is_length_known=False)


def box(name: bytes, body: bytes = b"", *, large: bool = False) -> bytes:
    if large:
        return struct.pack(">I4sQ", 1, name, 16 + len(body)) + body
    return struct.pack(">I4s", 8 + len(body), name) + body


def mvhd(seconds: float = 10.0, *, version: int = 0, duration: int | None = None) -> bytes:
    units = int(seconds * 600) if duration is None else duration
    if version == 1:
        return box(b"mvhd", struct.pack(">IQQIQ", 1 << 24, 0, 0, 600, units) + bytes(80))
    return box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 600, units) + bytes(80))


FTYP = box(b"ftyp", b"isom\0\0\2\0isom")
MOOV = box(b"moov", mvhd() + box(b"trak", bytes(200)))
MDAT = box(b"mdat", bytes(3000))
FRAGMENT = box(b"moof", bytes(90)) + box(b"mdat", bytes(500))
OPEN_MOOV = box(b"moov", mvhd(duration=0) + box(b"mvex", bytes(20)))

WHOLE = {
    "moov-first": FTYP + MOOV + MDAT,
    "moov-last": FTYP + MDAT + MOOV,
    "with-padding": FTYP + box(b"free", bytes(50)) + MOOV + MDAT + box(b"udta"),
    "long-sizes": FTYP + MOOV + box(b"mdat", bytes(3000), large=True),
    "new-mvhd": FTYP + box(b"moov", mvhd(version=1)) + MDAT,
    "mvhd-not-first": FTYP + box(b"moov", box(b"free", bytes(9)) + mvhd()) + MDAT,
    "moov-larger-than-a-window": FTYP + box(b"moov", box(b"trak", bytes(200_000)) + mvhd()) + MDAT,
    "fragmented": FTYP + OPEN_MOOV + FRAGMENT * 3 + box(b"mfra", bytes(40)),
}


class Bytes:
    """An object in memory that counts how often it is read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0

    async def read(self, start: int, length_bytes: int) -> bytes:
        assert length_bytes > 0
        self.reads += 1
        return self.data[start : start + length_bytes]


async def check(data: bytes, expected: Expected = KNOWN) -> int:
    stored = Bytes(data)
    await check_structure(stored.read, len(data), expected)
    return stored.reads


async def refusal(data: bytes, expected: Expected = KNOWN) -> str:
    with pytest.raises(ObjectRefusedError) as caught:
        await check(data, expected)
    return caught.value.code


@pytest.mark.parametrize("expected", [KNOWN, HIDDEN], ids=["length-known", "length-hidden"])
@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
async def test_a_whole_file_passes_in_a_few_reads(data, expected):
    assert await check(data, expected) <= 6


@pytest.mark.parametrize("name", ["moov-first", "moov-last", "long-sizes", "fragmented"])
async def test_a_file_cut_anywhere_is_refused(name):
    """With the length hidden nothing else can notice a cut, so every single byte counts."""
    data = WHOLE[name]
    for length in range(len(data)):
        assert await refusal(data[:length], HIDDEN) in ("object_cut", "object_incomplete", "object_not_mp4")


async def test_a_cut_behind_the_media_loses_nothing():
    data = FTYP + MOOV + MDAT + box(b"free", bytes(50))
    await check(data[:-58], HIDDEN)
    assert await refusal(data[:-57], HIDDEN) == "object_cut"


BROKEN = {
    "empty": (b"", "object_incomplete"),
    "html": (b"<html><body>Not here</body></html>", "object_cut"),
    "other-first-box": (box(b"free", bytes(9)) + FTYP + MOOV + MDAT, "object_not_mp4"),
    "no-moov": (FTYP + MDAT, "object_incomplete"),
    "no-mdat": (FTYP + MOOV, "object_incomplete"),
    "no-mvhd": (FTYP + box(b"moov", box(b"trak")) + MDAT, "object_incomplete"),
    "mvhd-too-short": (FTYP + box(b"moov", box(b"mvhd", bytes(7))) + MDAT, "object_cut"),
    "child-beyond-moov": (FTYP + box(b"moov", b"\0\0\1\0mvhd") + MDAT, "object_cut"),
    "box-smaller-than-its-header": (FTYP + MOOV + MDAT + struct.pack(">I4s", 4, b"free"), "object_not_mp4"),
    "long-box-smaller-than-its-header": (FTYP + struct.pack(">I4sQ", 1, b"mdat", 8), "object_not_mp4"),
    "padding-of-zeros": (FTYP + MOOV + MDAT + bytes(64), "object_not_mp4"),
    "seven-bytes-too-many": (FTYP + MOOV + MDAT + bytes(7), "object_cut"),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_file_is_refused_by_name(data, code):
    assert await refusal(data) == code


async def test_an_open_last_box_is_believed_only_with_a_known_length():
    data = FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + bytes(900)
    await check(data, KNOWN)
    assert await refusal(data, HIDDEN) == "object_incomplete"


@pytest.mark.parametrize(
    ("seconds", "expected_seconds", "passes"),
    [
        (10.0, 10.9, True),
        (10.0, 11.1, False),
        (10.0, 8.9, False),
        (1000.0, 1009.0, True),
        (1000.0, 1011.0, False),
        (10.0, None, True),
        (10.0, -1, True),
    ],
)
async def test_the_duration_may_differ_by_a_second_or_a_hundredth(seconds, expected_seconds, passes):
    data = FTYP + box(b"moov", mvhd(seconds)) + MDAT
    expected = Expected(expected_seconds, is_length_known=True)
    if passes:
        await check(data, expected)
    else:
        assert await refusal(data, expected) == "object_duration_differs"


@pytest.mark.parametrize("units", [0, 2**32 - 1], ids=["none", "open"])
async def test_a_duration_left_open_is_not_compared(units):
    await check(FTYP + box(b"moov", mvhd(duration=units)) + MDAT, KNOWN)


async def test_many_fragments_cost_few_reads_and_have_an_end():
    fragments = FTYP + OPEN_MOOV + FRAGMENT * 2000
    assert await check(fragments) <= len(fragments) // 60_000 + 3

    assert await refusal(FTYP + OPEN_MOOV + box(b"free") * 20_001 + MDAT) == "object_incomplete"


async def test_an_object_shorter_than_the_store_says_is_refused():
    stored = Bytes(FTYP + MOOV + MDAT)
    with pytest.raises(ObjectRefusedError):
        await check_structure(stored.read, len(stored.data) + 100, KNOWN)


@pytest.fixture(params=["+faststart", "+frag_keyframe+empty_moov", "+default_base_moof"])
def real_file(request, tmp_path) -> bytes:
    """Three seconds made by ffmpeg: index in front, in fragments, index at the end."""
    path = tmp_path / "sample.mp4"
    make = ["-f", "lavfi", "-i", "testsrc=duration=3:size=160x90:rate=15", "-f", "lavfi", "-i", "sine=duration=3"]
    make += ["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-movflags", request.param, str(path)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *make], check=True, timeout=60)
    return path.read_bytes()


async def test_a_real_file_passes_and_a_cut_one_does_not(real_file):
    await check(real_file, Expected(3.0, is_length_known=True))
    await check(real_file, Expected(3.0, is_length_known=False))
    for cut in range(1, len(real_file), len(real_file) // 50):
        with pytest.raises(ObjectRefusedError):
            await check(real_file[:cut], Expected(3.0, is_length_known=False))
