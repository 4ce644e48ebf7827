"""The table of launch_server."""

import asyncio
import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.server import Server, StartError
from backend.config import ServerArgs
from backend.flags import Flag, Kind, State
from backend.flags.flag import setting_name
from backend.flags.server import SERVER_FLAGS, parse_server_args
from backend.flags.server.settings import SETTINGS

EXAMPLE = Path(__file__).parents[3] / "configs" / "server.yaml"


def test_every_setting_has_a_flag_with_the_same_default():
    fields = {field.name: field.default for field in dataclasses.fields(ServerArgs)}
    assert {row.dest: row.default for row in SETTINGS} == fields
    assert [row.names for row in SETTINGS if row.state is State.WORKS and not row.help] == []


def test_no_two_rows_share_a_setting_or_a_spelling():
    names = [setting_name(name) for row in SERVER_FLAGS for name in row.spellings if name.startswith("--")]
    dests = [row.dest for row in SERVER_FLAGS]
    assert len(names) == len(set(names))
    assert len(dests) == len(set(dests))


def test_what_does_not_work_has_a_reason():
    assert [row.names for row in SERVER_FLAGS if row.state is not State.WORKS and not row.reason] == []


BAD_SETTINGS = [
    ("max_prefill_tokens", 0, "at least 1"),
    ("max_prefill_tokens", None, "a whole number"),
    ("max_running_requests", 2.5, "a whole number"),
    ("page_size", 0, "at least 1"),
    ("page_size", True, "a whole number"),
    ("chunked_prefill_size", -7, "-1 (never split a prompt) or at least 1"),
    ("chunked_prefill_size", 0, "-1 (never split a prompt) or at least 1"),
    ("max_queued_requests", -1, "at least 0"),
    ("mem_fraction_static", 1.5, "greater than 0 and at most 1"),
    ("schedule_conservativeness", -3.0, "greater than 0 and finite"),
    ("schedule_conservativeness", float("nan"), "greater than 0 and finite"),
    ("port", 70_000, "a port between 0"),
    ("load_format", "pickle", "one of auto, safetensors"),
    ("model_path", 5, "a text"),
    ("disable_radix_cache", "no", "True or False"),
    ("kv_events_config", "{", "JSON"),
]


@pytest.mark.parametrize(("field", "value", "wanted"), BAD_SETTINGS)
def test_settings_made_in_code_meet_the_checks_of_the_flags(field, value, wanted):
    with pytest.raises(ValueError, match=re.escape(f"{field} must be {wanted}")) as error:
        ServerArgs(**{field: value}).validate()
    assert str(error.value).endswith(f", got {value!r}")


def test_good_settings_made_in_code():
    ServerArgs().validate()
    ServerArgs(model_path=Path("/models"), chunked_prefill_size=-1, schedule_conservativeness=2, page_size=1).validate()


async def test_a_server_started_from_code_says_which_setting_is_wrong():
    with pytest.raises(StartError, match="page_size must be at least 1, got 0"):
        await Server(ServerArgs(page_size=0)).run(asyncio.Event(), asyncio.Event())


def test_no_argument_means_all_defaults():
    assert parse_server_args([]).args == ServerArgs()


def test_vllm_names_reach_the_same_settings():
    command = parse_server_args(
        [
            "--model",
            "m",
            "--max-model-len",
            "512",
            "--gpu-memory-utilization",
            "0.5",
            "--max_num_seqs",
            "4",
            "--max-num-batched-tokens",
            "256",
            "--tensor-parallel-size",
            "1",
            "--dtype",
            "half",
            "--no-enable-prefix-caching",
            "--block-size",
            "16",
            "--seed",
            "7",
        ]
    )
    assert command.args == ServerArgs(
        model_path="m",
        context_length=512,
        mem_fraction_static=0.5,
        max_running_requests=4,
        chunked_prefill_size=256,
        dtype="float16",
        disable_radix_cache=True,
        page_size=16,
        random_seed=7,
    )
    assert command.accepted == []


