"""Check that an audio file holds the audio its header declares; libsndfile trusts the header.

A header may declare more than there is (an interrupted copy), less (concatenated files, a length that was never updated) or
nothing (a stream written to a pipe). The container's own structure distinguishes these cases without decoding.
"""

from __future__ import annotations

import math
import re
from typing import BinaryIO

CHECKED = {"AIFF", "AU", "CAF", "FLAC", "HTK", "MP3", "NIST", "OGG", "RF64", "SVX", "W64", "WAV", "WAVEX"}
"""The formats, by libsndfile's names, in which a part of a file is told from a whole one."""
_PLACEHOLDER = 0x1000  # writers to pipes declare a data size of 2 or 4 GiB, or a little less, as a placeholder
_PAGE_HEADER = 27  # bytes of an Ogg page before its table of segments
_BEGINS, _ENDS = 2, 4  # flags of an Ogg page: first and last page of a stream
_MP3_SLACK = 2 * 1441  # bytes of two frames: encoders differ on whether the frame with the header itself counts
_CUT = re.compile(r"(?:SSND|BODY|data|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)")  # libsndfile's log
_SPHERE = re.compile(rb"NIST_1A\s+(\d+)\s")  # how a SPHERE file begins, with the size of its header
_SPHERE_SIZES = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d+)", re.M)
_SPHERE_COMPRESSED = re.compile(rb"^sample_coding -s\d+ \S*,", re.M)  # e.g. pcm,embedded-shorten-v2.00
_STREAM_INFO = b"fLaC\x00\x00\x00\x22"  # how every FLAC file begins, after a tag if there is one


def fault_of(file: BinaryIO, container: str, log: str = "") -> str | None:
    """Why the length in the header of `file` is wrong or cannot be checked, with the fix; `None` if it is right.

    `container` is libsndfile's name of the format, `log` its log from opening the file: it compares the sizes itself for formats
    other than WAV, Ogg, SPHERE, CAF and MP3. How many bytes a FLAC should have is not known before it is decoded.
    """
    if container not in CHECKED:
        return (
            f"the format {container} does not show whether a part of the file is missing; convert it to one that does "
            f"({', '.join(sorted(CHECKED))}): ffmpeg -i FILE NEW.flac"
        )
    size = file.seek(0, 2)
    file.seek(0)
    if container in ("WAV", "WAVEX") and file.read(4) == b"RIFF":  # those that begin with RIFX or a tag are in the log
        return _wav_fault(file, size)
    of_format = {"OGG": _ogg_fault, "NIST": _sphere_fault, "CAF": _caf_fault, "MP3": _mp3_fault}.get(container)
    if of_format is not None:
        return of_format(file, size)
    for promised, there in _CUT.findall(log):
        if int(promised) > int(there) and not _is_placeholder(int(promised)):
            return cut_off(f"the header promises {promised} bytes, {there} are there")
    return None


def mp3_promise(file: BinaryIO, position: int = 0) -> tuple[int, int] | None:
    """Where the first frame of the MP3 at `position` begins and how many bytes its Xing or Info header promises.

    `None` if there is no MP3, or it has no such header.
    """
    file.seek(position)
    tag = file.read(10)
    first = position
    if tag[:3] == b"ID3" and len(tag) == 10:  # the tag's size has 7 bits in each byte
        first += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
    file.seek(first)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] < 0xE0:
        return None
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if not 0 <= at <= len(frame) - 16 or frame[at + 7] & 3 != 3:  # it must give the numbers of both frames and bytes
        return None
    return first, int.from_bytes(frame[at + 12 : at + 16], "big")


def has_second_flac(file: BinaryIO) -> bool:
    """Whether a FLAC file consists of several files, of which a decoder reads only the first. Reads the whole file."""
    file.seek(0)
    return file.read().count(_STREAM_INFO) > 1


def cut_off(found: str) -> str:
    """The message for a file of which a part is missing."""
    return f"{found}; the file is cut off; copy it again, or re-encode what is there: ffmpeg -i FILE NEW.flac"


def _joined(found: str) -> str:
    return f"{found}; only the first would be read; decode all of it into one: ffmpeg -i FILE NEW.flac"


def _is_placeholder(size: int) -> bool:
    return any(abs(size - limit) <= _PLACEHOLDER for limit in (2**31, 2**32))


