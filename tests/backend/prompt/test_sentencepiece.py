"""SentencePiece tokenizers from GGUF metadata join pieces as SentencePiece does, and fall back to bytes."""

from itertools import pairwise

import pytest
from gguf import GGUFWriter, TokenType
from hypothesis import given
from hypothesis import strategies as st

from backend.frontend.detokenizer import IncrementalDetokenizer
from backend.prompt import ModelError, load_tokenizer
from backend.prompt.sentencepiece import SPACE
from tests.backend.prompt.tiny import save_gguf

CONTROL = ["<unk>", "<s>", "</s>", "<turn>"]
USER = ["\n\n", SPACE * 3]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# In the order of their scores; some can be joined in two ways, and some only from pieces that come later.
JOINED = [
    "th",
    "he",
    SPACE + "t",
    "in",
    SPACE + "th",
    "the",
    SPACE + "the",
    "er",
    "ing",
    SPACE + "in",
    "aa",
    "aaaa",
    "\nx",
]
LETTERS = [SPACE, *"abcdefghinrtx.\n"]
TOKENS = [*CONTROL, *USER, *BYTES, *JOINED, *LETTERS]
TYPES = [
    *([TokenType.UNKNOWN] + [TokenType.CONTROL] * 3),
    *[TokenType.USER_DEFINED] * len(USER),
    *[TokenType.BYTE] * 256,
    *[TokenType.NORMAL] * (len(JOINED) + len(LETTERS)),
]
SCORES = [-1000.0] * (len(TOKENS) - len(JOINED) - len(LETTERS)) + [-float(i) for i in range(len(JOINED) + len(LETTERS))]
TEXT = st.text(st.sampled_from("theinra x.\né日"), max_size=40)
PLAIN = TEXT.filter(lambda text: "\n\n" not in text and "   " not in text)  # a prefix follows each token of the user's


def write(path, scores=SCORES, **flags):
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_scores(scores)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in flags.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    save_gguf(writer)
    return path


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return load_tokenizer(write(tmp_path_factory.mktemp("spm") / "gemma.gguf", add_space_prefix=False))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_tokenizer(write(tmp_path_factory.mktemp("spm") / "llama.gguf"))


def joined_by_hand(text, pieces):
    """The algorithm itself: the pair with the best score, the leftmost of several, until none is a token."""
    score = {token: SCORES[id] for id, token in enumerate(TOKENS) if TYPES[id] == TokenType.NORMAL}
    parts = list(text.replace(" ", SPACE))
    while known := [(score[a + b], -at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in score]:
        at = -max(known)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [id for part in parts for id in pieces(part)]


def ids_of(part):
    return [TOKENS.index(part)] if part in TOKENS else [TOKENS.index(f"<0x{byte:02X}>") for byte in part.encode()]


@given(PLAIN)
def test_pieces_are_joined_as_sentencepiece_does(gemma, text):
    assert gemma.encode(text, add_special_tokens=False) == joined_by_hand(text, ids_of)


def streamed(tokenizer, ids):
    detokenizer = IncrementalDetokenizer(tokenizer.decode)
    return "".join([*(detokenizer.push([id]) for id in ids), detokenizer.flush()])


@given(TEXT, PLAIN)
def test_text_comes_back_at_once_and_in_a_stream(gemma, llama, text, plain):
    for tokenizer, given_text in ((gemma, text), (llama, plain)):
        ids = tokenizer.encode(given_text)
        assert tokenizer.decode(ids) == given_text
        assert streamed(tokenizer, ids) == given_text


def test_a_prefix_is_put_before_the_text_unless_the_file_says_no(gemma, llama):
    assert gemma.encode("the") == [1, TOKENS.index("the")]
    assert llama.encode("the") == [1, TOKENS.index(SPACE + "the")]


def test_tokens_of_the_users_stay_whole(gemma):
    ids = gemma.encode("a\n\nb   c", add_special_tokens=False)
    assert [TOKENS[id] for id in ids] == ["a", "\n\n", "b", SPACE * 3, "c"]


def test_control_tokens_are_one_id_and_can_be_left_out(gemma):
    ids = gemma.encode("<turn>the</s>", add_special_tokens=False)
    assert ids == [3, TOKENS.index("the"), 2]
    assert gemma.decode(ids) == "the"
    assert gemma.special_tokens["unk_token"] == "<unk>"


def test_no_bos_where_the_file_says_so(tmp_path):
    assert load_tokenizer(write(tmp_path / "a.gguf", add_bos_token=False)).encode("a")[0] != 1


def test_scores_must_be_there_for_each_token(tmp_path):
    with pytest.raises(ModelError, match=r"has \d+ tokens, but 3 scores"):
        load_tokenizer(write(tmp_path / "a.gguf", scores=SCORES[:3]))
