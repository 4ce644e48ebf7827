"""The core of a backend, without a process around it: model, KV pool and scheduler, built from the user's settings.

The scheduler process and the offline Engine both run this.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from backend.attention import require_pool
from backend.attention.arriving import ArrivingPages
from backend.attention.base import AttentionBackend
from backend.attention.row_by_row import RowByRow
from backend.cache.host_copies import HostCopies
from backend.cache.host_pool import HostPool
from backend.config import ServerArgs
from backend.grammar import GrammarCompiler, Vocabulary, VocabularyForm, require_library
from backend.loader.model_config import ModelConfig, load_model_config
from backend.messages import SchedulerReady, SchedulerStats
from backend.models import CausalLM
from backend.models.build import footprint, require_memory, require_room
from backend.models.load import load_model
from backend.prompt import load_tokenizer
from backend.prompt.source import ModelSource
from backend.runner.deterministic import GROUP, DeterministicRunner
from backend.runner.device import (
    choose_device,
    choose_dtype,
    choose_kv_dtype,
    free_memory,
    kv_budget,
    kv_room,
    set_threads,
)
from backend.runner.graphs import graph_sizes
from backend.runner.host_tier import host_tier
from backend.runner.kv_pools import Pools, make_pools, paged_attention
from backend.runner.kv_sizes import Demand, KVBytes, KVSizes, largest, pages_apart, sizes_for
from backend.runner.model_runner import ModelRunner
from backend.runner.profiler import Profiler
from backend.runner.prompt_graphs import prompt_sizes
from backend.runner.rehearsal import Trial, Usage, bytes_of_steps
from backend.scheduler.limits import SchedulerLimits, make_rows
from backend.scheduler.loop import Scheduler, StepRunner
from backend.scheduler.rows import Rows

DEFAULT_PAGE_SIZE = 16
DETERMINISTIC_BLOCK = 64  # the page size where a page is what a prompt is computed by
DEFAULT_ROWS = {"cpu": 64, "cuda": 256}
DEFAULT_CHUNK = {"cpu": 512, "cuda": 8192}
SMALL_HIDDEN = 2048  # up to it a step of so many tokens is short anyway, and 1 % faster on an H200 than two halves
SMALL_MODEL_CHUNK = 16384
DEFAULT_GRAPH_ROWS = 256
GRAPH_TOKENS, SMALL_MODEL_GRAPH_TOKENS = 1024, 4096  # of steps with prompts: longer ones keep a GPU busy without graphs


@dataclass(frozen=True, slots=True)
class Core:
    scheduler: Scheduler
    ready: SchedulerReady
    profiler: Profiler
    tell: Callable[[SchedulerStats], None]  # brings the stats up to date that are known where steps run


def build_core(args: ServerArgs, source: ModelSource) -> Core:
    """Load the model and size everything. Raises ``ValueError`` (one line for the user) when it cannot be done."""
    started = time.monotonic()
    device = choose_device(args.device)
    if device.type == "cpu":
        set_threads(args.cpu_threads)
    config = load_model_config(source, args).limited(args.context_length)
    refuse_quantised(config)
    dtype = choose_dtype(args.dtype, config.dtype, device)
    model = build_model(args, source, config, dtype, device)
    kv_dtype = choose_kv_dtype(args.kv_cache_dtype, dtype)
    steps = None
    if device.type == "cuda" and not args.max_total_tokens:
        trial = partial(_trial, args, config, model, kv_dtype, device)
        steps = bytes_of_steps(trial, partial(Usage.now, device))
    limits = _size(args, config, kv_dtype, device, steps)
    pools = make_pools(limits, config, kv_dtype, device)
    rows = make_rows(limits)
    runner, captures = _runner(args, limits, pools, model, rows, device)
    if args.enable_torch_compile:
        _compile(args, runner)
    if captures:
        sizes, prompts = _graph_sizes(args, limits), _prompt_graph_sizes(args, limits, config)
        width = rows.slots.page_table.shape[1]
        runner.capture(sizes, width, prompts=prompts, pads=not args.disable_cuda_graph_padding)
    ready = SchedulerReady(
        max_total_tokens=limits.num_pages * limits.page_size,
        max_running_requests=limits.max_running_requests,
        page_size=limits.page_size,
        context_length=limits.context_length,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        load_seconds=time.monotonic() - started,
        weight_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        kv_cache_bytes=KVSizes(limits.num_pages * limits.page_size, limits.window).bytes(
            KVBytes.of(config, kv_dtype), limits.page_size
        ),
        vocab_size=config.vocab_size,
        host_total_tokens=limits.host.pages * limits.page_size if limits.host is not None else 0,
        task=config.task,
        graph_bytes=runner.graph_bytes,
        free_bytes=free_memory(device) if device.type == "cuda" else 0,
    )
    scheduler = Scheduler(_stepper(limits, runner, model), limits, rows, _grammars(args, source, config))
    return Core(scheduler, ready, Profiler(device, runner.beside_steps, runner.label_steps), runner.passes.tell)


def _runner(
    args: ServerArgs, limits: SchedulerLimits, pools: Pools, model: CausalLM, rows: Rows, device: torch.device
) -> tuple[ModelRunner, bool]:
    """What runs the steps, and whether graphs of them are to be captured."""
    attention = _attention(args, pools, model)
    copies = None if limits.host is None else HostCopies(pools.whole, HostPool(pools.whole, limits.host.pages))
    if copies is not None:
        attention = ArrivingPages(attention, copies)
    runner = ModelRunner(model, attention, rows.slots, device, overlap=limits.overlap, copies=copies)
    captures = attention.captures and model.captures
    return runner, device.type == "cuda" and not args.disable_cuda_graph and captures


def _trial(
    args: ServerArgs, config: ModelConfig, model: CausalLM, kv_dtype: torch.dtype, device: torch.device
) -> Trial:
    """All rows and the whole context, but one page."""
    few = replace(args, max_total_tokens=max(args.page_size or 0, DETERMINISTIC_BLOCK), enable_hierarchical_cache=False)
    limits = _size(few, config, kv_dtype, device)
    pools = make_pools(limits, config, kv_dtype, device)
    limits = replace(limits, context_length=args.context_length or config.max_position_embeddings)
    rows = make_rows(limits)
    runner, captures = _runner(few, limits, pools, model, rows, device)
    graphs = _graph_sizes(args, limits) if captures else []
    prompts = _prompt_graph_sizes(args, limits, config) if captures else []
    width = rows.slots.page_table.shape[1]
    return Trial(runner, limits.prefill_budget, limits.context_length, graphs, prompts, width)


def _attention(args: ServerArgs, pools: Pools, model: CausalLM) -> AttentionBackend:
    if not args.enable_deterministic_inference:
        return paged_attention(args, pools, model.attention_shapes())
    chosen = (args.attention_backend, args.prefill_attention_backend, args.decode_attention_backend)
    for name in chosen:
        if name not in (None, "auto", "torch_native", "torch_sdpa"):
            raise ValueError(
                f"--enable-deterministic-inference has attention of its own: drop --attention-backend {name}"
            )
    require_pool(RowByRow, pools.whole)
    return RowByRow(pools.whole, model.attention_shapes())


def _stepper(limits: SchedulerLimits, runner: ModelRunner, model: CausalLM) -> StepRunner:
    if not limits.deterministic:
        return runner
    # An expert's share of a group depends on the neighbours' tokens, so rows of such models decode alone.
    return DeterministicRunner(runner, limits.page_size, 1 if model.couples_rows else GROUP)


def _grammars(args: ServerArgs, source: ModelSource, config: ModelConfig) -> GrammarCompiler | None:
    """The compiler of structured output. The vocabulary is read for the first grammar."""
    if args.grammar_backend == "none" or args.skip_tokenizer_init:
        return None

    def vocabulary() -> Vocabulary:
        tokenizer = load_tokenizer(source if args.tokenizer_path is None else args.tokenizer_path)
        return VocabularyForm.of(tokenizer, config.vocab_size).read()

    require_library(args.grammar_backend)
    return GrammarCompiler(vocabulary, library=args.grammar_backend)


def _graph_sizes(args: ServerArgs, limits: SchedulerLimits) -> list[int]:
    if args.cuda_graph_bs:
        return [min(int(size), limits.max_running_requests) for size in args.cuda_graph_bs]
    return graph_sizes(min(args.cuda_graph_max_bs or DEFAULT_GRAPH_ROWS, limits.max_running_requests))


def _compile(args: ServerArgs, runner: ModelRunner) -> None:
    if args.enable_deterministic_inference:
        raise ValueError(
            "--enable-torch-compile computes some batch sizes in another way than others, which "
            "--enable-deterministic-inference rules out; drop one of them"
        )
    runner.compile_decodes(args.torch_compile_max_bs)


def _prompt_graph_sizes(args: ServerArgs, limits: SchedulerLimits, config: ModelConfig) -> list[int]:
    if args.disable_prefill_cuda_graph:
        return []
    usual = SMALL_MODEL_GRAPH_TOKENS if config.hidden_size <= SMALL_HIDDEN else GRAPH_TOKENS
    most = args.prefill_cuda_graph_max_tokens or usual
    longest = limits.prefill_budget + limits.max_running_requests  # rows that decode are beside the prompts' tokens
    return prompt_sizes(min(most, longest, limits.context_length))


def refuse_quantised(config: ModelConfig) -> None:
    """Raise ``ValueError`` for a checkpoint whose matrices are packed in a way that nothing here unpacks."""
    quantization = config.raw.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise ValueError(
            f"the checkpoint is quantised ({method}), which is not supported yet; use one in bfloat16, or a GGUF file"
        )


def build_model(
    args: ServerArgs, source: ModelSource, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> CausalLM:
    """The model with its weights on ``device`` in ``dtype``."""
    require_memory(footprint(config, dtype).weights, free_memory(device), dtype, device)
    return load_model(args, source, config, dtype, device).eval()


def _size(
    args: ServerArgs, config: ModelConfig, dtype: torch.dtype, device: torch.device, steps: int | None = None
) -> SchedulerLimits:
    """Resolve the sizes that the user left open; ``steps`` as in ``kv_budget``."""
    demand = kv_demand(args, config, device)
    page, context = demand.page, demand.context
    sizes = _kv_sizes(args, config, dtype, device, demand, steps)
    num_pages = sizes.tokens // page
    if num_pages < 1:
        raise ValueError(f"--max-total-tokens {sizes.tokens} is less than one page of {page} tokens")
    return SchedulerLimits(
        max_running_requests=demand.rows,
        max_queued_requests=args.max_queued_requests,
        context_length=min(context, num_pages * page),
        vocab_size=config.vocab_size,
        num_pages=num_pages,
        page_size=page,
        prefill_budget=demand.step_tokens,
        deterministic=args.enable_deterministic_inference,
        radix_cache=not args.disable_radix_cache,
        eviction=args.radix_eviction_policy,
        host=host_tier(args, num_pages, page * KVBytes.of(config, dtype).both),
        window=sizes.window,
        overlap=not args.disable_overlap_schedule,
        decode_steps=args.num_continuous_decode_steps,
        conservativeness=args.schedule_conservativeness,
        random_seed=secrets.randbits(31) if args.random_seed is None else args.random_seed,
        schedule_policy="priority" if args.enable_priority_scheduling else args.schedule_policy,
        preemption_threshold=_preemption_threshold(args),
        check_invariants=args.check_invariants,
    )


def kv_demand(args: ServerArgs, config: ModelConfig, device: torch.device) -> Demand:
    """What the KV cache is for. ``ValueError`` for a context that the model does not have."""
    page = args.page_size or (DETERMINISTIC_BLOCK if args.enable_deterministic_inference else DEFAULT_PAGE_SIZE)
    context = args.context_length or config.max_position_embeddings
    if context > config.max_position_embeddings:
        known = config.max_position_embeddings
        raise ValueError(f"--context-length {context} is more than the {known} positions that the model knows")
    rows = args.max_running_requests or DEFAULT_ROWS[device.type]
    step_tokens = max(_prefill_budget(args, device, config), page if args.enable_deterministic_inference else 1)
    return Demand(rows, context, step_tokens, page)


def _kv_sizes(
    args: ServerArgs, config: ModelConfig, dtype: torch.dtype, device: torch.device, demand: Demand, steps: int | None
) -> KVSizes:
    each, window = KVBytes.of(config, dtype), pages_apart(args, config)
    if args.max_total_tokens:
        sizes = sizes_for(args.max_total_tokens, window, args.swa_full_tokens_ratio, demand)
        require_room(sizes.bytes(each, demand.page), free_memory(device), device)
        return sizes
    tokens = kv_room(args, device, each.both, demand.context, demand.rows, steps)
    if window is None:
        return KVSizes(tokens)
    return largest(kv_budget(args, device, steps=steps), each, window, args.swa_full_tokens_ratio, demand)


def _preemption_threshold(args: ServerArgs) -> int | None:
    preempts = args.enable_priority_scheduling and not args.disable_priority_preemption
    return args.priority_scheduling_preemption_threshold if preempts else None


def _prefill_budget(args: ServerArgs, device: torch.device, config: ModelConfig) -> int:
    """Prompt tokens of one step. Without chunking it holds the longest prompt, so that none is ever split."""
    chunk = args.chunked_prefill_size
    if chunk == -1:
        return max(args.max_prefill_tokens, args.context_length or config.max_position_embeddings)
    small = device.type == "cuda" and config.hidden_size <= SMALL_HIDDEN
    return min(chunk or (SMALL_MODEL_CHUNK if small else DEFAULT_CHUNK[device.type]), args.max_prefill_tokens)
