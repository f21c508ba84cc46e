"""Prompts of all domains in one form: conversations, or texts where no single chat template serves every domain.

| templates of the domains | tokenizer's chat template | prompts become |
|---|---|---|
| all the same, one of ours | replaced by it | conversations |
| all `default` | has one | conversations; a text is one user turn |
| all `default` | has none | texts as they are; a conversation is refused |
| different ones | | texts, each domain's prompts rendered with its own template |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgs_trl.domains.datasets import DomainRows
from mgs_trl.domains.templates import Template

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class PromptForm:
    """How the prompts of a run are written.

    Attributes:
        conversational: prompts are lists of messages, rendered when they are tokenized; else texts.
        chat_template: what the tokenizer's chat template must be; None leaves it.
        rendered: texts come from a template (and hold their own special tokens), not as they are in the data.
    """

    conversational: bool
    chat_template: str | None = None
    rendered: bool = False


def prompt_form(templates: Mapping[str, Template], tokenizer: Any) -> PromptForm:
    """The form for domains with these templates (see the table above).

    Raises:
        ValueError: a domain asks for the tokenizer's template beside others, and there is none.
    """
    distinct = set(templates.values())
    if len(distinct) == 1:
        (template,) = distinct
        if template.chat_template is not None:
            return PromptForm(conversational=True, chat_template=template.chat_template)
        return PromptForm(conversational=bool(tokenizer.chat_template))
    for domain, template in templates.items():
        if template.chat_template is None and not tokenizer.chat_template:
            raise ValueError(f"domains.{domain}.template is 'default', but the tokenizer has no chat template.")
    return PromptForm(conversational=False, rendered=True)


def write_prompts(
    part: DomainRows,
    form: PromptForm,
    template: Template,
    system: str | None,
    suffix: str | None,
    tokenizer: Any,
    variables: Mapping[str, Any],
) -> None:
    """Bring the prompts of one domain to the run's form, in place.

    Args:
        system: system message put before every conversation that has none.
        suffix: text appended to the last user turn.
        variables: the run's `chat_template_kwargs`.

    Raises:
        ValueError: a conversation, or a system message, where the tokenizer has no chat template.
    """
    for row in part.rows:
        prompt = row["prompt"]
        if form.conversational or form.rendered:
            messages = _messages(prompt, system, suffix)
            row["prompt"] = messages if form.conversational else _render(messages, template, tokenizer, variables)
        elif isinstance(prompt, str) and system is None:
            row["prompt"] = prompt + (suffix or "")
        else:
            raise ValueError(
                f"domain {part.domain!r} has conversations or a system_prompt, but the tokenizer has no chat template; "
                "set template: zero_think, or use a model with a chat template."
            )


def prompt_length(prompt: str | Messages, tokenizer: Any, variables: Mapping[str, Any]) -> int:
    """Tokens of a prompt as the trainer tokenizes it; `variables` are its `chat_template_kwargs`."""
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    tokens = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **variables
    )
    return len(tokens["input_ids"])


def _messages(prompt: str | Messages, system: str | None, suffix: str | None) -> Messages:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    if suffix:
        last = max(i for i, message in enumerate(messages) if message["role"] == "user")
        messages[last]["content"] += suffix
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _render(messages: Messages, template: Template, tokenizer: Any, variables: Mapping[str, Any]) -> str:
    text = tokenizer.apply_chat_template(
        messages,
        chat_template=template.chat_template or tokenizer.chat_template,
        add_generation_prompt=True,
        tokenize=False,
        **variables,
    )
    # The trainer tokenizes texts with special tokens, so a leading BOS would come twice.
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if adds_bos else text
