r"""Characters outside ASCII as LaTeX: `√2`, `x²`, `π`, `≤`, `３` as `\sqrt{2}`, `x^{2}`, `\pi`, `\le`, `3`."""

from __future__ import annotations

import re
import unicodedata

# One by one: the compatibility form of all of Unicode (NFKC) would turn x² into x2.
_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_STYLED = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0x1D400, 0x1D800)}  # 𝜋, 𝑥
_SAME = dict(zip("　。、−–‐‑﹣º˚⁄∕∣∗∶″", ' .,-----°°//|*:"', strict=True))
_SAME |= dict.fromkeys("\u200b\u2060\ufeff", "")
_VULGAR = {
    sign: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("⁄")) for sign in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
_COMMANDS = {
    "×": "times", "⋅": "cdot", "·": "cdot", "÷": "div", "±": "pm", "∓": "mp", "∞": "infty", "≈": "approx",
    "≤": "le", "⩽": "le", "≦": "le", "≥": "ge", "⩾": "ge", "≧": "ge", "≠": "ne",
    "≡": "equiv", "→": "to", "⇒": "Rightarrow", "∪": "cup", "∩": "cap", "∈": "in", "∖": "setminus",
    "∨": "lor", "∧": "land", "∠": "angle", "△": "triangle",
    "⟨": "langle", "⟩": "rangle", "∑": "sum", "∏": "prod", "∫": "int", "∂": "partial",
}  # fmt: skip
_COMMANDS |= {letter: f"mathbb{{{name}}}" for letter, name in zip("ℝℤℚℕℂ", "RZQNC", strict=True)}
_COMMANDS |= {letter: unicodedata.name(letter).rpartition(" ")[2].lower() for letter in "αβγδεζηθικμνξπρστυφχψω"}
_COMMANDS |= {letter: unicodedata.name(letter).rpartition(" ")[2].title() for letter in "ΓΔΘΞΠΣΦΨ"}  # Ω is the ohm
_COMMANDS |= {"λ": "lambda", "Λ": "Lambda"}  # LAMDA in Unicode
_CHARACTERS = str.maketrans(
    {**_FULL_WIDTH, **_SAME, **_VULGAR, **{sign: f"\\{command} " for sign, command in _COMMANDS.items()}}
)

_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢ"
_SCRIPT_SIGNS = {
    **dict(zip(_RAISED, "0123456789+-ni", strict=True)),
    **dict(zip(_LOWERED, "0123456789+-ni", strict=True)),
}
_SCRIPTS = re.compile(rf"[{_RAISED}]+|[{_LOWERED}]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+))")
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}


def in_latex(text: str) -> str:
    """The text in ASCII as far as its characters have a form there."""
    if text.isascii():
        return text
    text = _SCRIPTS.sub(_script, text).translate(_STYLED).translate(_CHARACTERS)
    return _ROOT.sub(_root, text)


def _script(script: re.Match[str]) -> str:
    sign = "^" if script.group()[0] in _RAISED else "_"
    return f"{sign}{{{''.join(_SCRIPT_SIGNS[character] for character in script.group())}}}"


def _root(root: re.Match[str]) -> str:
    sign, *radicands = root.groups()
    return f"{_ROOTS[sign]}{{{next(radicand for radicand in radicands if radicand is not None)}}}"
