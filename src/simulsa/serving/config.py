"""Settings of the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulsa.languages import language_name
from simulsa.settings import check_whole_numbers

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_MESSAGE_KIB = 1024  # of a WebSocket message: 16 s of base64-encoded audio at 24 kHz


@dataclass(frozen=True)
class ServeConfig:
    """Address, access and limits of the server."""

    host: str = "127.0.0.1"
    """address to bind to; use `0.0.0.0` for access from other machines (requires a key, or --public)"""
    port: int = 8000
    """port to bind to; 0 picks a free one"""
    api_key: str = ""
    """API key that clients must send (visible to others in the process list: prefer --api-key-file)"""
    api_key_file: Path | None = None
    """file with one API key per line; any of them is accepted"""
    public: bool = False
    """serve all clients without a key"""
    allow_origins: tuple[str, ...] = ()
    """origins whose web pages may connect, such as `https://talks.example.org`; `*` allows all"""
    languages: tuple[str, ...] = ()
    """codes of the languages offered on the web page; none: only those of the stream settings"""
    tls_cert: Path | None = None
    """certificate (PEM, with its chain) for https and wss"""
    tls_key: Path | None = None
    """private key of the certificate (PEM)"""
    longform: bool = True
    """long-form sessions: split unbounded speech at pauses; otherwise a session is one utterance that must fit the model's
    window"""
    max_sessions: int = 32
    """maximum number of concurrent sessions; more are rejected"""
    max_batch: int = 32
    """maximum number of streams per model call"""
    max_lag_chunks: float = 1.0
    """reject new sessions while chunks of the last seconds waited longer, on average, than this many chunk lengths"""
    merge_chunks: bool = True
    """let a stream that lags behind process all waiting chunks in one step; otherwise one by one, whatever the lag"""
    min_chunk_ms: float = 100
    """smallest chunk size a client may request"""
    max_unheard_s: float = 10.0
    """seconds of a client's audio that may wait for the model; beyond that the server stops reading (back-pressure)"""
    max_upload_mib: int = 100
    """maximum size of an HTTP upload"""
    max_upload_s: float = 3600.0
    """maximum duration of an upload in seconds; compressed files can be long, and each hour takes 230 MB of memory or more"""
    max_session_s: float = 7200.0
    """seconds since a live session began (not of audio) after which it gets its final text and is closed"""
    idle_s: float = 60.0
    """seconds without a message after which a session gets its final text and is closed"""
    ping_s: float = 5.0
    """interval between pings, and time to wait for each answer, in seconds"""
    send_timeout_s: float = 10.0
    """seconds a client may take to receive a message"""
    drain_s: float = 30.0
    """seconds that open sessions get for their final text when the server stops"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"max_sessions": 1, "max_batch": 1, "max_upload_mib": 1})
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port is {self.port}; it must be from 0 (any free one) to 65535")
        times = ("max_unheard_s", "max_upload_s", "max_session_s", "idle_s", "ping_s", "send_timeout_s")
        for name in (*times, "max_lag_chunks"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if not self.drain_s >= 0:
            raise ValueError(f"drain_s is {self.drain_s}; it must be 0 or more")
        for code in self.languages:
            language_name(code)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; give both or neither")
        if not (self.is_loopback or self.has_key or self.public):
            raise ValueError(
                f"host is {self.host!r}, which is reachable from other machines, and no API key is set; "
                "give --api-key-file FILE, or --public to serve all clients"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether the server is reachable from this machine only."""
        return self.host in LOOPBACK

    @property
    def has_key(self) -> bool:
        """Whether clients need an API key."""
        return bool(self.api_key) or self.api_key_file is not None

    def keys(self) -> tuple[str, ...]:
        """All accepted API keys. Raises `ValueError` for a key file that is missing or empty."""
        return ((self.api_key,) if self.api_key else ()) + (read_keys(self.api_key_file) if self.api_key_file else ())


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one per line. Raises `ValueError` if it is missing or empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{path}: the key file cannot be read ({error.strerror})") from error
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise ValueError(f"{path}: the key file is empty; write one key per line")
    return keys
