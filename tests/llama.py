"""A real OpenAI-compatible server: llama.cpp's, in a process of its own, with a model of 100 kB that is made here.

The model prefers one character to the next, whatever it is asked. Under the grammar that the server makes of a
question's schema, it therefore writes the shortest valid answer: one phase that starts at cue 1.

``python tests/llama.py MODEL KEY`` starts the server and prints its URL.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "sk-llama-1234"
CONTEXT_TOKENS = 8192
"""A token is a byte."""
SIZE = 32
PREFERRED = '"{],1I'
"""In this order: texts end at once, lists have one item, numbers one digit."""


def write_model(path: Path) -> None:
    """Write a Llama of one layer that adds nothing, so that the output depends on the output matrix alone."""
    import gguf
    import numpy as np

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    liking = [0.0] * 3 + [1.0 if chr(byte).isalnum() else 0.5 if 32 < byte < 127 else 0.0 for byte in range(256)]
    for place, sign in enumerate(PREFERRED):
        liking[3 + ord(sign)] = 10.0 - place
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(SIZE)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    ones, nothing = np.ones(SIZE, np.float32), np.zeros((SIZE, SIZE), np.float32)
    writer.add_tensor("token_embd.weight", np.ones((len(tokens), SIZE), np.float32))
    writer.add_tensor("output.weight", np.outer(liking, ones).astype(np.float32) / 10)
    writer.add_tensor("output_norm.weight", ones)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", nothing)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the server; yields its URL."""
    model, log = folder / "model.gguf", folder / "llama.log"
    write_model(model)
    command = [sys.executable, __file__, str(model), KEY]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("http://"), log.read_text()
            yield line.strip()
        finally:
            process.kill()


def main(model: str, key: str) -> None:
    """Serve a model on a free port until the process is ended."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.api_keys = [key]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)  # noqa: T201
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
