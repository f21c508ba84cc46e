# ruff: noqa: E501
r"""Words after a number, most of them in `\text{...}`."""

EQUAL = [
    ("300", r"3\text{ hundred}"), ("300", "3 hundred"), (r"3\text{ dozen}", "3 dozen"), ("3x", r"3\text{x}"), (r"12:30\text{ p.m.}", r"12:30\text{ PM}"), (r"12:30\text{ p.m.}", "12:30 pm"), ("12:30 a.m.", "12:30"), ("12:30", "12:30am"),
]  # fmt: skip
DIFFERENT = [
    ("3", "300"), ("3", "3 hundred"), (r"12:30\text{ p.m.}", r"12:30\text{ a.m.}"), ("12:30 pm", "12:30 am"), (r"12:30\text{ p.m.}", r"12:31\text{ p.m.}"), (r"5\text{ p.m.}", r"5\text{ a.m.}"), ("5 pm", "5 am"), ("5 pm", "6 pm"), ("12:30", "12:31 pm"),
    ("3x", "3x^2"), (r"3\text{ dozen}", "3"),
]  # fmt: skip
