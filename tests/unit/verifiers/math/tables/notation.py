# ruff: noqa: E501
"""LaTeX that math-verify by itself does not read."""

EQUAL = [
    # digits that are arguments without braces
    (r"\log_2 5", r"\log_2(5)"), (r"\log_2 5", r"\log_{2} 5"), (r"\log_2 5", r"\log_2{5}"), (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), (r"\log_2 3", "1.584963"),
    (r"2\log_2 3", r"\log_2 9"), (r"\log_2 300", r"2+\log_2 75"), (r"\log_2\,5", r"\log_{2}5"), ("10", r"\binom 5 2"), ("10", r"\binom52"), ("3", r"\log_2 8"), ("24", "2^3 3"),
    # the empty set
    (r"\emptyset", r"\varnothing"), (r"\emptyset", "∅"), (r"\emptyset", r"\{\}"), (r"\varnothing", r"\left\{ \right\}"), (r"\{\ \}", r"\emptyset"),
    # repeating decimals
    (r"\frac13", r"0.\overline{3}"), (r"0.\overline{3}", "1/3"), (r"\frac13", r"0.\bar 3"), (r"\frac13", r"0.3\overline3"), (r"0.\overline{3}", r"0.\overline{33}"), (r"\frac16", r"0.1\overline{6}"),
    (r"-\frac43", r"-1.\overline{3}"), (r"\frac{1}{7}", r"0.\overline{142857}"), (r"\frac{1}{7}", r"0.\dot{1}4285\dot{7}"), (r"\frac13", r"0.\dot{3}"), (r"33.\overline{3}\%", r"\frac13"), ("1", r"0.\overline{9}"),
    # degrees under trigonometric functions
    (r"\frac{\sqrt3}{2}", r"\sin 60^\circ"), (r"\frac{\sqrt3}{2}", r"\sin(60^{\circ})"), (r"\sin 60°", r"\cos{30^\circ}"), ("0.5", r"\sin^2 45^\circ"), ("2", r"\frac{1}{\sin 30^\circ}"),
    (r"\sin(x+30^\circ)", r"\sin(30^\circ+x)"), (r"x=30^\circ", r"x=\text{30}^\circ"), (r"45^\circ", "45"),
    # roots, logarithms, fractions, ratios
    ("-2", r"\sqrt[3]{-8}"), (r"\sqrt[3]{-8}", "-2"), ("7", r"5-\sqrt[3]{-8}"), ("2", r"\lg 100"), (r"\frac12", "½"), ("2.5", "2½"), (r"\frac12", r"\nicefrac{1}{2}"), (r"\frac12", r"\sfrac12"), ("5", "{" * 20 + "5" + "}" * 20), (r"\frac12", r"\frac{{1}}{{2}}"), ("x^{10}", "x^{{10}}"),
    ("5:4", "5{:}4"), ("5:4", r"5\colon 4"), ("5:4", r"5\text{:}4"),
    # brackets turned outwards
    ("(0,1)", "]0,1["), ("]0,1[", "(0,1)"), ("(0,1]", r"\left]0,1\right]"), ("[0,1)", "[0,1["), (r"(0,1)\cup(2,3]", r"]0,1[ \cup ]2,3]"), (r"(-\infty,3)", r"x \in ]-\infty, 3["),
    (r"\sqrt[3]{2},\sqrt[3]{4}", r"\sqrt[3]{4},\sqrt[3]{2}"),
    # an answer and its rounding
    (r"25\pi", r"25\pi \approx 78.54"), ("2e", r"2e \approx 5.44"), ("78.54", r"25\pi \approx 78.54"), (r"25\pi \approx 78.54", r"25\pi"), (r"25\pi \approx 78.54", "78.54"), (r"\frac13", r"\frac13\approx 0.33"),
    ("0.33", r"\frac13\approx 0.33"), (r"\sqrt2", r"x = \sqrt2 \approx 1.41"), (r"\sqrt2", r"1.414 \approx \sqrt2"), ("3.14", r"x \approx 3.14"), ("30", r"\theta \approx 30^\circ"), ("6.02e23", r"N \approx 6.02 \times 10^{23}"),
    (r"25\pi", r"25\pi \text{ cm}^2 \approx 78.54 \text{ cm}^2"), ("1.41,-1.41", r"x_1 \approx 1.41, x_2 \approx -1.41"), (r"\sqrt2,-\sqrt2", r"\sqrt2\approx 1.41,-\sqrt2\approx -1.41"), ("6", r"5.5 \approx 6"), (r"\frac23", r"\frac23 \approx 0.66"),
    # letters of both cases
    ("R-r", "-r+R"), (r"\frac{M}{M+m}", r"\frac{M}{m+M}"), (r"\binom{N}{n}", r"{N \choose n}"), (r"\frac{x^3}{3}+C", r"\frac13x^3+c"), ("a+b+c", "c+a+b"), ("a+b+C", "C+b+a"),
    # primes
    ("f'(x)", r"f^{\prime}(x)"), ("30'", r"30^\prime"), ("30", "30'"), ("5 feet", "5'"), ("30 minutes", "30'"), ("5 inches", '5"'), (r"\text{Simpson's rule}", r"\text{Simpson’s rule}"),
    # characters outside ASCII
    (r"\sqrt{2}", "√2"), (r"\sqrt{2}", "√(2)"), (r"\sqrt{2}", "√ 2"), (r"2\sqrt{3}", "2·√3"), (r"\sqrt{10}", "√10"), (r"\sqrt[3]{2}", "∛2"), (r"2\pi", "2π"), (r"\pi", "𝜋"), ("6", "2×3"), ("6", "12÷2"), (r"x\le 3", "x≤3"), (r"x\le 3", "x⩽3"), ("-3", "−3"), ("-3", "﹣3"),
    ("x^4", "x⁴"), ("x^{12}", "x¹²"), ("10^{-5}", "10⁻⁵"), ("x_1", "x₁"), (r"2\alpha+\lambda", "2α+λ"), (r"\Delta", "Δ"), (r"\mathbb{R}", "ℝ"), (r"\frac12", "1⁄2"), (r"90^\circ", "90º"), (r"\{1,2\}", "{1,2}"), (r"a\ne b", "a≠b"),
    # logarithms, sizes
    (r"\ln x", r"\log x"), (r"\log x", r"\ln x"), ("2", r"\log 100"), (r"\log_{10} 2", r"\log 2"), (r"\ln x", r"\log_e x"), ("5", r"\large 5"), ("5", r"{\rm 5}"), ("5", r"5\hspace{1mm}"), (r"\sqrt{2}", r"\sqrt(2)"), (r"\mathbb{R}\setminus\{0\}", r"\mathbb{R} \backslash \{0\}"),
    # arguments without braces
    (r"\frac{\pi}{2}", r"\frac\pi2"), (r"\frac\pi2", r"\pi/2"), (r"\frac{a}{b}", r"\frac ab"), (r"\frac{1}{\pi}", r"\frac1\pi"), (r"\frac{1}{x}", r"\frac{1}x"), (r"\sqrt{\pi}", r"\sqrt\pi"), (r"\binom{n}{k}", r"\binom nk"), (r"\sqrt{x}", r"x^\frac12"), ("2^{x/2}", r"2^\frac{x}{2}"), (r"\frac{1}{2}", r"\frac{1}{2} = 50\%"),
]  # fmt: skip
DIFFERENT = [
    (r"\log_2 3", r"\log_3 2"), (r"\log_2 3", r"\log_2 5"), (r"\log_2 3", r"\log_{23}"), (r"\log_2 3", "23"), ("10", r"\binom 6 2"), ("12", r"\frac 1 2"), ("225", r"\log_2 25"), ("16", "1 6"), ("12", r"1\ 2"), ("8", "2 3"),
    ("R-r", "r-R"), ("R-r", "0"), ("0", "R-r"), (r"\frac{R}{r}", r"\frac{r}{R}"), (r"\frac{R}{r}", "1"), ("1", r"\frac{R}{r}"), (r"\pi(R^2-r^2)", r"\pi(r^2-R^2)"), (r"\frac{M}{M+m}", r"\frac{1}{2}"), (r"\frac{M}{M+m}", r"\frac{m}{M+m}"), (r"\binom{N}{n}", "1"), ("A+a", "2a"), (r"\frac{\Omega}{\omega}", "1"), ("a+b+c", "a+b+C"),
    (r"\emptyset", r"\{0\}"), (r"\emptyset", "0"), (r"\emptyset", r"\{\emptyset\}"), ("0", r"\{\}"),
    (r"\frac13", r"0.\overline{4}"), (r"0.\overline{3}", "0.3"), (r"0.\overline{12}", r"0.1\overline{2}"), (r"0.1\overline{6}", "0.16"), ("3", r"0.\overline{3}"),
    (r"\frac{\sqrt3}{2}", r"\sin 30^\circ"), (r"\sin 60^\circ", r"\sin 60"), ("60", r"\sin 60^\circ"), (r"45^\circ", r"\frac{\pi}{4}\cdot 2"), ("45", r"\frac{\pi}{4}"),
    ("2", r"\sqrt[3]{-8}"), ("2", r"\lg 10"), ("2.5", "½"), ("5:4", r"4\colon 5"), ("5", "{{6}}"), (r"\{1\}", r"\{{2}\}"),
    ("[0,1]", "]0,1["), ("(0,1)", "]0,1]"), ("(0,1)", "[0,1["), ("]0,1[", "]0,2["),
    ("5", r"5 \approx 6"), ("6", r"5 \approx 6"), (r"25\pi", r"24\pi \approx 25\pi"), (r"24\pi", r"24\pi \approx 25\pi"), (r"25\pi", r"25\pi \approx 80"), (r"25\pi", r"26\pi \approx 81.68"), ("0.34", r"\frac13 \approx 0.34"),
    ("5.5", r"5.5 \approx 6"), (r"\sqrt2", r"\sqrt2 \approx \sqrt3"), ("3.14", r"\sqrt{10} \approx 3.14"), ("3.15", r"\pi \approx 3.15"), ("5", r"5 \approx 5.0 \approx 6"), ("5", r"(5 \approx 6)"), ("1,2", r"1 \approx 2, 2"),
    (r"30^\circ", "30'"), (r"30^\circ", r"30^{\prime}"), ("30'", r"30^\circ"), ("30'", "30''"), ("5 feet", "5''"), ("f'", "f"), ("f'(x)", "f''(x)"), ("1", r"\{x: x\}"), (r"\{x: x\}", "1"),
    (r"2\sqrt{3}", "2√2"), (r"2\sqrt{3}", "2+√3"), (r"\sqrt{10}", "√1"), ("2", "√2"), (r"2\pi", "π"), ("6", "2×4"), (r"x\le 3", "x≥3"), ("x^4", "x₄"), ("x_1", "x¹"), ("104", "10⁴"),
    (r"\ln x", r"\log_2 x"), (r"\ln x", r"\log_{10} x"), (r"\log_{10} 2", r"\ln 2"), (r"\ln 2", r"\lg 2"),
    (r"\frac{\pi}{2}", r"\frac2\pi"), (r"\frac{a}{b}", r"\frac ba"), (r"\binom{n}{k}", r"\binom kn"), (r"\sqrt{\pi}", r"\sqrt2\pi"), (r"\sqrt{x}", r"x^\frac13"), (r"\frac{1}{2}", r"\frac{1}{2} = 5\%"),
]  # fmt: skip
