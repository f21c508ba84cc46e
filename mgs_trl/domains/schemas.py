"""Published dataset schemas, each a small mapping from a row of theirs to a row of ours.

A row of ours has `prompt` (text, or a list of `{"role", "content"}`) and the columns its verifier needs: `answer`
(text) for math, `instruction_id_list` with `kwargs` (JSON text), or `ground_truth` (JSON text), for instructions.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from mgs_trl.boxed import last_boxed

Row = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """One published form of data.

    Attributes:
        marks: sets of columns that tell it; any one of them suffices.
        convert: their row to ours; raises ValueError when the row holds no prompt or no gold value.
    """

    name: str
    marks: tuple[frozenset[str], ...]
    convert: Callable[[Mapping[str, Any]], Row]

    def matches(self, columns: Iterable[str]) -> bool:
        return any(mark.issubset(columns) for mark in self.marks)


def _simplerl(row: Mapping[str, Any]) -> Row:
    """hkust-nlp/SimpleRL-Zoo-Data. Its `prompt` has a model's chat markup baked in; the question alone is beside it."""
    extra = _mapping(row.get("extra_info"))
    question = row.get("question") or extra.get("question")
    gold = [row.get("gt_answer"), extra.get("answer"), _mapping(row.get("reward_model")).get("ground_truth")]
    answer = next((value for value in gold if value not in (None, "")), None)
    return {"prompt": _user(question or row.get("prompt")), "answer": _text("gt_answer", answer)}


def _math(row: Mapping[str, Any]) -> Row:
    """Hendrycks MATH: `problem`, and the gold answer in the last box of `solution` (or in `answer`, as in MATH-500)."""
    answer = row.get("answer")
    if answer in (None, ""):  # a gold answer may be the number 0
        answer = last_boxed(str(row.get("solution") or ""))
    return {"prompt": _user(row.get("problem")), "answer": _text("answer", answer)}


def _rlvr_ifeval(row: Mapping[str, Any]) -> Row:
    """allenai/RLVR-IFeval: `messages`, and one constraint function with its arguments as JSON in `ground_truth`."""
    truth = row.get("ground_truth")
    if not truth:
        raise ValueError("ground_truth is empty")
    return {
        "prompt": _user(row.get("messages")),
        "ground_truth": truth if isinstance(truth, str) else json.dumps(truth),
    }


def _nemotron_if(row: Mapping[str, Any]) -> Row:
    """nvidia/Llama-Nemotron-Post-Training-Dataset, RL/instruction_following: `input`, the instructions in `args`."""
    args = _mapping(_decoded("args", row.get("args")))
    names = args.get("instruction_id_list")
    return {"prompt": _user(row.get("input")), **_instructions(names, args.get("instruction_kwargs"))}


def _ifeval(row: Mapping[str, Any]) -> Row:
    """google/IFEval."""
    return {
        "prompt": _user(row.get("prompt")),
        **_instructions(row.get("instruction_id_list"), row.get("kwargs")),
    }


def _preference(row: Mapping[str, Any]) -> Row:
    """Preference data (allenai/tulu-3-wildchat-if-on-policy-8b, from which wildchat-if is drawn): prompts only."""
    return {"prompt": _user(row.get("prompt") or _before_answer(row.get("chosen")))}


def _wildchat_if(row: Mapping[str, Any]) -> Row:
    """princeton RLMT wildchat-if: user prompts as `messages`, or as `prompt` in chat form."""
    return {"prompt": _user(row.get("messages") or row.get("prompt"))}


def _plain(row: Mapping[str, Any]) -> Row:
    """Our own form: `prompt`, and every other column as it is (gold answers as text)."""
    result = {name: value for name, value in row.items() if name != "domain"}
    result["prompt"] = _user(row.get("prompt"))
    if isinstance(result.get("answer"), (int, float)) and not isinstance(result["answer"], bool):
        result["answer"] = _text("answer", result["answer"])
    if isinstance(result.get("ground_truth"), Mapping):
        result["ground_truth"] = json.dumps(result["ground_truth"])
    return result


