"""Content signatures: what exactly was used, in twelve hexadecimal digits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin")
_WHOLE_BELOW_BYTES = 64 * 1024 * 1024  # larger weight files are told apart by name, size and their first megabyte
_DESCRIBING = ("config.json", "adapter_config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja")


def folder_signature(folder: Path) -> str:
    """The signature of a model or adapter folder: its configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in _DESCRIBING:
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix in _WEIGHTS:
            size = path.stat().st_size
            with open(path, "rb") as file:
                digest.update(f"{path.name}:{size}:".encode() + file.read(-1 if size < _WHOLE_BELOW_BYTES else 2**20))
    return digest.hexdigest()[:12]


def text_signature(parts: Iterable[str]) -> str:
    """The signature of a sequence of strings."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8") + b"\0")
    return digest.hexdigest()[:12]
