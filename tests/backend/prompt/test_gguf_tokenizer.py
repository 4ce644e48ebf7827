"""The tokenizer built from GGUF metadata gives the ids of the tokenizer that the metadata was written from."""

import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from backend.prompt import ModelError, load_tokenizer
from tests.backend.prompt.tiny import SPECIAL, add_tokenizer, save_gguf, train, write_gguf

TEXT = st.text(st.sampled_from("aAzé日ж🙂 \n\t'sl.,_<|0123½"), max_size=40)


@pytest.fixture(scope="module")
def plain():
    return train()


@pytest.fixture(scope="module")
def gpt2(plain, tmp_path_factory):
    return load_tokenizer(write_gguf(tmp_path_factory.mktemp("gguf") / "gpt2.gguf", "gpt-2", plain))


@pytest.fixture(scope="module")
def smollm(plain, tmp_path_factory):
    return load_tokenizer(write_gguf(tmp_path_factory.mktemp("gguf") / "smollm.gguf", "smollm", plain))


@given(TEXT)
def test_ids_are_those_of_the_original(plain, gpt2, text):
    assert gpt2.encode(text) == plain.encode(text).ids


@given(TEXT)
def test_smollm_merges_no_digits(plain, smollm, text):
    reference = train()
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert smollm.encode(text) == reference.encode(text).ids


def test_the_family_decides_about_digits(gpt2, smollm):
    assert len(gpt2.encode("2024")) < 4
    assert [smollm.decode([id]) for id in smollm.encode("2024")] == ["2", "0", "2", "4"]


@given(TEXT)
def test_decoding_gives_the_text_back(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text


def test_control_tokens_are_one_id_and_can_be_left_out(gpt2):
    ids = gpt2.encode("<|im_start|>user<|im_end|>")
    assert ids[0] == gpt2.bos_token_id
    assert ids[-1] == gpt2.eos_token_ids[0]
    assert gpt2.decode(ids) == "user"
    assert gpt2.decode(ids, skip_special_tokens=False) == "<|im_start|>user<|im_end|>"
    assert gpt2.decode(ids, False, spaces_between_special_tokens=False) == "<|im_start|>user<|im_end|>"


def test_end_tokens_known_by_their_text_end_an_answer_too(gpt2):
    assert gpt2.eos_token_ids == (SPECIAL.index("<|im_end|>"), SPECIAL.index("<|endoftext|>"))


def test_bos_is_added_when_the_file_says_so(tmp_path):
    tokenizer = load_tokenizer(write_gguf(tmp_path / "bos.gguf", add_bos_token=True, add_eos_token=True))
    assert tokenizer.encode("hi")[0] == tokenizer.bos_token_id
    assert tokenizer.encode("hi")[-1] == tokenizer.eos_token_ids[0]
    assert tokenizer.bos_token_id not in tokenizer.encode("hi", add_special_tokens=False)


def test_bos_is_added_when_the_family_wants_it_and_the_file_is_silent(tmp_path):
    tokenizer = load_tokenizer(write_gguf(tmp_path / "llama.gguf", "llama-bpe"))
    assert tokenizer.encode("hi")[0] == tokenizer.bos_token_id


def test_named_templates(tmp_path):
    writer = GGUFWriter(tmp_path / "named.gguf", "llama")
    add_tokenizer(writer, train())
    writer.add_array("tokenizer.chat_templates", ["tool_use"])
    writer.add_string("tokenizer.chat_template.tool_use", "tools")
    save_gguf(writer)
    template = load_tokenizer(tmp_path / "named.gguf").chat_template
    assert set(template) == {"default", "tool_use"}


def test_unknown_pre_tokenizer_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match="'mystery'"):
        load_tokenizer(write_gguf(tmp_path / "mystery.gguf", "mystery"))


def test_unknown_tokenizer_model_is_refused_by_name(tmp_path):
    writer = GGUFWriter(tmp_path / "spm.gguf", "llama")
    writer.add_tokenizer_model("bert")
    save_gguf(writer)
    with pytest.raises(ModelError, match="'bert' is not supported"):
        load_tokenizer(tmp_path / "spm.gguf")


def test_metadata_that_does_not_fit_together_is_refused(tmp_path):
    for name, types, merges, message in (
        ("types", [1], [], "2 tokens, but 1 token types"),
        ("merges", [1, 1], ["x y"], "do not fit together"),
    ):
        writer = GGUFWriter(tmp_path / f"{name}.gguf", "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b"])
        writer.add_token_types(types)
        writer.add_token_merges(merges or ["a b"])
        save_gguf(writer)
        with pytest.raises(ModelError, match=message):
            load_tokenizer(tmp_path / f"{name}.gguf")


def test_missing_tokens_are_named(tmp_path):
    writer = GGUFWriter(tmp_path / "none.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    save_gguf(writer)
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.tokens"):
        load_tokenizer(tmp_path / "none.gguf")
