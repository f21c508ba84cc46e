"""Prompt templates: how a conversation becomes the text that the policy continues."""

import difflib
from dataclasses import dataclass

# The prompt of zero-style reasoning runs (RLMT, MGS): a base model is told once how the conversation is written, and
# a completion ends with `</response>`. Turn markers as in RLMT; the wording of the preamble is ours.
_ZERO_THINK = """\
{{- bos_token if bos_token else '' -}}
{{- 'The following is a conversation between a User and an Assistant. For every query, the Assistant first plans its \
reply step by step and then responds. The planning is written inside <think> </think> tags and the final reply, which \
is all that the User sees, inside <response> </response> tags, that is: <think> planning </think> <response> reply \
</response>\\n' -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- 'User: <query>' + message['content'] | trim + '</query>\\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- 'Assistant: ' + message['content'] | trim + '\\n' -}}
{%- else -%}
{{- message['content'] | trim + '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"""


@dataclass(frozen=True)
class Template:
    """A way to write prompts.

    Attributes:
        chat_template: Jinja source for the tokenizer; None keeps the tokenizer's own.
        stop: strings that end a completion.
    """

    name: str
    chat_template: str | None = None
    stop: tuple[str, ...] = ()


TEMPLATES = {
    template.name: template
    for template in (Template("default"), Template("zero_think", _ZERO_THINK, stop=("</response>",)))
}


def find_template(name: str) -> Template:
    """The template of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in TEMPLATES:
        near = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"template is {name!r}, but it must be one of {', '.join(TEMPLATES)}.{hint}")
    return TEMPLATES[name]