@pytest.mark.parametrize(
    "words",
    [
        "--triton-attention-num-kv-splits 16",
        "--disable-flashinfer",
        "--disable-custom-all-reduce",
        "--enable-dp-attention",
        "--cuda-graph-max-bs-prefill 8",
        "--cuda-graph-backend-decode full",
        "--debug-cuda-graph",
        "--enable-metrics",
        "--enable-cache-report",
        "--enable-torch-compile-debug-mode",
    ],
)
def test_tuning_flags_are_accepted_and_logged(words):
    command = parse_server_args(words.split())
    assert command.args == ServerArgs()
    assert len(command.accepted) == 1
    assert command.accepted[0].startswith(words.split()[0])


@pytest.mark.parametrize(
    "words",
    [
        "--tp 4",
        "--tp-size 2",
        "-tp 2",
        "--dp 2",
        "--pp-size 2",
        "--quantization awq",
        "-q fp8",
        "--speculative-algorithm EAGLE",
        "--enable-lora",
        "--ssl-keyfile k.pem",
        "--disaggregation-mode prefill",
        "--hicache-storage-backend file",
        "--radix-cache-backend rust",
        "--nnodes 2",
    ],
)
def test_missing_features_stop_the_start(capsys, words):
    with pytest.raises(SystemExit) as stop:
        parse_server_args(words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"{words} is not supported yet" in error or words == "--enable-lora"
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    ["--tp 1", "--dp-size 1", "--quantization gguf", "--kv-cache-dtype auto", "--schedule-policy fcfs", "--nnodes 1"],
)
def test_missing_features_that_are_not_asked_for(words):
    assert parse_server_args(words.split()).args == ServerArgs()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--port 65536", "65535"),
        ("--mem-fraction-static 0", "greater than 0"),
        ("--gpu-memory-utilization 1.1", "--gpu-memory-utilization"),
        ("--chunked-prefill-size 0", "-1"),
        ("--context-length -4", "at least 1"),
        ("--page-size 0", "at least 1"),
        ("--schedule-conservativeness 0", "greater than 0"),
        ("--schedule-conservativeness inf", "finite"),
        ("--mem-fraction-static nan", "greater than 0"),
        ("--load-format pt", "safetensors"),
        ("--attention-backend fa3", "torch_native"),
    ],
)
def test_values_out_of_range(capsys, words, wanted):
    with pytest.raises(SystemExit):
        parse_server_args(words.split())
    error = capsys.readouterr().err
    assert wanted in error
    assert words.split()[0] in error


def test_a_chunk_of_minus_one_never_splits():
    assert parse_server_args(["--chunked-prefill-size", "-1"]).args.chunked_prefill_size == -1


def test_the_example_file_is_read():
    command = parse_server_args(["--config", str(EXAMPLE), "--port", "31000"])
    assert (command.args.host, command.args.port) == ("127.0.0.1", 31000)
    assert command.accepted == []


def values(row: Flag) -> st.SearchStrategy:
    if row.choices:
        return st.sampled_from(row.choices)
    if row.dest == "kv_events_config":
        return st.just('{"publisher": "zmq"}')
    if row.dest == "json_model_override_args":
        return st.just('{"rope_theta": 50000.0}')
    kinds = {
        Kind.SWITCH: st.booleans(),
        Kind.INT: st.integers(1, 60000),
        Kind.FLOAT: st.floats(0.01, 1.0),
        Kind.STR: st.text("abc/_-.", min_size=1).filter(lambda word: not word.startswith("-")),
    }
    kinds[Kind.OPTIONAL] = kinds[Kind.STR]
    return kinds[row.kind]


@settings(deadline=None)
@given(st.data())
def test_a_file_says_the_same_as_a_command_line(tmp_path_factory, data):
    single = [row for row in SETTINGS if row.kind is not Kind.LIST]
    rows = data.draw(st.lists(st.sampled_from(single), unique_by=lambda row: row.dest))
    chosen = [(data.draw(st.sampled_from(row.names)), row, data.draw(values(row))) for row in rows]
    argv = []
    for name, row, value in chosen:
        typed = data.draw(st.sampled_from([name, "--" + setting_name(name)]))
        argv += [typed] * value if row.kind is Kind.SWITCH else [typed, str(value)]
    path = tmp_path_factory.getbasetemp() / "same.yaml"
    path.write_text(yaml.safe_dump({name.lstrip("-"): value for name, _, value in chosen}))
    said = parse_server_args(argv).args
    assert parse_server_args(["--config", str(path)]).args == said
    assert {row.dest: getattr(said, row.dest) for row in rows} == {row.dest: value for _, row, value in chosen}
