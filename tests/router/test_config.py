"""From flags and files to settings; what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.flags import Kind, State, parse
from router import launch_router
from router.config import ConfigError, RouterConfig
from router.flags import ROUTER_FLAGS, SETTINGS
from router.fleet.worker import worker_url

EXAMPLE = Path(__file__).parents[2] / "configs" / "router.yaml"


def config(*argv: str) -> RouterConfig:
    return RouterConfig.from_values(parse(ROUTER_FLAGS, argv, "launch_router").values)


def test_every_setting_has_a_flag_and_every_working_flag_a_setting():
    assert {row.dest for row in SETTINGS} == set(RouterConfig.model_fields)
    assert {row.dest for row in ROUTER_FLAGS if row.state is State.WORKS} == set(RouterConfig.model_fields)


def test_without_flags_the_defaults_hold():
    assert config() == RouterConfig()


def test_names_are_unique_and_rows_without_effect_say_why():
    names = [name for row in ROUTER_FLAGS for name in row.spellings]
    assert len(names) == len(set(names))
    assert all(row.reason for row in ROUTER_FLAGS if row.state is not State.WORKS)
    assert all(row.help for row in SETTINGS)


def test_hosts_and_port_under_both_names():
    ours = config("--router-hosts", "10.0.0.1:1", "http://b:2", "--router-port", "81")
    theirs = config("--worker-urls", "http://10.0.0.1:1", "b:2", "--port", "81")
    assert ours == theirs
    assert (ours.router_hosts, ours.port) == (["http://10.0.0.1:1", "http://b:2"], 81)


def test_the_example_file_is_understood_and_shows_the_defaults():
    shown = config("--config", str(EXAMPLE))
    assert len(shown.router_hosts) == 2
    assert shown.model_copy(update={"router_hosts": []}) == RouterConfig()


def test_the_command_line_wins_over_the_file():
    shown = config("--config", str(EXAMPLE), "--port", "99", "--router-hosts", "z:1")
    assert (shown.port, shown.router_hosts) == (99, ["http://z:1"])


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:30000", "http://127.0.0.1:30000"),
        ("HOST.local:1", "http://host.local:1"),
        ("http://h:1/", "http://h:1"),
        ("https://h", "https://h:443"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses_are_normalised(text, url):
    assert worker_url(text) == url


WRONG = ["host", "grpc://h:1", "http://h:1/path", "http://u:p@h:1", "u@h:1", "h:x", "h:70000", "h:1?x", "", ":1"]
WRONG += ["[h:1", "a b:1"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_address_is_named_in_the_error(text):
    with pytest.raises(ValueError, match="worker"):
        worker_url(text)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--polcy", "random"], "unknown flag --polcy; did you mean --policy?"),
        (["--policy", "best"], "--policy must be one of"),
        (["--router-hosts", "host"], "--router-hosts: worker 'host' must be HOST:PORT"),
        (["--router-hosts", "a:1", "http://a:1"], "--router-hosts: http://a:1 is named twice"),
        (["--health-check-endpoint", "health"], "--health-check-endpoint: must be a path"),
        (["--request-id-headers", "x-id:"], "--request-id-headers: 'x-id:' is no name of a header"),
        (["--cors-allowed-origins", "a.com"], "--cors-allowed-origins: 'a.com' must be SCHEME://HOST"),
        (["--cors-allowed-origins", "https://a.com/"], "--cors-allowed-origins: 'https://a.com/' must be"),
        (["--retry-max-retries", "0"], "--retry-max-retries must be at least 1, got 0"),
        (["--prometheus-duration-buckets", "fast"], "--prometheus-duration-buckets: "),
        (["--pd-disaggregation"], "--pd-disaggregation is not supported yet"),
        (["--redis-url", "redis://u:s3cret@h"], "error: --redis-url is not supported yet"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(argv, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        launch_router.main(argv)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_flags_of_sglang_router_are_all_known():
    """Those that people pass most; none may be an unknown flag."""
    numbers = {Kind.INT: "3", Kind.FLOAT: "3"}
    known = {name for row in ROUTER_FLAGS for name in row.spellings}
    for name in ("--cache-threshold", "--eviction-interval-secs", "--max-tree-size", "--enable-igw", "--dp-aware"):
        assert name in known
    accepted = [row for row in ROUTER_FLAGS if row.state is State.ACCEPTED]
    for row in accepted:
        words = [] if row.kind is Kind.SWITCH else [numbers.get(row.kind, "x")]
        assert parse(ROUTER_FLAGS, [row.names[0], *words], "launch_router").accepted


def test_a_config_error_names_the_flag():
    with pytest.raises(ConfigError, match="--request-timeout-secs"):
        RouterConfig.from_values({"request_timeout_secs": -1})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"service_discovery": True}, "--service-discovery needs --selector"),
        ({"request_id_headers": []}, "--request-id-headers: must be followed by one name or more"),
        ({"request_id_headers": ["X-Id", "Content-Length"]}, "--request-id-headers: 'Content-Length' is no name"),
    ],
)
def test_what_would_break_every_request_is_refused_at_the_start(values, words):
    with pytest.raises(ConfigError, match=words):
        RouterConfig.from_values(values)
