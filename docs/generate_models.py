"""Write docs/models.md: the architectures, what they bring, and their parity with transformers.

``python docs/generate_models.py``; it makes each tiny model of the parity tests and measures it, in a few minutes.
The figures of real weights are those that ``python -m benchmarks.perplexity --page`` kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from backend.loader.gguf_families import FAMILIES as GGUF_FAMILIES
from backend.models import ARCHITECTURES
from benchmarks.perplexity import RESULTS, Figures
from tests.backend.models.families import TEXT_PARTS, VARIANTS, Variant
from tests.backend.models.foreign import FOREIGN
from tests.backend.models.parity import WAYS, sequences, worst_difference
from tests.backend.tiny_models import load_reference, save_tiny

GPU_RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "gpu_models.json"
PAGE = Path(__file__).with_name("models.md")
INTRODUCTION = """\
# Models

Written by `python docs/generate_models.py`; the same comparison is a test (`tests/backend/models/test_families.py`).

`--model-path` takes a Hugging Face folder (safetensors, configuration of transformers 4 or 5) whose `architectures`
names one of these, or a GGUF file where the last column says so. `launch_server --check MODEL` tells what one needs.

| architecture | served by | GGUF |
|---|---|---|
"""
OTHERS = """
Any other decoder that the installed `transformers` has is run by it, over our paged attention, prefix cache and
scheduler (`--model-impl auto`, the default; `transformers` does so with the architectures above too, `native` refuses
others; one log line says so). Which layers there are and what each asks of attention (heads, window, scale, cap, sinks)
is found by a pass without numbers before anything is loaded. What that pass shows to be impossible stops the start with
the reason and the nearest names: state-space, convolutional and encoder-decoder models, attention with masks or biases
of its own, windows that layers do not tell, keys shared among layers. Such models run without CUDA graphs and merged
matrices. Code that comes with a model is never run.
"""
PARITY = """
## Parity

Each line is a tiny random model saved by transformers, loaded here in float32 on the CPU, and compared on rows of 7 to
90 tokens: longer than the window (12) and the original context (32) of those that have one. The number is the largest
absolute difference of any logit of any token; the largest logit is beside it. Greedy tokens of the Engine are equal.

"""
FOREIGN_PARITY = """
### Run by transformers

The same for architectures without a file here (`tests/backend/models/test_fallback.py`).

"""
REAL = """
## Real weights

Served in float32 and asked over HTTP, beside transformers, which reads the same file by itself
(`python -m benchmarks.perplexity --data DIR --model-path FILE --page`): perplexity of joined texts in windows of 1,024
tokens, and the rows of a slice of HellaSwag whose true ending is the most likely one. The last number is the largest
difference of a token's log-probability.

| model | perplexity | transformers | tokens | HellaSwag | transformers | chosen alike | difference |
|---|---|---|---|---|---|---|---|
"""
GPU = """
## On a GPU

Measured by `python -m benchmarks.gpu_models` on one {device} ({when}). Logits in bfloat16 against float32 of small
models of each family, relative to a token's logits in the norm: the median token / the worst one, by attention backend.
Of a mixture of experts a token may go to other experts where two are nearly tied, hence its worst ones.

