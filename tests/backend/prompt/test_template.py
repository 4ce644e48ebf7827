"""Chat templates render to what transformers renders, and fail with a message where it raises."""

import pytest
from transformers import PreTrainedTokenizerFast

from backend.prompt import ChatTemplate, TemplateError, encode_chat, load_prompt
from tests.backend.prompt.conversations import CONVERSATIONS, SPECIAL_TOKENS, TEMPLATES, TOOL, USER
from tests.backend.prompt.tiny import CHATML, train, write_folder


@pytest.fixture(scope="module")
def reference():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=train(), **SPECIAL_TOKENS)

    def render(template, messages, **options):
        options = {"add_generation_prompt": not options.get("continue_final_message"), **options}
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)

    return render


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_is_that_of_transformers(reference, name, conversation):
    messages, options = CONVERSATIONS[conversation]
    template = ChatTemplate(TEMPLATES[name], SPECIAL_TOKENS)
    try:
        expected = reference(TEMPLATES[name], messages, **options)
    except Exception:
        with pytest.raises(TemplateError):
            template.render(messages, **options)
    else:
        assert template.render(messages, **options) == expected


def test_messages_are_left_as_they_were():
    message = {"role": "user", "content": [{"type": "text", "text": "a"}], "name": None}
    before = {**message, "content": [dict(part) for part in message["content"]]}
    ChatTemplate(CHATML).render([message], continue_final_message=True)
    assert message == before


def test_tools_choose_the_named_template():
    template = ChatTemplate({"default": "plain", "tool_use": "tools"})
    assert template.render([USER]) == "plain"
    assert template.render([USER], tools=[TOOL]) == "tools"
    with pytest.raises(TemplateError, match="only: tool_use"):
        ChatTemplate({"tool_use": "tools"}).render([USER])


def test_messages_of_templates_reach_the_caller():
    template = ChatTemplate("{{ raise_exception('roles must alternate') if messages | length > 1 }}")
    with pytest.raises(TemplateError, match="roles must alternate"):
        template.render([USER, USER])


@pytest.mark.parametrize("messages", [[], ["hi"], [None]])
def test_what_is_no_conversation_is_refused(messages):
    with pytest.raises(TemplateError):
        ChatTemplate(CHATML).render(messages)


def test_bad_syntax_is_told_with_its_line():
    with pytest.raises(TemplateError, match="line 2"):
        ChatTemplate("fine\n{% for %}")


def test_a_message_that_the_template_drops_cannot_be_continued():
    with pytest.raises(TemplateError, match="changes or leaves out"):
        ChatTemplate("{{ messages[0].role }}").render([USER], continue_final_message=True)
    with pytest.raises(TemplateError, match="text content"):
        ChatTemplate(CHATML).render([{"role": "assistant", "tool_calls": []}], continue_final_message=True)


def test_a_private_namespace_attribute_is_refused():
    with pytest.raises(TemplateError, match="underscore"):
        ChatTemplate("{% set ns = namespace(__class__=1) %}").render([USER])


def test_encoding_a_chat_does_not_double_the_bos(tmp_path):
    template = "{{ bos_token }}" + CHATML
    assets = load_prompt(write_folder(tmp_path, bos_token="<|im_start|>", add_bos_token=True, chat_template=template))
    ids = encode_chat(assets, [{"role": "user", "content": "hi"}], add_generation_prompt=False)
    bos = assets.tokenizer.bos_token_id
    assert ids[:2] == [bos, bos]
    assert ids.count(bos) == 2  # the template's own, and the one that opens the turn
    assert assets.tokenizer.encode("hi")[0] == bos


def test_a_model_without_a_template_names_the_flag(tmp_path):
    assets = load_prompt(write_folder(tmp_path))
    with pytest.raises(TemplateError, match="--chat-template"):
        encode_chat(assets, [USER])


def test_the_template_argument_is_a_file_or_a_template(tmp_path):
    folder = write_folder(tmp_path / "model", chat_template="the model's own")
    (tmp_path / "mine.jinja").write_text("from a file: {{ messages[0].content }}")
    message = [{"role": "user", "content": "hi"}]
    from_file = load_prompt(folder, chat_template=str(tmp_path / "mine.jinja"))
    assert from_file.require_template().render(message) == "from a file: hi"
    inline = load_prompt(folder, chat_template="inline: {{ messages[0].content }}")
    assert inline.require_template().render(message) == "inline: hi"
    with pytest.raises(TemplateError, match=r"'nowhere\.jinja' is neither"):
        load_prompt(folder, chat_template="nowhere.jinja")


@pytest.mark.parametrize(("known", "role"), [("", "system"), ("{# developer #}", "developer")])
def test_newer_roles_and_parts_become_what_the_template_knows(known: str, role: str) -> None:
    template = ChatTemplate(known + "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}")
    for refused in ({"content": [{"type": "refusal", "refusal": "No."}]}, {"content": None, "refusal": "No."}):
        chat = [{"role": "developer", "content": "Be brief."}, {"role": "assistant", **refused}]
        assert template.render(chat) == f"{role}:Be brief.;assistant:No.;"
