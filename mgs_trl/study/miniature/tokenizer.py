"""The miniature's tokenizer: a word is one token, a digit is one token, anything else falls back to characters."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from mgs_trl.study.miniature.conversation import REQUESTS
from mgs_trl.study.miniature.lexicon import ADJECTIVES, ENDINGS, NOUNS, PREPOSITIONS, VERBS, capitalised

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPACE = "\u2581"
BOX = "\\boxed{"
PAD, UNKNOWN, END = "<|pad|>", "<|unknown|>", "<|end|>"
SPECIAL = (PAD, UNKNOWN, END, "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY_MULTIPLE = 64  # vLLM pads embeddings to this
ASKING = (
    "the and Compute Write about use no commas only lowercase the word avoid say at least times less than words "
    "end with put it in quotation marks bullets"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def vocabulary() -> dict[str, int]:
    """Token to id: specials, characters, every word of the language with and without a space and a capital."""
    text = " ".join((*NOUNS, *ADJECTIVES, *VERBS, *PREPOSITIONS, *ENDINGS, *REQUESTS, ASKING)).lower()
    words = sorted(set(re.findall("[a-z]+", text)))
    forms = [form for word in words for form in (word, capitalised(word))]
    characters = [SPACE, "\n", *string.digits, *string.ascii_letters, *string.punctuation]
    tokens = [*SPECIAL, *characters, BOX, *("##" + character for character in characters)]
    tokens += [space + form for form in forms for space in ("", SPACE) if space or len(form) > 1]
    tokens += [f"<|reserved_{i}|>" for i in range(-len(tokens) % VOCABULARY_MULTIPLE)]
    return {token: i for i, token in enumerate(tokens)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer, with chat template, `<|end|>` as end of sequence and a pad token of its own.

    Decoding gives back exactly the text that was encoded, for text of printable ASCII characters and newlines.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = vocabulary()
    tokenizer = Tokenizer(models.WordPiece(entries, unk_token=UNKNOWN, continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    pieces = Regex(rf"\\boxed\{{|{SPACE}?[A-Za-z]+|[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(Regex("^##(?=.)"), ""), decoders.Replace(SPACE, " "), decoders.Fuse()]
    )
    reserved = [token for token in entries if token.startswith("<|reserved_")]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*SPECIAL, *reserved)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
