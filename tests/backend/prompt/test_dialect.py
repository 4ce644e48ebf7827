"""OpenAI-shaped messages reach each template in the form it understands."""

import copy
import json

import pytest

from backend.prompt import ChatTemplate, TemplateError
from tests.backend.prompt.conversations import TEMPLATES, TOOL_CALL, TOOL_RESULT, USER
from tests.backend.prompt.tiny import CHATML

PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
# An assistant turn with a call and no content, as clients send it: arguments are text, content is null.
CALL = copy.deepcopy(TOOL_CALL)
CALL["content"] = None
CALL["tool_calls"][0]["function"]["arguments"] = json.dumps({"city": "Paris"})
TURN = [USER, CALL, TOOL_RESULT]

TURNS = "{% for m in messages %}{% if m.tool_calls %}BODY{% else %}{{ m.content }};{% endif %}{% endfor %}"
NAMES_CALLS = "{% for call in m.tool_calls %}{{ call.function.name }}{% endfor %}"


def test_parts_are_joined_for_a_template_that_wants_text():
    assert "user\none\ntwo<|im_end|>" in ChatTemplate(CHATML).render([{"role": "user", "content": PARTS}])


def test_parts_are_left_to_a_template_that_reads_them():
    image = {"type": "image"}
    text = ChatTemplate(TEMPLATES["parts"]).render([{"role": "user", "content": [*PARTS, image]}])
    assert text.strip() == "user:onetwo<image>;"


def test_a_template_that_prints_the_list_gets_text():
    text = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}").render(
        [{"role": "user", "content": PARTS}]
    )
    assert text == "one\ntwo"


def test_an_image_for_a_text_template_is_refused_by_its_type():
    with pytest.raises(TemplateError, match="'image_url'"):
        ChatTemplate(CHATML).render([{"role": "user", "content": [{"type": "image_url"}]}])


def test_parts_can_be_continued():
    assistant = {"role": "assistant", "content": PARTS}
    assert ChatTemplate(CHATML).render([USER, assistant], continue_final_message=True).endswith("one\ntwo")
    assert ChatTemplate(TEMPLATES["parts"]).render([USER, assistant], continue_final_message=True).endswith("onetwo")


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.tool_calls[0].function.name }}{{ m.tool_calls[0].function.arguments | tojson }}",
        "{{ m.tool_calls[0].function.name }}{{ m.tool_calls[0].function.arguments.items() and '' }}"
        "{{ m.tool_calls[0].function.arguments | tojson }}",
        "{{ m.tool_calls[0].function.name + m.tool_calls[0].function.arguments }}",
    ],
    ids=["prints them", "needs an object", "needs text"],
)
def test_arguments_come_as_the_template_reads_them(body):
    assert 'get_weather{"city": "Paris"}' in ChatTemplate(TURNS.replace("BODY", body)).render(TURN)


@pytest.mark.parametrize(
    "content",
    [
        "{{ m.content if m.content is defined }}",
        "{{ '' if m['content'] is none else m['content'] + '' }}",
        "{{ m['content'] + '' }}",
    ],
    ids=["wants it absent", "wants null", "wants text"],
)
def test_a_turn_without_content_comes_as_the_template_reads_it(content):
    body = content + NAMES_CALLS
    template = ChatTemplate(TURNS.replace("BODY", body))
    assert template.render(TURN) == f"{USER['content']};get_weather22C;"


def test_a_call_that_only_null_content_brings_out():
    body = "{% if m['content'] is none %}" + NAMES_CALLS + "{% else %}{{ m['content'] + '' }}{% endif %}"
    assert "get_weather" in ChatTemplate(TURNS.replace("BODY", body)).render(TURN)


def test_a_template_without_tools_still_renders_the_turn():
    assert "22C" in ChatTemplate(CHATML).render(TURN)


def test_arguments_that_are_no_json_object_are_passed_on():
    turn = copy.deepcopy(TURN)
    turn[1]["tool_calls"][0]["function"]["arguments"] = "{broken"
    body = "{{ m.tool_calls[0].function.arguments }}"
    assert "{broken" in ChatTemplate(TURNS.replace("BODY", body)).render(turn)
