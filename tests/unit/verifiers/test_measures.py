"""Counting by hand: what the benchmark's Punkt model and Treebank tokeniser are known to do on these
texts."""

import pytest

from mgs_trl.verifiers.instructions.measures import count_capital_words, count_sentences, count_words


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("   \n", 0),
        ("Hello", 1),
        ("Hello there. How are you?", 2),
        ("hello there. how are you? fine! thanks.", 4),
        ("One\nTwo\nThree", 1),
        ("Dr. Smith met Mr. Jones in Washington D.C. yesterday. They talked.", 2),
        ("We met at 5 p.m. on Monday. It rained.", 2),
        ("We met at 5 p.m. The rain began.", 2),
        ("J. R. R. Tolkien wrote it. I read it.", 2),
        ("Fruits, e.g. apples, i.e. the round ones, are good.", 1),
        ("Pi is 3.14159 and e is 2.718.", 1),
        ("It was 1999. Then came 2000.", 2),
        ("Wait... what? Really?!", 2),
        ("Wait... Then he left.", 2),
        ('He said "Stop!" and left.', 2),
        ('"Stop." "Why?" "Because."', 3),
        ("Visit example.com today. Now!", 2),
        ("No space.After the stop", 1),
        ("(One.) (Two.)", 2),
        ("He said so (yes). She agreed.", 2),
        ("Item no. 5 is out. Fig. 3 shows it.", 2),
        ("«Oui.» «Non.»", 2),
        ("!!! ???", 2),
    ],
)
def test_sentences(text, count):
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("no capitals Here", 0),
        ("NASA and the EU", 2),
        ("NASA's", 1),
        ("DON'T STOP", 3),
        ("I am A-OK", 2),
        ("NASA-ESA", 1),
        ("NASA,ESA;EU (UN) [WHO]", 5),
        ("X2 2X 22 4.5", 2),
        ("GO! STOP. WAIT...", 3),
        ("CANNOT", 2),
        ("A******B", 2),
        ("A*B* C..D E—F", 6),
        ("WE DON'T. STOP", 4),
        ("DON’T", 2),
        ("İSTANBUL ÉTÉ", 2),
    ],
)
def test_capital_words(text, count):
    assert count_capital_words(text) == count


@pytest.mark.parametrize(("text", "count"), [("", 0), ("one two", 2), ("it's 3.5", 4), ("a_b-c", 2), ("日本 語", 2)])
def test_words(text, count):
    assert count_words(text) == count