def _wav_fault(file: BinaryIO, size: int) -> str | None:
    position = 12
    while True:
        tag, length = _chunk(file, position)
        if len(tag) < 4:
            return None  # no audio at all: libsndfile reports that
        position += 8
        if tag == b"data":
            break
        position += length + length % 2
    there = size - position
    if _is_placeholder(length):
        return None
    if length > there:
        return cut_off(f"the header promises {length} bytes of sound, {there} are there")
    rest = there - length
    if rest and not any(_are_chunks(file, position + length + pad, size) for pad in (length % 2, 0)):
        return (
            f"the header promises {length} bytes of sound, {rest} more come after it that are no part of a WAV file; decode all "
            "of it: ffmpeg -ignore_length 1 -i FILE NEW.flac"
        )
    return None


def _chunk(file: BinaryIO, position: int) -> tuple[bytes, int]:
    file.seek(position)
    header = file.read(8)
    return header[:4], int.from_bytes(header[4:], "little")


def _are_chunks(file: BinaryIO, position: int, size: int) -> bool:
    """Whether only chunks without audio, a tag or zeros follow from `position` on."""
    while position < size:
        tag, length = _chunk(file, position)
        if tag in (b"RIFF", b"data") or not re.fullmatch(rb"[ -~]{4}", tag) or position + 8 + length > size:
            file.seek(position)
            rest = file.read()
            return rest[:3] == b"TAG" or not rest.strip(b"\0")
        position += 8 + length + length % 2
    return True


def _ogg_fault(file: BinaryIO, size: int) -> str | None:
    position, headers = 0, True
    open_streams: set[bytes] = set()
    while position < size:
        file.seek(position)
        page = file.read(_PAGE_HEADER)
        if page[:4] != b"OggS":
            file.seek(position)
            if open_streams or b"OggS" in file.read():
                return cut_off(f"the Ogg stream is broken at byte {position}")
            return None  # a tag after the end
        segments = file.read(page[26]) if len(page) == _PAGE_HEADER else b""
        following = position + _PAGE_HEADER + len(segments) + sum(segments)
        if len(page) < _PAGE_HEADER or len(segments) < page[26] or following > size:
            return cut_off(f"the last page of the Ogg stream, at byte {position}, is not whole")
        flags, serial = page[5], page[14:18]
        if flags & _BEGINS:
            if not headers:
                return _joined(f"another Ogg stream begins at byte {position}")
            open_streams.add(serial)
        headers = headers and bool(flags & _BEGINS)  # multiplexed streams all begin before the first one continues
        if flags & _ENDS:
            open_streams.discard(serial)
        position = following
    return cut_off("the Ogg stream has no last page") if open_streams else None


def _sphere_fault(file: BinaryIO, size: int) -> str | None:
    """Of a NIST SPHERE file. Its header is text: the header's own size, then a line of name, type and value for each field."""
    file.seek(0)
    begin = _SPHERE.match(file.read(1024))
    if begin is None:
        return None  # libsndfile reports that
    file.seek(0)
    header = file.read(int(begin[1]))
    if _SPHERE_COMPRESSED.search(header):
        return None
    promised, there = math.prod(map(int, dict(_SPHERE_SIZES.findall(header)).values())), size - int(begin[1])
    return cut_off(f"the header promises {promised} bytes of sound, {there} are there") if promised > there else None


def _caf_fault(file: BinaryIO, size: int) -> str | None:
    """Of a Core Audio file, whose chunks each begin with a name and a length. What describes the sound may follow it."""
    position = 8
    while size - position >= 12:
        file.seek(position)
        header = file.read(12)
        length = int.from_bytes(header[4:], "big", signed=True)
        there = size - position - 12
        if length < 0:
            return None  # the chunk goes on to the end
        if length > there:
            name = header[:4].decode("ascii", "replace")
            return cut_off(f"the header promises {length} bytes in the chunk {name!r}, {there} are there")
        position += 12 + length
    return None


def _mp3_fault(file: BinaryIO, size: int) -> str | None:
    promise = mp3_promise(file)
    if promise is None:
        return None
    first, promised = promise
    there = size - first
    if promised > there:
        return cut_off(f"the header promises {promised} bytes of MP3, {there} are there")
    end = first + promised
    file.seek(end)
    following = file.read(3)
    if following[:3] != b"ID3" and not (following[:1] == b"\xff" and following[1:2] >= b"\xe0"):
        return None  # a tag, or nothing
    if size - end > _MP3_SLACK or mp3_promise(file, end) is not None:
        return _joined(f"the header promises {promised} bytes of MP3, {there} are there: several concatenated MP3s")
    return None
