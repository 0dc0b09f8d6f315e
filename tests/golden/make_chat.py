"""Records what Transformers makes of conversations, for tests/text/chat_template_test.ts.

Run with transformers installed (5.23 made what is here): python tests/golden/make_chat.py
The templates are written for this file, in the formats that published models use.
"""

import json
import pathlib

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
import transformers

LLAMA3 = """{%- if date_string is not defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- bos_token }}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You have access to these functions, in JSON:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("This model takes one tool call at once") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}"""

PARTS = """{%- macro render(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content -%}
            {%- if part.type == 'image' or 'image' in part -%}<image>{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {{- message.role|upper + ': ' + render(message.content) + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}"""

PRINTING = """{{ true }} {{ none }} {{ 1.5 }} {{ 2 / 2 }} {{ 7 // 2 }} {{ [1, 'a', "it's", none, true] }} {{ {'a': {'b': [1.0]}} }}
{{ 1 == true }} {{ '1' == 1 }} {{ [1, [2]] == [1, [2]] }} {{ {'a': 1} == {'a': 1} }} {{ none == false }} {{ 'a' ~ 1 ~ none ~ true }}
{{ missing }}|{{ messages[0].missing }}|{{ 'x' if false }}|{{ [1, 2]|string }}|{{ [1, 2]|join('-') }}|{{ "a\\n\\t'\\"\\\\é" }}|{{ ["a\\n\\t'\\"\\\\é"] }}
{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}
{%- for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% set x %}captured {{ 1 + 1 }}{% endset %}{{ x|upper }} {{ 'abc'[1:] }} {{ 'abc'[-1] }} {{ 'a,b'.split(',') }} {{ messages|length }}
{% filter upper %}low {{ 'er' }}{% endfilter %} {{ 'x'|default('d') }} {{ missing|default('d') }} {{ ''|default('d', true) }}
{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}{{ v }}{% endfor %} {{ {'b': 1, 'a': 2}|tojson }} {{ {'b': 1, 'a': "é<"}|tojson(indent=2, sort_keys=true) }} {{ [3,1,2]|sort }}
{{ (1, 2) }} {{ 'a' in 'abc' }} {{ 2 in [1, 2] }} {{ 'b' not in {'a': 1} }} {{ not messages }} {{ -3 }} {{ 10 % 3 }} {{ 2 ** 3 }}"""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Looks up the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where, e.g. Zürich"}},
            "required": ["city"],
        },
    },
}


def message(role, content=None, **fields):
    return {"role": role, **({} if content is None else {"content": content}), **fields}


USER = message("user", " Hello, 世界! 👋🏽 ")
TALK = [USER, message("assistant", "Hi."), message("user", "Bye")]
SYSTEM = [message("system", "Be brief."), *TALK]
CALL = message(
    "assistant",
    tool_calls=[{"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}],
)
TOOLS = [
    message("user", "Weather?"),
    CALL,
    message("tool", '{"sun": true}', tool_call_id="abcdefghi", name="get_weather"),
]
THOUGHT = [message("user", "1+1?"), message("assistant", "<think>\nEasy.\n</think>\n\n2"), message("user", "2+2?")]
GENERATE = {"add_generation_prompt": True}
ROWS = {
    "llama3": (LLAMA3, [
        (TALK, {}), (TALK, GENERATE), (SYSTEM, GENERATE), (SYSTEM, {"date_string": "1 Jan 2025", "tools": [WEATHER]}),
        (TOOLS, {"tools": [WEATHER], **GENERATE}), ([message("user", "x"), message("assistant", tool_calls=[])], {}),
        ([USER, message("assistant", "So far ")], {"continue_final_message": True}),
    ]),
    "chatml": (CHATML, [
        (TALK, GENERATE), (SYSTEM, {}), (SYSTEM, {"tools": [WEATHER], **GENERATE}), (TOOLS, {"tools": [WEATHER], **GENERATE}),
        (THOUGHT, GENERATE), (THOUGHT, {"enable_thinking": False, **GENERATE}),
        ([message("user", "1+1?"), message("assistant", "2", reasoning="Easy.")], {}),
        ([USER, message("assistant", "So far")], {"continue_final_message": True}),
        ([USER, message("assistant", "2", reasoning_content="Hm")], {"continue_final_message": "reasoning_content"}),
        ([message("user", "x"), {"role": "assistant", "content": None, "tool_calls": None}], {}),
    ]),
    "gemma": (GEMMA, [
        (TALK, GENERATE), (SYSTEM, {}), ([USER, USER], {}), ([USER, message("assistant", "So ")], {"continue_final_message": True}),
    ]),
    "mistral": (MISTRAL, [
        (TALK, GENERATE), (SYSTEM, {}), ([USER, USER], {}), (TOOLS, {}), (TOOLS[:1], {"tools": [WEATHER, WEATHER]}),
        ([message("narrator", "x")], {}),
    ]),
    "parts": (PARTS, [
        ([message("user", [{"type": "image"}, {"type": "text", "text": "What is it?"}])], GENERATE),
        ([message("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], {"continue_final_message": True}),
    ]),
    "printing": (PRINTING, [(TALK, {})]),
}


def main():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    recorded = []
    for name, (template, calls) in ROWS.items():
        for messages, options in calls:
            tokenizer.chat_template = template
            try:
                result = {"text": tokenizer.apply_chat_template(messages, tokenize=False, **options)}
            except Exception as error:
                result = {"error": str(error).splitlines()[0]}
            recorded.append({"name": name, "messages": messages, "options": options, **result})
    out = {
        "transformers": transformers.__version__,
        "templates": {name: template for name, (template, _) in ROWS.items()},
        "rows": recorded,
    }
    path = pathlib.Path(__file__).with_name("chat.json")
    path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(recorded)} conversations")


if __name__ == "__main__":
    main()
