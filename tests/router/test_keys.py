"""Keys from the command line and from a file, and what web pages may do."""

from __future__ import annotations

import pytest

from router.config import ConfigError
from router.cors import Cors
from router.keys import Keys, admin_keys, load_keys


def test_keys_of_a_file_have_names_and_the_single_one_counts_too(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# of the team\n\nalice s3cret\nalice second\n  bare  \n")
    keys = load_keys("single", str(file))
    found = {key: keys.name(f"Bearer {key}") for key in ("single", "s3cret", "second", "bare", "alice", "")}
    assert found == {
        "single": "api-key", "s3cret": "alice", "second": "alice", "bare": "line 5", "alice": None, "": None
    }  # fmt: skip


@pytest.mark.parametrize("header", ["s3cret", "Basic s3cret", "Bearer", "Bearer s3cre", "Bearer s3cret2", ""])
def test_only_a_bearer_token_that_is_equal_will_do(header):
    assert Keys([("a", "s3cret")]).name(header) is None


def test_without_keys_there_is_nothing_to_check():
    assert not load_keys(None, None)


@pytest.mark.parametrize(
    ("content", "said"), [("", "holds no key"), ("a b c", "line 1"), (b"\xff\xfe", "not UTF-8"), (None, "No such file")]
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, content, said):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=said):
        load_keys(None, str(file))


ORIGIN = {"origin": "https://a.example", "access-control-request-method": "POST"}


@pytest.mark.parametrize("origins", [[], ["https://b.example"], ["http://a.example"]])
def test_other_pages_get_nothing(origins):
    assert Cors(origins).headers(ORIGIN) == {}
    assert Cors(origins).preflight("OPTIONS", ORIGIN) is None


@pytest.mark.parametrize("origins", [["*"], ["https://a.example"]])
def test_an_allowed_page_may_ask_and_read(origins):
    allowed = Cors(origins).headers(ORIGIN)["Access-Control-Allow-Origin"]
    assert allowed == ("*" if origins == ["*"] else "https://a.example")
    assert Cors(origins).preflight("OPTIONS", ORIGIN)["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
    assert Cors(origins).preflight("GET", ORIGIN) is None
    assert Cors(origins).headers({}) == {}


def test_admins_of_the_control_plane_have_admin_keys_and_users_have_not():
    keys = admin_keys("single", ["1:alice:admin:a:b", "2:bob:user:c", "3::admin:d"])
    found = [keys.name(f"Bearer {key}") for key in ("single", "a:b", "c", "d")]
    assert found == ["admin", "alice", None, "3"]


@pytest.mark.parametrize("entry", ["x", "1:a:root:k", "1:a:admin:", "1:a:admin"])
def test_a_bad_entry_is_refused_without_showing_it(entry):
    with pytest.raises(ConfigError, match="entry 1 must be") as caught:
        admin_keys(None, [entry])
    assert entry not in str(caught.value).replace("ID:NAME:ROLE:KEY", "").split()
