"""The flags of ``launch_server`` that work: one for each field of ``backend.config.ServerArgs``."""

from __future__ import annotations

from backend.flags.checks import AT_LEAST_ONE, FRACTION, JSON_OBJECT, MODEL_NAME, NOT_NEGATIVE, PORT, POSITIVE, Check
from backend.flags.flag import Flag, Kind, State
from backend.flags.kv_events import EXAMPLE, is_kv_events_config
from backend.flags.rows import integer, number, switch, text, words, works
from backend.flags.server.parser_names import REASONING_PARSERS, TOOL_CALL_PARSERS

BOTH = ("sglang", "vllm")
OURS = ("warmlane",)
KV_EVENTS = Check(is_kv_events_config, f"JSON such as {EXAMPLE}")
ATTENTION_BACKENDS = ("flashinfer", "triton", "torch_native")
WHOLE_NUMBERS = Check(lambda value: all(str(word).isdecimal() and int(word) > 0 for word in value), "whole numbers")
CHUNK = Check(lambda value: value == -1 or value >= 1, "-1 (never split a prompt) or at least 1")

MODEL = works(
    "model",
    text(
        "--model-path",
        "--model",
        help="folder, GGUF file or hub name ORG/NAME; without it the default model SmolLM2-135M-Instruct",
        metavar="PATH",
        check=MODEL_NAME,
        sources=BOTH,
    ),
    text(
        "--tokenizer-path",
        "--tokenizer",
        help="folder or file of the tokeniser",
        metavar="PATH",
        check=MODEL_NAME,
        sources=BOTH,
    ),
    text("--revision", help="branch, tag or commit on the hub", sources=BOTH),
    text("--download-dir", help="where models from the hub are kept", metavar="DIR", sources=BOTH),
    text(
        "--load-format",
        default="auto",
        choices=("auto", "safetensors", "gguf", "dummy"),
        help="dummy: random weights, for measuring",
        sources=BOTH,
    ),
    text(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        rename={"half": "float16", "float": "float32"},
        help="of weights and activations",
        sources=BOTH,
    ),
    integer(
        "--context-length",
        "--max-model-len",
        "--context-len",
        check=AT_LEAST_ONE,
        help="longest prompt and output together, in tokens",
        sources=BOTH,
    ),
    text("--served-model-name", help="the model's name in the API", metavar="NAME", sources=BOTH),
    text("--chat-template", help="Jinja file or template in place of the model's own", metavar="PATH", sources=BOTH),
    switch(
        "--trust-remote-code",
        state=State.ACCEPTED,
        reason="code that comes with a model is never run",
        sources=BOTH,
    ),
    text(
        "--model-impl",
        default="auto",
        choices=("auto", "native", "transformers"),
        rename={"sglang": "native", "vllm": "native"},
        help="who runs the model; auto: transformers where docs/models.md does not list the architecture",
        sources=BOTH,
    ),
    text(
        "--json-model-override-args",
        "--hf-overrides",
        default="{}",
        check=JSON_OBJECT,
        help="read these keys in place of those of the model's config.json",
        metavar="JSON",
        sources=BOTH,
    ),
    switch("--is-embedding", help="give embeddings only: the output head is not loaded"),
    switch("--skip-tokenizer-init", help="serve token ids only", sources=BOTH),
    Flag(
        ("--check",),
        Kind.OPTIONAL,
        bare="",
        metavar="MODEL",
        help="say what the model needs and what fits on this machine, then stop; no weights are read",
        sources=OURS,
    ),
)

SERVER = works(
    "server",
    text("--host", default="127.0.0.1", help="address to listen on", metavar="ADDRESS", sources=BOTH),
    integer("--port", default=30000, check=PORT, help="port to listen on", sources=BOTH),
    text("--api-key", help="key that clients must send as a bearer token", metavar="KEY", sources=BOTH),
    text("--admin-api-key", help="key for the routes that steer the server, in place of --api-key", metavar="KEY"),
    text(
        "--log-level",
        "--uvicorn-log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        rename={"critical": "error", "trace": "debug"},
        help="least level of what is logged",
        sources=BOTH,
    ),
    text(
        "--tool-call-parser",
        default="auto",
        choices=("auto", "none", *TOOL_CALL_PARSERS),
        help="format of the model's tool calls; auto: as its chat template shows",
        metavar="NAME",
        sources=BOTH,
    ),
    text(
        "--reasoning-parser",
        default="auto",
        choices=("auto", "none", *REASONING_PARSERS),
        help="format of the model's reasoning; auto: as its chat template shows",
        metavar="NAME",
        sources=BOTH,
    ),
    text(
        "--sampling-defaults",
        default="model",
        choices=("model", "openai"),
        help="what a request leaves out comes from the model's generation_config.json, or is the API's own",
    ),
    integer(
        "--max-body-bytes", default=64 * 1024 * 1024, check=AT_LEAST_ONE, help="largest request body", sources=OURS
    ),
    switch("--skip-server-warmup", help="be ready before the first forward pass has run"),
    switch("--allow-auto-truncate", help="cut over-long prompts instead of refusing them"),
)

