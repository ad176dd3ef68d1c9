"""Content signatures: twelve hexadecimal digits that identify exactly what was used."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from simulsa import strict_json
from simulsa.manifest import Utterance

logger = logging.getLogger("simulsa")

_WEIGHTS = (".safetensors", ".bin")
_WHOLE_BELOW_BYTES = 64 * 1024 * 1024  # in larger weight files, every tensor is sampled
# after rounding to bfloat16, fine-tuning leaves many of a tensor's numbers unchanged: a few bytes would not show it
_PLACES, _PLACE_BYTES = 3, 4096
_AUDIO_BYTES = 64 * 1024  # read at either end of an audio file
_DESCRIBING = ("config.json", "adapter_config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja")


def folder_signature(folder: Path) -> str:
    """The signature of a model or adapter folder: its configuration, its tokenizer and every tensor of its weights.

    Weight files below 64 MiB are hashed whole. Of a larger safetensors file, the header (names, formats and shapes) is hashed,
    and 4 KiB each from the beginning, middle and end of every tensor; of a larger PyTorch file, the checksums that it stores of
    its tensors. How the weights are loaded is not part of the signature: see `marks`.
    """
    return _folder_signature(folder, _of_every_tensor)


def earlier_signature(folder: Path) -> str:
    """A folder's signature in the earlier scheme, which used only the size and the first MiB of a large weight file.

    Still accepted for adapters recorded under it; to be removed in the next release.
    """
    return _folder_signature(folder, lambda file: iter([file.read(2**20)]))


def marks(number_format: str, four_bit: bool) -> str:
    """What is appended to a loaded model's signature: its number format, and whether its layers were rounded to 4 bits."""
    return f"+{number_format}{'+4bit' if four_bit else ''}"


def weights_part(signature: str) -> str:
    """The digits in `name@digits+marks`: the weights, however they were loaded."""
    return signature.rpartition("@")[2].partition("+")[0]


def text_signature(parts: Iterable[str]) -> str:
    """The signature of a sequence of strings."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8") + b"\0")
    return digest.hexdigest()[:12]


def audio_signature(rows: Sequence[Utterance]) -> str | None:
    """The signature of what the rows sound like, in order: where each begins, and its file's size and first and last 64 KiB.

    It does not depend on where the files are. If some cannot be read, it is that of the others, a dash, and a signature of the
    places of the rows without audio; `None` if none can be read.
    """
    paths = list(dict.fromkeys(row.audio for row in rows))
    with ThreadPoolExecutor() as pool:
        marks = dict(zip(paths, pool.map(_audio_mark, paths), strict=True))
    silent = [str(place) for place, row in enumerate(rows) if marks[row.audio] is None]
    if silent and len(silent) == len(rows):
        return None
    heard = text_signature(f"{float(row.start_s)}:{mark}" for row in rows if (mark := marks[row.audio]) is not None)
    return f"{heard}-{text_signature(silent)}" if silent else heard


def same_audio(recorded: str | None, now: str | None) -> bool:
    """Whether two audio signatures do not contradict each other. Records of earlier versions have none.

    If other files could be read then than can be read now, they cannot be compared: a warning says so.
    """
    if recorded is None or recorded == now:
        return True
    if now is not None and recorded.partition("-")[2] == now.partition("-")[2]:
        return False
    logger.warning("whether the audio is the same as before is not checked: files are missing that were there, or the reverse")
    return True


def _audio_mark(path: str) -> str | None:
    """Eight hexadecimal digits of a file's size, beginning and end; `None` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(_AUDIO_BYTES)
            file.seek(max(len(first), size - _AUDIO_BYTES))
            return f"{zlib.crc32(b'%d:' % size + first + file.read(_AUDIO_BYTES)):08x}"
    except (OSError, ValueError):  # ValueError: no path at all
        return None


def _folder_signature(folder: Path, sampled: Callable[[BinaryIO], Iterator[bytes]]) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in _DESCRIBING:
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix in _WEIGHTS:
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with open(path, "rb") as file:
                for part in sampled(file) if size >= _WHOLE_BELOW_BYTES else [file.read()]:
                    digest.update(part)
    return digest.hexdigest()[:12]


def _of_every_tensor(file: BinaryIO) -> Iterator[bytes]:
    """A sample of every tensor in a weight file, in the file's order."""
    if zipfile.is_zipfile(file):  # PyTorch's format: one entry per tensor
        with zipfile.ZipFile(file) as archive:
            yield repr([(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]).encode()
        return
    file.seek(0)
    header = file.read(int.from_bytes(file.read(8), "little"))  # safetensors: the header's length, the header, and the tensors
    yield header
    first = file.tell()
    spans = (tensor["data_offsets"] for name, tensor in strict_json.loads(header).items() if name != "__metadata__")
    for start, end in sorted(spans):
        last = max(start, end - _PLACE_BYTES)  # where the last sample begins
        for place in range(_PLACES):
            file.seek(first + start + (last - start) * place // (_PLACES - 1))
            yield file.read(min(_PLACE_BYTES, end - start))
