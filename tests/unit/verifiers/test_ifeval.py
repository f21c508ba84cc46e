# ruff: noqa: E501  tables
"""The IFEval verifier: row formats, errors at load time, scoring; function-style constraints by hand."""

import json
from pathlib import Path

import pytest

from mgs_trl.verifiers import IFEvalVerifier, ifeval_verifier
from mgs_trl.verifiers.instructions import CONSTRAINTS, judge, parse_row

NO_COMMA, QUOTED = "punctuation:no_comma", "startend:quotation"


def score(completions, **columns):
    return ifeval_verifier(["q"] * len(completions), completions, **columns)


def test_fraction_all_and_loose():
    rows = {"instruction_id_list": [[NO_COMMA, QUOTED]] * 3, "kwargs": [[{}, {}]] * 3}
    completions = ['"fine"', "fine", "a, b"]
    assert score(completions, **rows) == [1.0, 0.5, 0.0]
    assert IFEvalVerifier(reward="all")(["q"] * 3, completions, **rows) == [1.0, 0.0, 0.0]
    loose = IFEvalVerifier(mode="loose")
    assert loose(["q"], ['Sure, here it is\n"fine"'], instruction_id_list=[[NO_COMMA, QUOTED]], kwargs=[None]) == [1.0]
    assert loose(["q"], ["**a, b**\nc, d"], instruction_id_list=[[NO_COMMA]], kwargs=[None]) == [0.0]


def test_paper_i2_none_filled_arguments_are_absent():
    filled = {"num_words": 3, "relation": "at least", "keywords": None, "letter": None}
    rows = {"instruction_id_list": [["length_constraints:number_words"]], "kwargs": [[filled]]}
    assert score(["one two three"], **rows) == [1.0]


@pytest.mark.parametrize("as_text", [False, True])
def test_every_published_row_format_is_read(as_text):
    words = {"num_words": 2, "relation": "at least"}
    function = {"func_name": "validate_word_constraint", "N": 2, "quantifier": "at least", "first_word": None}
    multi = [{"instruction_id": [NO_COMMA, "length_constraints:number_words"], "kwargs": [None, words]}]
    encode = json.dumps if as_text else lambda value: value
    rows = [
        (
            {
                "instruction_id_list": [NO_COMMA, "length_constraints:number_words"],
                "kwargs": encode([{}, words]),
            },
            2,
        ),
        ({"instruction_id_list": [NO_COMMA]}, 1),
        ({"ground_truth": encode(function)}, 1),
        ({"ground_truth": encode([function, {"func_name": "validate_no_commas"}])}, 2),
        ({"ground_truth": encode(multi)}, 2),
        ({"ground_truth": repr(multi) if as_text else multi}, 2),
    ]
    for row, count in rows:
        assert len(parse_row(row)) == count
        columns = {name: [value, None] for name, value in row.items()}
        assert score(["one two", "one two"], **columns) == [1.0, None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction_id_list": ["punctuation:no_coma"]}, "'punctuation:no_coma' is unknown, did you mean 'punctuation:no_comma'"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}, "needs the argument 'keywords'"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": []}]}, "'keywords': must be a list of texts"),
        ({"instruction_id_list": [NO_COMMA], "kwargs": [{"n": 1}]}, "has no argument 'n'"),
        ({"instruction_id_list": [NO_COMMA, QUOTED], "kwargs": [{}]}, "got 1 for 2 ids"),
        ({"instruction_id_list": []}, "at least one instruction"),
        ({"instruction_id_list": 5}, "instruction_id_list must be a list of instruction ids, got 5"),
        ({"instruction_id_list": [[NO_COMMA]]}, "instruction id ['punctuation:no_comma'] is unknown"),
        ({"ground_truth": {"func_name": ["validate_title"]}}, "instruction id ['validate_title'] is unknown"),
        ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 3, "relation": "more"}]}, "less than, at least"),
        ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": -1, "relation": "less than"}]}, "zero or more"),
        ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": ["x"]}, "must be a mapping"),
        ({"instruction_id_list": [NO_COMMA], "kwargs": "[{"}, "kwargs must be JSON"),
        ({"instruction_id_list": [NO_COMMA], "kwargs": "none"}, "kwargs must be a list of mappings, or that as JSON text, got 'none'"),
        ({"ground_truth": {"func_name": "validate_titel"}}, "did you mean 'validate_title'"),
        ({"ground_truth": {"func_name": "verify_paragraph_count", "N": None}}, "needs the argument 'N'"),
        ({"ground_truth": "5"}, "mapping with func_name"),
        ({"ground_truth": {"name": "x"}}, "func_name or instruction_id"),
    ],
)  # fmt: skip
def test_paper_i3_i4_bad_rows_are_errors_at_load_time_never_zeros_or_draws(row, message):
    good = {"domain": "instruction_following", "instruction_id_list": [NO_COMMA], "kwargs": [{}]}
    with pytest.raises(ValueError, match=r"^row 1: ") as error:
        ifeval_verifier.validate_rows([good, {"domain": "instruction_following", **row}])
    assert message in str(error.value)
    with pytest.raises(ValueError, match="sample 0"):
        score(["a"], **{name: [value] for name, value in row.items()})