RUNTIME = works(
    "runtime",
    text("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where the model runs", sources=BOTH),
    text(
        "--attention-backend",
        default="auto",
        choices=("auto", *ATTENTION_BACKENDS),
        rename={"torch_sdpa": "torch_native"},
        help="attention kernels; auto: the fastest that is installed and computes the model",
        sources=BOTH,
    ),
    text(
        "--prefill-attention-backend",
        choices=ATTENTION_BACKENDS,
        rename={"torch_sdpa": "torch_native"},
        help="those of rows with several new tokens, instead of --attention-backend",
    ),
    text(
        "--decode-attention-backend",
        choices=ATTENTION_BACKENDS,
        rename={"torch_sdpa": "torch_native"},
        help="those of rows with one new token, instead of --attention-backend",
    ),
    text(
        "--kv-cache-dtype",
        default="auto",
        choices=("auto", "fp8_e4m3", "fp8_e5m2"),
        rename={"fp8": "fp8_e4m3"},
        help="of stored keys and values; auto: the model's. 8 bits take half the memory and need the triton attention",
        sources=BOTH,
    ),
    switch(
        "--disable-cuda-graph",
        "--enforce-eager",
        off_names=("--no-enforce-eager",),
        help="launch every kernel of every step by itself",
        sources=BOTH,
    ),
    integer(
        "--cuda-graph-max-bs",
        "--cuda-graph-max-bs-decode",
        check=AT_LEAST_ONE,
        help="rows of the largest decode step that is captured as a CUDA graph",
    ),
    words(
        "--cuda-graph-bs",
        "--cuda-graph-bs-decode",
        default=(),
        check=WHOLE_NUMBERS,
        metavar="N",
        help="captured batch sizes; without it: chosen up to --cuda-graph-max-bs",
    ),
    switch("--disable-cuda-graph-padding", help="replay a graph only for exactly its number of rows"),
    switch(
        "--disable-prefill-cuda-graph",
        "--disable-piecewise-cuda-graph",
        help="launch every kernel of a short step with prompts by itself",
    ),
    integer(
        "--prefill-cuda-graph-max-tokens",
        "--piecewise-cuda-graph-max-tokens",
        check=AT_LEAST_ONE,
        help="tokens of the largest step with prompts that is captured as a CUDA graph; without it: 4,096 or 1,024, by "
        "the size of the model",
    ),
    switch(
        "--enable-torch-compile",
        help="compile decode steps with torch.compile; the own kernels were faster wherever it was measured",
    ),
    integer(
        "--torch-compile-max-bs",
        default=32,
        check=AT_LEAST_ONE,
        help="rows of the largest decode step that is compiled",
    ),
    integer("--cpu-threads", check=AT_LEAST_ONE, help="threads of the model on the CPU", sources=OURS),
    integer("--page-size", "--block-size", check=AT_LEAST_ONE, help="tokens of one KV page", sources=BOTH),
    number(
        "--mem-fraction-static",
        "--mem-fraction",
        "--mem-frac",
        "--gpu-memory-utilization",
        check=FRACTION,
        help="share of memory for weights and KV cache",
        sources=BOTH,
    ),
    integer("--max-total-tokens", check=AT_LEAST_ONE, help="tokens that the KV cache holds"),
    integer(
        "--max-running-requests",
        "--max-num-seqs",
        check=AT_LEAST_ONE,
        help="requests that run at once",
        sources=BOTH,
    ),
    integer("--max-queued-requests", check=NOT_NEGATIVE, help="waiting requests before new ones get 503"),
    integer("--max-prefill-tokens", default=16384, check=AT_LEAST_ONE, help="prompt tokens of one step at most"),
    integer(
        "--chunked-prefill-size",
        "--max-num-batched-tokens",
        check=CHUNK,
        help="prompt tokens of one step before a prompt is split; -1: never split",
        sources=BOTH,
    ),
    switch(
        "--disable-radix-cache",
        "--no-enable-prefix-caching",
        off_names=("--enable-prefix-caching",),
        help="do not reuse the KV of earlier prompts",
        sources=BOTH,
    ),
    text(
        "--radix-eviction-policy",
        default="lru",
        choices=("lru", "lfu", "priority"),
        help="which cached prefixes go first",
    ),
    switch(
        "--enable-hierarchical-cache",
        "--enable-hicache",
        help="keep cached prefixes that find no room in the host's memory",
    ),
    number(
        "--hicache-ratio",
        default=2.0,
        check=POSITIVE,
        help="room in the host's memory, as a multiple of the KV cache",
    ),
    integer("--hicache-size", default=0, check=NOT_NEGATIVE, help="the same in GB; 0: by --hicache-ratio"),
    text(
        "--hicache-write-policy",
        default="write_through",
        choices=("write_through", "write_through_selective", "write_back"),
        help="copy prefixes when they are stored, when they are used again, or when they are evicted",
    ),
    number(
        "--swa-full-tokens-ratio",
        check=FRACTION,
        help="tokens that layers with a sliding window have room for, as a share of those that the other layers have",
    ),
    switch(
        "--disable-hybrid-swa-memory",
        "--disable-hybrid-kv-cache-manager",
        help="layers with a sliding window keep what is behind it",
        sources=BOTH,
    ),
    switch(
        "--disable-overlap-schedule",
        help="launch a step only when the one before it has ended",
    ),
    text(
        "--schedule-policy",
        "--scheduling-policy",
        default="fcfs",
        choices=("fcfs", "lpm", "dfs-weight", "lof", "random", "priority", "shortest-prefill-first"),
        help="order in which waiting requests are admitted",
        sources=BOTH,
    ),
    switch("--enable-priority-scheduling", help="admit by the requests' priority (larger first), then by arrival"),
    switch("--disable-priority-preemption", help="never retract a running request for one of higher priority"),
    integer(
        "--priority-scheduling-preemption-threshold",
        default=10,
        check=NOT_NEGATIVE,
        help="a waiting request retracts a running one when its priority is higher by more than this",
    ),
    number(
        "--schedule-conservativeness",
        default=1.0,
        check=POSITIVE,
        help="more than 1: admit fewer requests, retract fewer",
    ),
    integer("--random-seed", "--seed", help="of sampling", sources=BOTH),
    text(
        "--grammar-backend",
        default="auto",
        choices=("auto", "llguidance", "xgrammar", "none"),
        help="what constrains structured output; auto is llguidance; xgrammar (an extra: pip install "
        "'warmlane[xgrammar]') does what it holds exactly, llguidance the rest; none refuses such requests; "
        "outlines: not yet",
    ),
    text(
        "--kv-events-config",
        check=KV_EVENTS,
        metavar="JSON",
        help="publish what the prefix cache stores and evicts over ZMQ; port * is any free one",
        sources=BOTH,
    ),
    switch(
        "--enable-deterministic-inference",
        help="answers that do not depend on the batch, bit by bit; slower",
    ),
    integer(
        "--num-continuous-decode-steps",
        default=1,
        check=AT_LEAST_ONE,
        help="look at waiting requests once in so many steps while others run: fewer interruptions, later first tokens",
    ),
    number(
        "--req-waiting-timeout",
        check=NOT_NEGATIVE,
        help="seconds that a request may wait for its first step, then 503; 0: for ever, which is the default unless "
        "SGLANG_REQ_WAITING_TIMEOUT is set",
        sources=OURS,
    ),
    number(
        "--req-running-timeout",
        check=NOT_NEGATIVE,
        help="seconds that a request may take after that, then 503 (an error event in a stream); 0: for ever, which is "
        "the default unless SGLANG_REQ_RUNNING_TIMEOUT is set",
        sources=OURS,
    ),
    integer(
        "--max-scheduler-restarts",
        default=3,
        check=NOT_NEGATIVE,
        help="how often within ten minutes a scheduler process that died is started anew before the server ends with "
        "status 1; 0: it ends at once",
        sources=OURS,
    ),
    number(
        "--watchdog-timeout",
        default=300.0,
        check=NOT_NEGATIVE,
        help="seconds that a step may take before the scheduler is ended with its stacks in the log; 0: for ever",
    ),
    switch("--check-invariants", help="verify the page accounting after every step", sources=OURS),
)

SETTINGS: tuple[Flag, ...] = MODEL + SERVER + RUNTIME
