"""A real vLLM server in a process of its own, and models for it. Runs in the environment of `make vllm`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_S = 600
FLAGS = ("--host", "127.0.0.1", "--dtype", "float32", "--enable-scale-out", "--enforce-eager", "--max-num-seqs", "64")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class VLLMProcess:
    """A server that runs."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it as a crash would, with all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)


@contextlib.contextmanager
def vllm_process(folder: Path, log: Path, *flags: str, port: int = 0) -> Iterator[VLLMProcess]:
    """`folder` on a vLLM server; entered when it answers, after a minute or so."""
    port = port or _free_port()
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--port",
        str(port),
        *FLAGS,
        *flags,
    ]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **ENVIRONMENT}, start_new_session=True
        )
    server = VLLMProcess(f"http://127.0.0.1:{port}", process)
    try:
        _wait(server, log)
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(server: VLLMProcess, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(server.url + "/health"):
            return
        time.sleep(0.5)
    reasons = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line]  # the first is the cause
    raise RuntimeError("\n".join(["vLLM did not start:", *reasons[:20]]))


def embedded_model(folder: Path) -> Path:
    """The bundled model in float32; vLLM computes in the format that is asked for, but not all of it."""
    from simulsa.lalm.load import load

    lalm = load("tiny-en-de", "cpu")
    lalm.processor.save_pretrained(folder)
    lalm.model.save_pretrained(folder)
    return folder


def random_model(folder: Path, window_s: int = 30) -> Path:
    """Qwen2-Audio's front end and window in small, with random weights; vLLM's attention on CPUs needs heads of 32 or more."""
    import torch
    from transformers import (
        AutoProcessor,
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    from recipes.base.architecture import sinusoids
    from recipes.base.text import AUDIO
    from simulsa.lalm.parts import EMBEDDED_MODELS

    embedded = AutoProcessor.from_pretrained(EMBEDDED_MODELS / "tiny-en-de")
    tokenizer = embedded.tokenizer
    width, positions = 64, 50 * window_s
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "d_model": width,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 2 * width,
            "max_source_positions": positions,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 2 * width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,  # large enough for answers to differ from clip to clip
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids(AUDIO),
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(positions, width))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=window_s, return_attention_mask=True)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=embedded.chat_template).save_pretrained(folder)
    return folder