"""
SPEED = """
Speed of real shapes with random weights in bfloat16, output tokens a second: `single` is one request of 128 tokens in
and 256 out, `mixed` 256 requests of 100 to 1024 tokens in and out. Behind them what vLLM 0.24.0 did on the same kind of
GPU on the same day with such requests (greedy, FlashAttention 3, its own tiles for this GPU's experts), and the ratio.

"""
NOTES = """
## Notes

- LongRoPE and dynamic scaling choose their frequencies by the longest context that is served (`--context-length`), not
  by the length of each prompt: cached keys stay valid. transformers turns prompts within the original context by the
  short factors instead, so such prompts differ from it when a longer context is served.
- DeepSeek's latent attention keeps one compressed vector a token; queries and outputs are projected, not the cache.
- Experts run as one matrix product each over the tokens sorted by expert; on a GPU all of them at once, and up to four
  tokens without sorting. Of Qwen3-30B-A3B an H200 reads a step's experts at 0.93 of the speed of a copy or more from 8
  to 256 rows, and at 0.8 for one (`python -m benchmarks.gpu_experts`).
- Loading 11.9 GiB onto an H200 from the page cache takes 0.82 s (eight threads, pinned memory), 0.39 times as long as
  copying the tensors one by one (`python -m benchmarks.load_time --gib 12 --device cuda`).
- Layers with a window have pages of their own and give back what is behind it, where that lets the KV cache hold more
  (`--check` says so; `--swa-full-tokens-ratio`, `--disable-hybrid-swa-memory`); not beside the host tier, and not in
  deterministic mode. A cached prefix can be continued where the pages of its last window are still there.
- The same decoders are served with a classification head (`...ForSequenceClassification`: a matrix on the last token's
  hidden states; labels and activation from the configuration; reward models and rerankers have one label) and without
  any (`...Model`, `--is-embedding`, or a folder of sentence-transformers, whose `modules.json` decides pooling and
  normalisation). `classifier_from_token` in the configuration makes a head of tokens: Qwen3-Reranker as published needs
  `--json-model-override-args '{"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no",
  "yes"]}'`. All of them are within 1e-4 of transformers (`tests/backend/models/test_heads.py`).
- Matrices of quantised checkpoints (FP8, MXFP4, GPTQ, AWQ) are refused; GGUF types are unpacked when they are read.
- Tokenizers inside GGUF files may be byte-level BPE or SentencePiece. Of llama.cpp's golden pairs those of llama-spm,
  phi-3, llama-bpe, qwen2, qwen35, gpt-2, falcon, mpt, command-r, refact, starcoder and deepseek-coder give equal ids;
  deepseek-llm, gemma-4 and bert vocabularies are refused. The folders of Qwen3, DeepSeek-V3 and gpt-oss give the ids of
  transformers (`python -m benchmarks.tokenizers --data DIR`).
- Phi-4-multimodal is its text part; tensors of the encoders and adapters are left out.
"""


def page() -> str:
    """The whole of docs/models.md."""
    torch.set_num_threads(1)
    native, foreign = _parity({**VARIANTS, **TEXT_PARTS}), _parity(FOREIGN)
    parts = (
        INTRODUCTION,
        _architectures(),
        OTHERS,
        PARITY,
        native,
        FOREIGN_PARITY,
        foreign,
        REAL,
        _real(),
        _gpu(),
        NOTES,
    )
    return "".join(part if isinstance(part, str) else "".join(f"{line}\n" for line in part) for part in parts)


def _gpu() -> str:
    """What the last run on a GPU found."""
    found = json.loads(GPU_RESULTS.read_text(encoding="utf-8"))
    backends = list(dict.fromkeys(line["attention"] for line in found["errors"]))
    errors: dict[str, dict[str, str]] = {}
    for line in found["errors"]:
        errors.setdefault(line["model"], {})[line["attention"]] = f"{line['median']:.1%} / {line['worst']:.1%}"
    table = [f"| model | {' | '.join(backends)} |", "|---" * (1 + len(backends)) + "|"]
    table += [f"| {name} | {' | '.join(by.get(each, '') for each in backends)} |" for name, by in errors.items()]
    speeds = {(line["model"], line["workload"]): line for line in found["speed"] if "workload" in line}
    models = list(dict.fromkeys(model for model, _ in speeds))
    speed = ["| model | single | vLLM | mixed | vLLM |", "|---|---|---|---|---|"]
    speed += [f"| {name} | {_speed(speeds[name, 'single'])} | {_speed(speeds[name, 'mixed'])} |" for name in models]
    head = GPU.format(device=found["device"], when=found["when"][:10])
    return head + "\n".join(table) + "\n" + SPEED + "\n".join(speed) + "\n"


def _speed(line: dict[str, Any]) -> str:
    peer = f"{line['peer']:,.0f} ({line['ratio']:.2f})" if "peer" in line else "not measured"
    return f"{line['output_tok_s']:,.0f} | {peer}"


def _architectures() -> Iterator[str]:
    for name, place in sorted(ARCHITECTURES.items()):
        module = place.partition(":")[0].replace(".", "/")
        kinds = [f"`{kind}`" for kind, family in GGUF_FAMILIES.items() if family.architecture == name]
        yield f"| {name} | `{module}.py` | {', '.join(kinds)} |"


def _real() -> Iterator[str]:
    for kept in json.loads(RESULTS.read_text(encoding="utf-8")):
        each = Figures(**kept)
        yield (
            f"| {each.model} | {each.perplexity:.4f} | {each.reference_perplexity:.4f} | {each.tokens:,} "
            f"| {each.right} of {each.rows} | {each.reference_right} of {each.rows} "
            f"| {each.same_choice} of {each.rows} | {each.largest_difference:.0e} |"
        )


def _parity(variants: dict[str, Variant]) -> Iterator[str]:
    yield f"| model | what is in it | largest logit | {' | '.join(WAYS)} |"
    yield "|---" * (3 + len(WAYS)) + "|"
    for name, variant in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            save_tiny(name, variant.make, folder)
            rows = sequences(variant.lengths)
            found = [f"{worst_difference(folder, way, rows):.0e}" for way in WAYS]
            yield f"| {name} | {variant.features} | {_largest_logit(folder, rows[0]):.0f} | {' | '.join(found)} |"


@torch.inference_mode()
def _largest_logit(folder: str, row: list[int]) -> float:
    return float(load_reference(folder)(torch.tensor([row])).logits.abs().max())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