# In the order in which columns are looked at: the most telling first, `plain` for whatever has a prompt.
SCHEMAS = {
    schema.name: schema
    for schema in (
        Schema(
            "simplerl",
            (frozenset({"question", "gt_answer"}), frozenset({"extra_info", "reward_model"})),
            _simplerl,
        ),
        Schema("math", (frozenset({"problem", "solution"}), frozenset({"problem", "answer"})), _math),
        Schema("nemotron_if", (frozenset({"input", "args"}),), _nemotron_if),
        Schema("rlvr_ifeval", (frozenset({"messages", "ground_truth"}),), _rlvr_ifeval),
        Schema("ifeval", (frozenset({"prompt", "instruction_id_list", "kwargs"}),), _ifeval),
        Schema("preference", (frozenset({"prompt", "chosen"}), frozenset({"chosen", "rejected"})), _preference),
        Schema("wildchat_if", (frozenset({"messages"}),), _wildchat_if),
        Schema("plain", (frozenset({"prompt"}),), _plain),
    )
}


def find_schema(name: str | None, columns: Iterable[str]) -> Schema:
    """The schema of this name, or the one that the columns tell.

    Raises:
        ValueError: an unknown name, or columns that tell none.
    """
    columns = list(columns)
    if name is not None:
        if name not in SCHEMAS:
            near = difflib.get_close_matches(name, SCHEMAS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"schema is {name!r}, but it must be one of {', '.join(SCHEMAS)}.{hint}")
        return SCHEMAS[name]
    for schema in SCHEMAS.values():
        if schema.matches(columns):
            return schema
    raise ValueError(
        f"no known schema has the columns {sorted(columns)}; name the prompt with columns: {{prompt: ...}} "
        f"or set schema: to one of {', '.join(SCHEMAS)}."
    )


def _decoded(name: str, value: Any) -> Any:
    """A list or mapping that may be written as JSON text, the only way in CSV."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"{name} is {value[:80]!r}, but a text there must be JSON") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(name: str, value: Any) -> str:
    """A gold answer as text, a number as a person writes it: 0.00001 and not 1e-05."""
    if value is None or isinstance(value, (bool, list, dict)) or not str(value).strip():
        raise ValueError(f"{name} is {value!r}, but it must be a non-empty text or a number")
    if not isinstance(value, float):
        return str(value)
    if not isfinite(value):
        raise ValueError(f"{name} is {value!r}, but a number must be finite")
    return format(Decimal(repr(value)), "f")


def _before_answer(messages: Any) -> Any:
    """The conversation up to the last assistant turns, which are the answer."""
    if not isinstance(messages, list):
        return messages
    last = len(messages)
    while last and _mapping(messages[last - 1]).get("role") == "assistant":
        last -= 1
    return messages[:last]


def _user(prompt: Any) -> str | list[dict[str, str]]:
    """A text or conversation as it is, checked; assistant turns at the end are answers and are cut off."""
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, list):
        messages = [_mapping(message) for message in _before_answer(prompt)]
        turns: list[Any] = [{"role": m.get("role"), "content": m.get("content")} for m in messages]
        are_texts = all(isinstance(text, str) for turn in turns for text in turn.values())
        if are_texts and any(turn["role"] == "user" for turn in turns):
            return turns
    raise ValueError(f"the prompt is {str(prompt)[:80]!r}, but it must be a text or a conversation with a user turn")


def _instructions(names: Any, arguments: Any) -> Row:
    """Instruction ids and their arguments, None-filled keys left out, as JSON so that all rows share a type."""
    names, arguments = _decoded("instruction_id_list", names), _decoded("the arguments", arguments)
    if not isinstance(names, list) or not names or not isinstance(arguments, list) or len(names) != len(arguments):
        raise ValueError("instruction_id_list and its arguments must be two lists of the same length, at least 1")
    given = [{k: v for k, v in _mapping(argument).items() if v is not None} for argument in arguments]
    return {"instruction_id_list": [str(name) for name in names], "kwargs": json.dumps(given)}
