# ruff: noqa: E501
"""Answers that math-verify by itself would misread."""

EQUAL = [
    # text and units
    ("5", r"5\text{ apples}"), ("25", r"25\text{ cm}^2"), ("25", r"25\,\mathrm{cm}^{2}"), ("25", r"25\text{ cm$^2$}"), ("5", r"\text{5 apples}"),
    (r"3\text{ or }4", "3,4"), ("3,4", r"3\text{ and }4"), ("1,2,3", r"1, 2\text{, and }3"), (r"x=3\text{ or }x=4", "x=3,x=4"),
    (r"5\text{ feet }3\text{ inches}", r"5 \text{ feet } 3 \text{ inches}"), ("9.8", r"9.8\text{ apples}/\text{day}^2"),
    ("10,12", r"10\text{ cm}, 12\text{ cm}"), ("72", r"\text{Area} = 72\text{ cm}^2"), (r"\frac{1}{2}", r"\frac{1}{2}\text{ of the cake}"),
    # what LaTeX cannot parse
    (r"\{x \mid x > 3\}", r"\{ x\mid x>3 \}"), (r"\{x : x > 3\}", r"(3,\infty)"), (r"\begin{cases}x=1\\y=2\end{cases}", r"\begin{cases}x=1\\ y=2\end{cases}"),
    (r"x \equiv 1 \pmod{5}", r"x\equiv 1\pmod 5"), (r"(-\infty, 3)", "(-∞, 3)"), (r"(-\infty,-2]\cup[2,\infty)", "(−∞, −2] ∪ [2, ∞)"), ("x≥3", r"x\ge3"),
    ("3.14", r"\approx 3.14"), ("3.14", r"x \approx 3.14"), ("3.14", "= 3.14"), ("3.14", r"\sim 3.14"), ("3.14", r"\text{approximately }3.14"), ("72", r"\therefore 72"), ("72", r"\[72\]"),
    # the imaginary unit
    (r"\frac{3}{5}+\frac{4}{5}i", r"\frac{3+4i}{5}"), (r"2i\sqrt{3}", r"2\sqrt{3}i"), (r"-i", r"\frac{1}{i}"), ("5i", r"\sqrt{-25}"), (r"e^{i\pi/4}", r"\frac{\sqrt2}{2}+\frac{\sqrt2}{2}i"),
    ("a+bi", "bi+a"), ("(2+i,3)", "(i+2,3)"), ("z=3+4i", "3+4i"), ("x_i+1", "1+x_i"), (r"\sum_{i=1}^{5} i^2", "55"), (r"3\mathbf{i}+4\mathbf{j}", r"4\mathbf{j}+3\mathbf{i}"),
    # small numbers
    (r"1.6 \times 10^{-19}\text{ C}", r"1.6 \times 10^{-19}"), (r"1.38\times 10^{-23}", r"1.38\times10^{-23}\text{ J/K}"), (r"1.6\times 10^{-19}", r"q=1.6\times 10^{-19}\text{ C}"),
    (r"\sqrt{2}\times 10^{-19}", r"10^{-19}\sqrt{2}"), (r"2^{-30}", r"\frac{1}{2^{30}}"), ("0", r"\sin \pi"), ("0", r"\sqrt{2}-\sqrt{2}"),
    # intervals
    ("[-2,1]", r"-2 \le x \le 1"), (r"(3,\infty)", "x>3"), (r"(-\infty,0)", "0>x"), ("(2,5]", r"5\ge x>2"), ("x<0", r"(-\infty,0)"),
    (r"(-\infty,2)\cup(3,\infty)", r"x<2\text{ or }x>3"), (r"(-\infty,2]\cup[3,\infty)", r"x \ge 3 \text{ or } 2 \geq x"), (r"x<2\text{ or }x>3", r"(-\infty,2)\cup(3,\infty)"),
    (r"(-\infty,2)\cup(3,4)", "x < 2 or 3 < x < 4"), ("[-2,1]", r"x \ge -2 \text{ and } x \le 1"), (r"(-2,\frac{1}{2}]", r"x \leq \frac{1}{2} \text{ and } x > -2"),
    (r"x<2\text{ or }x>3", r"x>3\text{ or }x<2"),
    # bases
    ("1011_2", "1011_{2}"), ("1011_2", "1011"), ("1011", "1011_2"), ("1011_{2}", r"1011_{\text{two}}"), ("1011_2", "(1011)_2"), ("x_1", "x_{1}"),
    # magnitudes, words, temperatures, narrow spaces
    ("5 million", r"\text{5 million}"), ("5000000", r"\textbf{5 million}"), ("5000000", r"\text{5 million people}"), ("1200000", r"\$1.2\text{ million}"), ("3000", r"\mathrm{3\ thousand}"),
    ("New York", r"\text{new york}"), ("None of the above", r"\text{none of the Above}"), ("Point A", "point A"), ("Yes", "yes"),
    (r"25^\circ\text{C}", r"25^\circ"), ("25^\\circ", "25°F"), ("25 degrees Celsius", "25℃"), (r"11,\! 111,\! 111,\! 100", "11111111100"),
    # choices
    ("D", r"\textbf{D}\ 7"), ("D", r"D\quad 7"), ("D", "D - 7"), ("D", "D — 7"), ("B", r"\text{B}\quad\text{red}"),
]  # fmt: skip
DIFFERENT = [
    ("5", r"5\text{ or 6}"), ("5", r"5\text{ or six}"), ("5", r"5\text{ or maybe }6\text{ cm}"), ("5", r"5\text{, no wait, 7}"), ("5", r"5\mathrm{ or 6}"), ("5", r"\text{5 or 6}"),
    ("5", r"5 \text{ maybe } \frac{1}{3}"), ("5", r"5\text{ cm or }6\text{ cm}"), ("5", r"5\text{ feet }9\text{ inches}"), (r"5\text{ feet }3\text{ inches}", "5"),
    (r"5\text{ feet }3\text{ inches}", r"5\text{ feet }9\text{ inches}"), ("10", r"10\text{ cm}, 12\text{ cm}"), ("5", r"5\mathbf{v}"), (r"3\mathbf{i}+4\mathbf{j}", r"3\mathbf{i}+5\mathbf{j}"),
    (r"\{x \mid x > 3\}", r"\{x \mid x < 3\}"), (r"\{x \mid x > 3\}", "3"), (r"\begin{cases}x=1\\y=2\end{cases}", r"\begin{cases}x=5\\y=2\end{cases}"),
    ("5", r"x \equiv 1 \pmod 5"), (r"2 \pmod{5}", r"n \equiv 2 \pmod{7}"), (r"2 \pmod{5}", "5"), ("3", r"x \neq 3"), ("3.14", r"\approx 3.15"), (r"\infty", "-∞"),
    ("3+4i", "3-4i"), ("5i", "5"), ("a+bi", "a-bi"), (r"\frac{-1 + i\sqrt{3}}{2}", r"-\frac12-\frac{\sqrt3}{2}i"), (r"\sum_{i=1}^{5} i^2", "56"),
    (r"3.2 \times 10^{-19}", r"1.6 \times 10^{-19}\text{ C}"), (r"3.2 \times 10^{-19}\text{ C}", r"1.6 \times 10^{-19}\text{ C}"), (r"3.2 \times 10^{-19}\text{ C/m}^2", r"1.6 \times 10^{-19}\text{ C/m}^2"),
    (r"1.6\times 10^{-19}", r"x=3.2\times 10^{-19}"), (r"1.6 \times 10^{-19}\text{ C}", "0"),
    (r"\frac{1}{10^{20}}", r"\frac{1}{10^{21}}"), (r"\sqrt{2}\times 10^{-19}", r"\sqrt{3}\times 10^{-19}"),
    (r"(3,\infty)", r"x \ge 3"), ("[-2,1]", "-2<x<1"), (r"(3,\infty)", "x<3"), ("(1,2)", "x=1"), ("[1,2]", "1"),
    (r"(-\infty,2)\cup(3,\infty)", r"x<2\text{ or }x>4"), (r"(-\infty,2)\cup(3,\infty)", r"x \le 2\text{ or }x>3"), ("[-2,1]", r"x > -2 \text{ and } x \le 1"),
    (r"(-\infty,2)\cup(3,\infty)", "x<2"), (r"(-\infty,2)\cup(3,\infty)", r"x<2\text{ or }y>3"),
    ("1011_2", "1011_3"), ("1011_{16}", "1011_{8}"), ("1011_2", "1010_2"), ("x=1011_2", "x=1011_3"), ("x_1", "x_2"),
    ("5", r"\text{5 million}"), ("1.2 billion", r"\textbf{1.2 million}"), ("New York", "New Jersey"), ("AB CD", "ab cd"), (r"25^\circ\text{C}", r"25^\circ\text{F}"), (r"25^\circ\text{C}", r"24^\circ"),
    ("D", "D - C"), ("C", "C + 1"), ("C", r"C \cdot 7"), ("C", "C-1"),
]  # fmt: skip
