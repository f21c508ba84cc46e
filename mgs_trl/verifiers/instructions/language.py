"""The language of a text, by langdetect with a fixed seed: IFEval's scores are defined with it.

langdetect draws at random and keeps global state; it runs in a worker process, one sample at a time.
"""

from __future__ import annotations

LONGEST = 20_000  # characters looked at; langdetect itself stops early, its preprocessing does not


def is_language(text: str, code: str) -> bool | None:
    """Whether langdetect names `code` for `text`; None where it finds no features (digits, symbols only)."""
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0
    try:
        return detect(text[:LONGEST]) == code
    except LangDetectException:
        return None
