"""ServerArgs: every setting of one backend, as typed by the user.

Resolved values live with the part that resolves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerArgs:
    """Settings of a backend; the field names are the flags' names.

    ``None`` means: decide from the model and the machine.
    """

    # model
    model_path: str | None = None  # folder, GGUF file or hub name ORG/NAME; None: the default model
    tokenizer_path: str | None = None
    revision: str | None = None
    download_dir: str | None = None
    load_format: str = "auto"  # auto, safetensors, gguf, dummy
    dtype: str = "auto"  # auto, float32, bfloat16, float16
    context_length: int | None = None
    served_model_name: str | None = None
    chat_template: str | None = None
    trust_remote_code: bool = False
    model_impl: str = "auto"  # native, transformers; auto: native where there is such a model
    is_embedding: bool = False  # a model that writes text gives embeddings only, and needs no head
    json_model_override_args: str = "{}"  # JSON: what to read in place of the model's config.json
    skip_tokenizer_init: bool = False
    check: str | None = None  # say what this model needs ("": that of model_path) and stop

    # server
    host: str = "127.0.0.1"
    port: int = 30000
    api_key: str | None = None
    admin_api_key: str | None = None  # for the routes that steer the server, in place of api_key
    log_level: str = "info"
    tool_call_parser: str = "auto"  # auto: by the chat template; none; or a name of backend.api.parsers
    reasoning_parser: str = "auto"
    sampling_defaults: str = "model"  # model: from its generation_config.json; openai: the API's own
    max_body_bytes: int = 64 * 1024 * 1024
    skip_server_warmup: bool = False
    allow_auto_truncate: bool = False

    # runtime
    device: str = "auto"  # auto, cpu, cuda
    attention_backend: str = "auto"
    prefill_attention_backend: str | None = None  # None: attention_backend
    decode_attention_backend: str | None = None
    kv_cache_dtype: str = "auto"  # auto: the model's; fp8_e4m3, fp8_e5m2
    disable_cuda_graph: bool = False
    cuda_graph_max_bs: int | None = None
    cuda_graph_bs: Sequence[str] = ()  # whole numbers; empty: chosen up to cuda_graph_max_bs
    disable_cuda_graph_padding: bool = False
    disable_prefill_cuda_graph: bool = False
    prefill_cuda_graph_max_tokens: int | None = None
    enable_torch_compile: bool = False
    torch_compile_max_bs: int = 32
    cpu_threads: int | None = None
    page_size: int | None = None
    mem_fraction_static: float | None = None
    max_total_tokens: int | None = None
    max_running_requests: int | None = None
    max_queued_requests: int | None = None
    max_prefill_tokens: int = 16384
    chunked_prefill_size: int | None = None  # -1: never split a prompt
    disable_radix_cache: bool = False
    radix_eviction_policy: str = "lru"
    enable_hierarchical_cache: bool = False
    hicache_ratio: float = 2.0  # host pages for each page on the device
    hicache_size: int = 0  # GB of the host's memory instead, unless 0
    hicache_write_policy: str = "write_through"
    swa_full_tokens_ratio: float | None = None  # tokens of layers with a window, as a share of the others'
    disable_hybrid_swa_memory: bool = False  # they keep what is behind their window
    disable_overlap_schedule: bool = False
    schedule_policy: str = "fcfs"
    enable_priority_scheduling: bool = False
    disable_priority_preemption: bool = False
    priority_scheduling_preemption_threshold: int = 10
    schedule_conservativeness: float = 1.0
    random_seed: int | None = None
    grammar_backend: str = "auto"  # auto and llguidance, xgrammar, or none
    kv_events_config: str | None = None  # JSON, see backend/flags/kv_events.py
    enable_deterministic_inference: bool = False
    num_continuous_decode_steps: int = 1  # waiting requests are looked at once in so many steps
    req_waiting_timeout: float | None = None  # seconds in the queue; None: SGLANG_REQ_WAITING_TIMEOUT, or never
    req_running_timeout: float | None = None  # seconds since the first step; None: SGLANG_REQ_RUNNING_TIMEOUT, or never
    max_scheduler_restarts: int = 3  # after crashes, within ten minutes
    watchdog_timeout: float = 300.0  # seconds a step may take before the scheduler is ended; 0: for ever
    check_invariants: bool = False  # verify page ownership after every step (tests)

    def validate(self) -> None:
        """Raise ``ValueError`` naming the first field, and its value, that the flag of its name would refuse."""
        from backend.flags.server.settings import SETTINGS  # the table's package imports this module
        from backend.flags.values import check_setting

        for row in SETTINGS:
            check_setting(row, getattr(self, row.dest))
