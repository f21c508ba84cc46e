"""A reward that differs between completions even of an untrained policy."""


def spread(completions, **columns):
    """Mean character code of what a completion says, in hundreds."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [sum(map(ord, text)) / max(len(text), 1) / 100 for text in texts]
