"""Templates and conversations that trip renderers up. The templates are written for the tests, after models' habits."""

from tests.backend.prompt.tiny import CHATML

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

TEMPLATES = {
    "chatml": CHATML,
    "smollm2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "whitespace control": """{{ bos_token }}
{%- for message in messages %}
    {% if message.role == 'system' %}
        <<SYS>>{{ message.content | trim }}<</SYS>>
    {%- elif message.role == 'user' %}
    [INST] {{ message.content }} [/INST]
  {% else %}
    {{- message.content | trim }}{{ eos_token }}
    {%- endif %}
{% endfor %}
""",
    "loop controls and namespace": """
{%- set ns = namespace(seen=0, last='') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{%- continue -%}{%- endif -%}
  {%- set ns.seen = ns.seen + 1 -%}
  {%- set ns.last = message.role -%}
  {%- if ns.seen > 4 -%}{%- break -%}{%- endif -%}
  {{ ns.seen }}:{{ message.role }}:{{ message.content }};
{%- endfor -%}
last={{ ns.last }}{{ '|gen' if add_generation_prompt }}
{%- if enable_thinking is defined and enable_thinking %} thinking{% endif %}
""",
    "tools as JSON": """
{%- if tools is not none and tools %}{{ tools | tojson }}
{{ tools[0].function | tojson(indent=2) }}{{ tools | length }}{% else %}no tools{% endif %}
{%- for m in messages %}|{{ m.role }}:{{ m.content }}
{%- if m.tool_calls %}{% for call in m.tool_calls %}<call>{{ call.function.name }}
{%- for key, value in call.function.arguments.items() %} {{ key }}={{ value | tojson }}{% endfor %}</call>
{%- endfor %}{% endif %}
{%- endfor %}
""",
    "generation block and macros": """
{%- macro turn(role, text) %}<{{ role }}>{{ text | upper }}</{{ role }}>{% endmacro %}
{%- for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ turn('a', m.content) }}{% endgeneration %}
{%- else %}{{ turn(m.role, m.content) }}{% endif %}{% endfor %}
{%- set d = dict(a=1, b=2) %}{{ d['a'] + d['b'] }}{{ strftime_now('%Y')[:2] }}
""",
    "refuses systems": """
{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- for m in messages %}{{ m.role ~ m.content }}{% endfor %}
""",
    "parts": """
{%- for m in messages %}{{ m.role }}:
{%- if m.content is string %}{{ m.content }}{% else %}
{%- for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}<{{ part.type }}>{% endif %}
{%- endfor %}{% endif %};{% endfor %}
""",
    "reasoning": """
{%- for m in messages %}{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>{% endif %}
{%- if m.thinking is defined %}<t>{{ m.thinking }}</t>{% endif %}{{ m.content }}{% endfor %}
""",
    "documents": "{% if documents %}{{ documents | tojson }}{% endif %}{{ messages[-1].content }}{{ eos_token }}",
    "sandbox": "{{ messages.append(1) }}{{ messages[0].content }}",
    "attribute of a class": "{{ ''.__class__.__mro__ }}{{ messages[0].content }}",
    "filters": (
        "{% for m in messages %}{{ m.content | length }}{{ m | items | list | length }}"
        "{{ m.content.split(' ')[-1].strip('?') }}{{ m.content.startswith('W') }}"
        "{{ loop.index0 }}{{ loop.last }}{{ messages[::-1][0].role }}{% endfor %}{{ undefined_name }}"
    ),
}

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather <of> a "city" & more: é 日',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
USER = {"role": "user", "content": "What is 2+2? <b>é 日 & 'q'"}
SYSTEM = {"role": "system", "content": "  Be brief.\n"}
ASSISTANT = {"role": "assistant", "content": " It is 4. "}
TOOL_CALL = {
    "role": "assistant",
    "content": "one moment",
    "tool_calls": [
        {"id": "a1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    ],
}
TOOL_RESULT = {"role": "tool", "tool_call_id": "a1", "name": "get_weather", "content": "22C"}

# name -> (messages, options of render)
CONVERSATIONS = {
    "user": ([USER], {}),
    "no generation prompt": ([USER], {"add_generation_prompt": False}),
    "system": ([SYSTEM, USER], {}),
    "turns": ([SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER], {}),
    "tools": ([USER], {"tools": [TOOL]}),
    "empty tools": ([USER], {"tools": []}),
    "tool turn": ([USER, TOOL_CALL, TOOL_RESULT], {"tools": [TOOL]}),
    "nulls": ([{**USER, "name": None, "tool_calls": None}], {}),
    "reasoning": ([USER, {**ASSISTANT, "reasoning": "hm"}, USER], {}),
    "template variables": ([USER], {"enable_thinking": True, "bos_token": "<other>"}),
    "documents": ([USER], {"documents": [{"title": "t", "text": "é <x>"}]}),
    "continue": ([USER, {"role": "assistant", "content": "It is"}], {"continue_final_message": True}),
    "continue after space": ([USER, {"role": "assistant", "content": "It is "}], {"continue_final_message": True}),
}