@pytest.mark.parametrize("text", ["null", " null\n", "None"])
def test_arguments_that_are_the_text_of_nothing(text):
    assert score(["a", "a, b"], instruction_id_list=[[NO_COMMA]] * 2, kwargs=[text] * 2) == [1.0, 0.0]


def test_rows_of_other_domains_are_not_validated_or_scored():
    rows = [{"domain": "math", "ground_truth": "5"}, {"domain": "chat"}]
    ifeval_verifier.validate_rows(rows)
    assert score(["a"] * 2, domain=["math", "chat"], ground_truth=["5", None]) == [None, None]
    bound = IFEvalVerifier("formats")
    assert bound(["q"] * 2, ["a", "a"], domain=["formats", "if"], instruction_id_list=[[NO_COMMA]] * 2) == [
        1.0,
        None,
    ]


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_paper_i1_r12_a_blank_answer_follows_nothing(name):
    arguments = {
        argument: next(value for value in (0, 1, "a", "less than", "at most", "en", ["a"]) if accepts(kind, value))
        for argument, kind in CONSTRAINTS[name].required.items()
    }
    for blank in ("", " \n\t", "<think> words"):
        row = {"instruction_id_list": [[name]], "kwargs": [[arguments]]}
        assert score([blank], **row) == [0.0]


def accepts(kind, value):
    try:
        kind(value)
    except ValueError:
        return False
    return True


def test_results_per_constraint_are_logged():
    logged, metrics = {}, {}
    ifeval_verifier(
        ["q"] * 3,
        ["a", "a, b", "a"],
        domain=["if", "if", "chat"],
        instruction_id_list=[[NO_COMMA, QUOTED], [NO_COMMA], None],
        kwargs=[None, None, None],
        log_extra=logged.__setitem__,
        log_metric=metrics.__setitem__,
    )
    name = "instruction_following/ifeval"
    assert logged == {f"{name}/followed": [f"{NO_COMMA}=1 {QUOTED}=0", f"{NO_COMMA}=0", None]}
    assert metrics[f"verifier/{name}/timeouts"] == 0.0


def test_r12_language_is_deterministic():
    """Unseeded, langdetect calls this French in half of all calls, else Finnish."""
    rows = {"instruction_id_list": [["language:response_language"]] * 60, "kwargs": [[{"language": "fr"}]] * 60}
    assert len(set(score(["salut bonjour hola"] * 60, **rows))) == 1


