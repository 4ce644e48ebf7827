"""What the frontend and the scheduler say to each other: one message per step in each direction.

Token ids travel as little-endian int32 bytes. A request is known by an integer ``uid`` that the frontend gives and
never uses twice; client-visible request ids stay in the frontend.
"""

from __future__ import annotations

import msgspec

from backend.grammar.spec import GrammarSpec
from backend.sampling_params import SamplingParams


class LogprobSpec(msgspec.Struct, array_like=True):
    """Which log probabilities a request wants, besides those of its output tokens. Of the model, before penalties."""

    start: int = -1  # first prompt position whose token's log probability is wanted; -1: none
    top: int = 0  # how many of the likeliest tokens at each position
    ids: list[int] = []  # tokens whose log probabilities are wanted at each position


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Log probabilities at the place of one token."""

    uid: int
    token: int
    logprob: float
    top: list[tuple[float, int]] = []  # (log probability, token), likeliest first
    ids: list[float] = []  # of ``LogprobSpec.ids``


class NewRequest(msgspec.Struct, array_like=True):
    uid: int
    input_ids: bytes  # int32[prompt_len], prompt_len >= 1
    sampling: SamplingParams
    stop_token_ids: list[int]  # the request's own and the model's EOS ids (none of the model's with ignore_eos)
    namespace: str = ""  # cache_salt, extra_key, adapter: requests of different namespaces share no pages
    priority: int = 0  # larger runs first, where priorities count
    logprobs: LogprobSpec | None = None
    grammar: GrammarSpec | None = None  # what the output must follow; the frontend has seen it compile
    grammar_after: int = -1  # the token after which it begins; -1: from the first
    grammar_unless: int = -1  # it begins at once where the first token is not this one; -1: never before grammar_after
    pooling: str = ""  # "last", "mean" (hidden states in one vector) or "classify" (a number a label); no output


class ProfileCommand(msgspec.Struct, array_like=True):
    """Record steps, into ``folder``; without one end the recording."""

    folder: str = ""
    steps: int = 0  # end by itself after so many; 0: when told
    activities: list[str] = []  # CPU, GPU, or NVTX alone; empty: what there is of the first two
    with_stack: bool = False
    record_shapes: bool = False


class ToScheduler(msgspec.Struct, array_like=True):
    """Everything the frontend gathered since its last message.

    At least one ``FromScheduler`` follows each, also an empty one: that is the scheduler's sign of life.
    """

    new: list[NewRequest] = []
    abort: list[int] = []  # uids; unknown or finished ones are ignored; no reply follows
    flush_cache: int = 0  # nonzero: flush and answer with this ticket in FromScheduler.flushed
    shutdown: bool = False
    pause: str = ""  # "in_place" or "retract": compute nothing more until ``resume``; seen in SchedulerStats.paused
    resume: bool = False
    profile: ProfileCommand | None = None  # answered in FromScheduler.profiled


class Finish(msgspec.Struct, array_like=True):
    uid: int
    kind: str  # "stop" | "length" | "abort"
    matched: int = -1  # the stop token id, for "stop"
    message: str = ""  # for "abort"
    status_code: int = 500  # for "abort"


class SchedulerStats(msgspec.Struct, array_like=True):
    """State after a step; gauges of ``/metrics`` and ``/v1/loads`` are read from the last one."""

    running: int = 0
    waiting: int = 0
    waiting_uncached_tokens: int = 0
    total_tokens: int = 0  # KV room in tokens
    used_tokens: int = 0  # held by running rows or locked in the tree
    cached_tokens: int = 0  # in the tree and evictable
    retracted_total: int = 0
    prompt_tokens_total: int = 0  # of admitted requests
    cached_prompt_tokens_total: int = 0
    prefill_tokens_total: int = 0  # computed
    decode_tokens_total: int = 0
    evicted_tokens_total: int = 0
    new_token_ratio: float = 0.0
    host_used_tokens: int = 0  # in the host tier of the prefix cache
    loaded_tokens_total: int = 0  # fetched from the host tier
    paused: bool = False
    retracted_input_tokens_total: int = 0  # prompt tokens of retracted requests
    retracted_output_tokens_total: int = 0
    decode_sum_seq_lens: int = 0  # tokens of the running requests; like those below taken now and then
    idle_seconds_total: float = 0.0  # waiting for messages with nothing to do
    step_seconds_total: float = 0.0  # in steps
    cpu_seconds_total: float = 0.0  # of the scheduler's process
    waiting_for_grammars: int = 0  # those of the waiting requests whose grammar is being compiled
    graph_decodes_total: int = 0  # decode steps that were replays of a CUDA graph
    plain_decodes_total: int = 0  # those that were not
    decodes_by_graph: bool = False  # how the last one ran
    window_total_tokens: int = 0  # room of layers with a window, where those have pages of their own
    window_used_tokens: int = 0  # held by running rows
    window_cached_tokens: int = 0  # in the tree alone
    evictions_total: int = 0  # times that the prefix cache made room
    eviction_seconds_total: float = 0.0
    load_backs_total: int = 0  # prefixes ordered back from the host tier
    load_back_seconds_total: float = 0.0  # to order them; copies run beside the scheduler


class FromScheduler(msgspec.Struct, array_like=True):
    """What one step brought. Lists of the same length are parallel."""

    uids: list[int] = []  # one entry per token; a uid may repeat
    tokens: list[int] = []
    started: list[tuple[int, int]] = []  # (uid, cached prompt tokens), sent with or before the first token
    logprobs: list[TokenLogprobs] = []  # one entry per token of the requests that want them, in order
    prompt_logprobs: list[TokenLogprobs] = []  # in order of position; before or with the first output token
    embeddings: list[tuple[int, bytes]] = []  # (uid, float32 vector) of those with ``pooling``, before they finish
    finished: list[Finish] = []  # a finished uid is never named again; its last tokens are in this message or before
    stats: SchedulerStats = msgspec.field(default_factory=SchedulerStats)
    flushed: tuple[int, bool] | None = None  # (ticket, done); False when requests were running
    fetched: list[tuple[int, int]] = []  # (uid, those of its cached prompt tokens that came from the host tier)
    profiled: list[tuple[bool, str]] = []  # of each ProfileCommand whether it was done, and where to, or why not


class KVEventsInfo(msgspec.Struct):
    """Where KV events are published; a map, because ``/server_info`` shows it as it is."""

    endpoint: str  # as bound: the host may be a wildcard
    replay_endpoint: str | None
    topic: str
    block_size: int
    publisher: str = "zmq"


class SchedulerReady(msgspec.Struct, array_like=True):
    """The scheduler's first word on the socket after the model is loaded."""

    max_total_tokens: int
    max_running_requests: int
    page_size: int
    context_length: int  # the longest prompt + output one request may have
    dtype: str
    device: str
    load_seconds: float
    weight_bytes: int
    kv_cache_bytes: int
    vocab_size: int
    error: str = ""  # non-empty: starting failed, the rest is meaningless
    kv_events: KVEventsInfo | None = None
    host_total_tokens: int = 0  # room of the host tier of the prefix cache
    task: str = "generate"  # "generate", "embed" or "classify": what the model has a head for
    graph_bytes: int = 0  # memory of the captured decode steps
    free_bytes: int = 0  # memory that the GPU has left with everything in place; 0 without one
