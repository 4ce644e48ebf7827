"""Tokenizers of model folders: ids, ends, special tokens and templates from the files around tokenizer.json."""

import pytest
import tokenizers
from tokenizers import processors
from transformers import AutoTokenizer

from backend.prompt import ModelError, load_tokenizer
from backend.prompt.tokenizer import Tokenizer, frame_prompt
from tests.backend.prompt.tiny import CORPUS, train, write_folder, write_json

IM_END, END_OF_TEXT = 2, 0


@pytest.mark.parametrize("text", [*CORPUS, "", " ", "<|im_start|>user\nhi<|im_end|>"])
def test_ids_and_text_are_those_of_transformers(tmp_path, text):
    folder = write_folder(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    ours, reference = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    ids = reference.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True)
    assert ours.decode(ids, skip_special_tokens=False) == reference.decode(ids)


def test_eos_ids_come_from_every_file_and_the_tokenizers_own_is_first(tmp_path):
    folder = write_folder(tmp_path)
    write_json(folder / "config.json", {"eos_token_id": 5})
    write_json(folder / "generation_config.json", {"eos_token_id": [END_OF_TEXT, IM_END]})
    assert load_tokenizer(folder).eos_token_ids == (IM_END, END_OF_TEXT, 5)


def test_special_tokens_may_be_text_or_objects_and_in_either_file(tmp_path):
    folder = write_folder(tmp_path, bos_token={"content": "<|im_start|>", "lstrip": False}, unk_token=None)
    write_json(folder / "special_tokens_map.json", {"pad_token": "<|endoftext|>", "bos_token": "not this"})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.special_tokens == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    assert tokenizer.bos_token_id == 1


def test_tokens_that_only_the_config_declares_are_added(tmp_path):
    entry = {"content": "<tool_call>", "special": False, "normalized": False, "__type": "AddedToken"}
    folder = write_folder(tmp_path, added_tokens_decoder={"400": entry}, bos_token="<bos>")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("<tool_call>") == [400]
    assert tokenizer.encode("<bos>") == [401] == [tokenizer.bos_token_id]
    assert tokenizer.decode([400, 401]) == "<tool_call>"
    assert tokenizer.vocab_size == 402


def test_bos_asked_for_in_the_config_alone_is_added(tmp_path):
    tokenizer = load_tokenizer(write_folder(tmp_path, bos_token="<|im_start|>", add_bos_token=True))
    assert tokenizer.encode("a")[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in tokenizer.encode("a", add_special_tokens=False)


def test_tokenizer_json_has_the_last_word_about_bos(tmp_path):
    backend = train()
    backend.post_processor = processors.TemplateProcessing(
        single=["<|im_start|>", "$A"], special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer = load_tokenizer(write_folder(tmp_path, backend, bos_token="<|im_start|>", add_bos_token=True))
    assert tokenizer.encode("a").count(1) == 1


def test_truncation_saved_with_the_tokenizer_is_not_applied(tmp_path):
    backend = train()
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    tokenizer = load_tokenizer(write_folder(tmp_path, backend))
    assert tokenizer.decode(tokenizer.encode(CORPUS[0])) == CORPUS[0]


def test_a_template_file_wins_over_the_config(tmp_path):
    folder = write_folder(tmp_path, chat_template="from the config")
    assert load_tokenizer(folder).chat_template == "from the config"
    write_json(folder / "chat_template.json", {"chat_template": "from JSON"})
    assert load_tokenizer(folder).chat_template == "from JSON"
    (folder / "chat_template.jinja").write_text("from the file")
    assert load_tokenizer(folder).chat_template == "from the file"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    assert load_tokenizer(folder).chat_template == {"default": "from the file", "tool_use": "with tools"}


def test_a_list_of_templates_is_a_choice_by_name(tmp_path):
    entries = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    assert load_tokenizer(write_folder(tmp_path, chat_template=entries)).chat_template == {
        "default": "a",
        "tool_use": "b",
    }


def test_no_tokenizer_json(tmp_path):
    write_json(tmp_path / "config.json", {})
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_broken_files_are_named(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is not valid JSON"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match="must hold a JSON object, not a list"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(folder)


def test_a_special_token_outside_the_vocabulary_is_added_not_lost(tmp_path):
    tokenizer = load_tokenizer(write_folder(tmp_path, eos_token="<|unheard-of|>"))
    assert tokenizer.eos_token_ids == (400,)


def test_both_texts_of_a_pair_are_framed() -> None:
    """As transformers frames them for models whose tokenizer.json does not."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="a"))
    backend.add_special_tokens(["<s>", "</s>"])
    frame_prompt(backend, bos="<s>", eos="</s>")
    assert Tokenizer(backend, special_tokens={}).encode_pair("a", "b") == [0, 2, 1, 0, 3, 1]
    assert Tokenizer(backend, special_tokens={}).encode("b") == [0, 3, 1]