CASES = [  # func_name, arguments, a response that follows, one that does not
    ("verify_keywords", {"keyword_list": ["Apple", "pear"]}, "apples, PEARS", "apples"),
    ("verify_keyword_frequency", {"word": "cat", "N": 2}, "Cat, cat! cats", "cat cat cat"),
    ("verify_keyword_frequency", {"word": "cat", "N": 2, "quantifier": "at least"}, "cat cat cat", "cat"),
    ("validate_forbidden_words", {"forbidden_words": ["bad"]}, "good", "a BADge"),
    ("verify_letter_frequency", {"letter": "l", "N": 3}, "hello world", "HELLO WORLD lll l"),
    ("validate_response_language", {"language": "en"}, "This is clearly an English sentence about a dog.", "Das ist ein deutscher Satz über einen Hund."),
    ("verify_paragraph_count", {"N": 2}, "one\n* * *\ntwo", "one\n* * *\n"),
    ("validate_word_constraint", {"N": 10, "quantifier": "around"}, "w " * 11, "w " * 12),
    ("validate_word_constraint", {"N": 3, "quantifier": "at most"}, "a b c", "a b c d"),
    ("validate_word_constraint", {"N": 3, "quantifier": "at least"}, "a b c", "a b"),
    ("verify_sentence_constraint", {"N": 2, "quantifier": "at most"}, "Mr. Fox is in. He sits, e.g. here.", "One. Two. Three."),
    ("verify_sentence_constraint", {"N": 3, "quantifier": "around"}, "One. Two!", "One."),
    ("validate_paragraphs", {"N": 2, "first_word": "Then", "i": 2}, "a\n\nThen b", "a\n\nthen b"),
    ("verify_postscript", {"postscript_marker": "P.S."}, "a\nP.S. b", "a\nP.S. "),
    ("validate_placeholders", {"N": 2}, "[a] and [b]", "[a] and [b"),
    ("verify_bullet_points", {"N": 2}, "* a\n - b\nc", "* a"),
    ("validate_title", {}, "<<t>>\na", "<<t\n>>"),
    ("validate_choice", {"options": ["yes", "no"]}, "yes!", "maybe"),
    ("validate_highlighted_sections", {"N": 2}, "*a* b *c*", "*a* b *c"),
    ("validate_sections", {"N": 2, "section_splitter": "Section"}, "Section 1 a SECTION 2 b", "Section a Section b"),
    ("validate_json_format", {}, '{"a": 1}', "```json\n{}\n```"),
    ("validate_repeat_prompt", {"original_prompt": "Do it."}, "Do it. Done", "do it. Done"),
    ("validate_two_responses", {}, "a ****** b", "a ****** a"),
    ("validate_uppercase", {}, "ABC 1", "ABc"),
    ("validate_lowercase", {}, "abc 1", "abC"),
    ("validate_frequency_capital_words", {"N": 2, "quantifier": "at least"}, "AB c D", "AB c De"),
    ("validate_end", {"end_phrase": "Bye."}, "So. Bye.", "So. bye."),
    ("validate_quotation", {}, '"a"', '"'),
    ("validate_no_commas", {}, "a", "a,"),
]  # fmt: skip


def test_every_function_of_the_rlvr_rows_has_a_case():
    assert {name for name, *_ in CASES} == {name for name in CONSTRAINTS if ":" not in name}
    assert len({name for name, *_ in CASES}) == 25


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_function_style_constraints(name, arguments, good, bad):
    constraints = parse_row({"ground_truth": {"func_name": name, **arguments}})
    assert judge(good, constraints) == [True]
    assert judge(bad, constraints) == [False]


def test_language_codes_are_those_langdetect_returns():
    from langdetect import detector_factory

    from mgs_trl.verifiers.instructions.parameters import LANGUAGES, language

    profiles = Path(detector_factory.PROFILES_DIRECTORY)
    assert sorted(LANGUAGES) == sorted(profile.name for profile in profiles.iterdir())
    assert language(" ZH-CN ") == "zh-cn"
    with pytest.raises(ValueError, match="did you mean 'zh-cn' or 'zh-tw'"):
        language("zh")
    for value in ("english", "", None, "xx"):
        with pytest.raises(ValueError, match="must be one of langdetect's language codes"):
            language(value)
