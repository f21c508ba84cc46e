"""Datasets of domains: readers that name the line, published schemas, one row form, prompts (demand R11)."""

import csv
import json

import datasets as hf
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgs_trl.domains.datasets import DataUnreachable, combine, load_domain, read_rows
from mgs_trl.domains.schemas import SCHEMAS, find_schema
from mgs_trl.recipe import DatasetSpec

USER = [{"role": "user", "content": "Hello?"}]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return DatasetSpec(path=str(path))


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- reading files ---

ROWS = [{"prompt": "one, two", "answer": "1"}, {"prompt": 'line\nbreak "quoted"', "answer": "ünï"}]


def test_every_format_gives_the_same_rows(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(ROWS, indent=2))
    (tmp_path / "a.jsonl").write_text(lines(*ROWS))
    hf.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    hf.DatasetDict({"train": hf.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    for name in ("a.csv", "a.parquet", "a.json", "a.jsonl", "saved", "splits"):
        assert read_rows(DatasetSpec(path=str(tmp_path / name))) == ROWS, name


def test_a_byte_order_mark_blank_lines_and_json_lines_in_a_json_file(tmp_path):
    text = "\ufeff" + lines(ROWS[0]) + "\n" + lines(ROWS[1])
    for name in ("a.jsonl", "a.json"):
        assert read_rows(write(tmp_path / name, text)) == ROWS


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": \n', ["line 2", "not valid JSON"]),
        ("a.jsonl", '{"prompt": "a"}\n\n[1]\n', ["line 3", "list"]),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', ["line 2", "UTF-8"]),
        ("a.json", '[\n{"prompt": "a"},\n{"prompt" "b"}\n]', ["line 3", "not valid JSON"]),
        ("a.json", '{"prompt": "a"}', ["dict"]),
        ("a.json", '[{"prompt": "a"}, 3]', ["row 2", "int"]),
        ("a.csv", "prompt,answer\na,1\nb,2,3\n", ["line 3", "3 fields", "2"]),
        ("a.csv", 'prompt,answer\na,1\n"b"c,2\n', ["line 3", "CSV"]),
        ("a.csv", "prompt,answer,answer\na,1,2\n", ["line 1", "'answer' twice"]),
        ("a.parquet", "no parquet", ["Parquet"]),
        ("a.jsonl.gz", '{"prompt": "a"}\n', ["file of another kind", ".jsonl"]),
        ("A.JSONL", '{"prompt": "a"}\n', ["file of another kind", ".jsonl"]),
    ],
)
def test_unreadable_files_name_the_file_and_the_line(tmp_path, name, text, words):
    spec = write(tmp_path / name, text)
    with pytest.raises(ValueError) as caught:
        read_rows(spec)
    message = str(caught.value)
    assert all(word in message for word in [spec.path, *words]), message
    assert "\n" not in message


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.parquet"]),
    content=st.one_of(
        st.binary(max_size=200),
        st.text('{}[]",:\n\\ ab1é', max_size=120).map(str.encode),
    ),
)
def test_any_file_gives_rows_or_a_sentence(tmp_path_factory, name, content):
    spec = write(tmp_path_factory.mktemp("files") / name, content)
    try:
        outcome = read_rows(spec)
    except ValueError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert spec.path in outcome
    else:
        assert all(isinstance(row, dict) for row in outcome)


def test_missing_files_directories_and_hub_ids(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"none\.jsonl' does not exist"):
        read_rows(DatasetSpec(path=str(tmp_path / "none.jsonl")))
    with pytest.raises(ValueError, match="save_to_disk"):
        read_rows(DatasetSpec(path=str(tmp_path)))
    hf.DatasetDict({"test": hf.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match="no split 'train'; it has test"):
        read_rows(DatasetSpec(path=str(tmp_path / "splits")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataUnreachable, match="some/dataset"):
        read_rows(DatasetSpec(path="some/dataset"))


def test_a_path_that_leads_nowhere_is_no_hub_id(tmp_path, monkeypatch):
    """The hub, when it does not answer, only leaves data unchecked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write(tmp_path / "a.tsv", "prompt\na\n")
    for path in ("a.tsv", "./none", str(tmp_path / "none"), "~/none/here", "data/of/mine"):
        with pytest.raises(ValueError, match="but it must be a file") as caught:
            read_rows(DatasetSpec(path=path))
        assert not isinstance(caught.value, DataUnreachable)


def test_csv_may_have_empty_lines_and_long_prompts(tmp_path):
    spec = write(tmp_path / "a.csv", f"prompt,answer\r\n\r\n{'x' * 200_000},1\r\n\r\n")
    assert read_rows(spec) == [{"prompt": "x" * 200_000, "answer": "1"}]


def numbered(count):
    return [{"prompt": f"prompt {n}"} for n in range(count)]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[-2:]", [8, 9]),
        ("train[50%:]", range(5, 10)),
        ("train[:2]+train[8:]", [0, 1, 8, 9]),
        ("train[8:]+train[10:]+train[20:30]", [8, 9]),
    ],
)
def test_a_split_may_be_a_part_wherever_the_data_is(tmp_path, monkeypatch, split, expected):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = numbered(10)
    file = write(tmp_path / "a.jsonl", lines(*rows)).path
    hf.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    hf.DatasetDict({"train": hf.Dataset.from_list(rows)}).save_to_disk(tmp_path / "splits")
    wanted = [rows[n] for n in expected]
    for spec in (
        DatasetSpec(file, split=split),
        DatasetSpec(str(tmp_path / "saved"), split=split),
        DatasetSpec(str(tmp_path / "splits"), split=split),
        DatasetSpec("json", data_files=file, split=split),  # as a hub dataset is loaded, by its builder
    ):
        assert read_rows(spec) == wanted, spec


def test_splits_of_a_saved_dataset(tmp_path):
    first, second = hf.Dataset.from_list(numbered(2)), hf.Dataset.from_list(numbered(3))
    hf.DatasetDict({"train": first, "test": second}).save_to_disk(tmp_path / "splits")
    assert read_rows(DatasetSpec(str(tmp_path / "splits"), split="train[:1]+test[1:]")) == [
        {"prompt": "prompt 0"},
        {"prompt": "prompt 1"},
        {"prompt": "prompt 2"},
    ]
    hf.Dataset.from_list(numbered(2), split="test").save_to_disk(tmp_path / "one")
    for split in ("train", "test"):  # the default, and the split that it was saved from
        assert read_rows(DatasetSpec(str(tmp_path / "one"), split=split)) == numbered(2)


@pytest.mark.parametrize("split", ["test", "train[", "train[:200%]"])
def test_a_split_that_is_not_there_is_refused(tmp_path, monkeypatch, split):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = write(tmp_path / "a.jsonl", lines(*ROWS)).path
    hf.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for spec in (
        DatasetSpec(file, split=split),
        DatasetSpec(str(tmp_path / "saved"), split=split),
        DatasetSpec("json", data_files=file, split=split),
    ):
        with pytest.raises(ValueError) as caught:
            read_rows(spec)
        message = str(caught.value)
        assert f"split {split!r}" in message and repr(spec.path) in message and "\n" not in message, message


# --- published schemas ---

CASES = {
    "simplerl": [
        (
            {"prompt": [{"role": "user", "content": "<|im_start|>"}], "question": "1+1?", "gt_answer": "2", "level": 3},
            {"prompt": "1+1?", "answer": "2"},
        ),
        (
            {
                "prompt": [{"role": "user", "content": "markup 1+1?"}],
                "reward_model": {"style": "rule", "ground_truth": "2"},
                "extra_info": {"question": "1+1?", "answer": "2", "level": 4},
            },
            {"prompt": "1+1?", "answer": "2"},
        ),
    ],
    "math": [
        (
            {"problem": "1+1?", "solution": "So \\boxed{3} no, \\boxed{\\frac{4}{2}}.", "level": "Level 3"},
            {"prompt": "1+1?", "answer": "\\frac{4}{2}"},
        ),
        ({"problem": "1+1?", "answer": "2"}, {"prompt": "1+1?", "answer": "2"}),
    ],
    "rlvr_ifeval": [
        (
            {
                "messages": [*USER, {"role": "assistant", "content": "hi"}],
                "ground_truth": '{"func_name": "validate_no_commas", "N": null}',
                "dataset": "ifeval",
                "constraint_type": "No Commas",
                "constraint": "refrain from commas",
            },
            {"prompt": USER, "ground_truth": '{"func_name": "validate_no_commas", "N": null}'},
        )
    ],
    "nemotron_if": [
        (
            {
                "input": USER,
                "args": {
                    "instruction_id_list": ["a:b", "c:d"],
                    "instruction_kwargs": [{"x": 1, "y": None}, None],
                },
                "category": "instruction_following",
            },
            {"prompt": USER, "instruction_id_list": ["a:b", "c:d"], "kwargs": '[{"x": 1}, {}]'},
        )
    ],
    "ifeval": [
        (
            {"key": 1, "prompt": "Hello?", "instruction_id_list": ["a:b"], "kwargs": [{"x": None}]},
            {"prompt": "Hello?", "instruction_id_list": ["a:b"], "kwargs": "[{}]"},
        )
    ],
    "preference": [({"prompt": "Hello?", "chosen": [], "rejected": []}, {"prompt": "Hello?"})],
    "wildchat_if": [({"id": "7", "messages": [*USER, {"role": "assistant", "content": "x"}]}, {"prompt": USER})],
    "plain": [({"prompt": USER, "answer": 2, "mine": "kept"}, {"prompt": USER, "answer": "2", "mine": "kept"})],
}


@pytest.mark.parametrize(("name", "theirs", "ours"), [(name, *pair) for name, pairs in CASES.items() for pair in pairs])
def test_published_schemas_are_told_by_their_columns(name, theirs, ours):
    assert find_schema(None, theirs).name == name
    assert SCHEMAS[name].convert(theirs) == ours


def test_every_schema_has_a_case():
    assert set(CASES) == set(SCHEMAS)


def test_schema_names_and_unknown_columns():
    assert find_schema("plain", ["question", "gt_answer"]).name == "plain"
    with pytest.raises(ValueError, match="Did you mean 'simplerl'"):
        find_schema("simplrl", [])
    with pytest.raises(ValueError, match=r"\['text'\]"):
        find_schema(None, ["text"])


@pytest.mark.parametrize(
    ("schema", "row", "words"),
    [
        ("simplerl", {"question": "1+1?", "gt_answer": None}, "gt_answer is None"),
        ("math", {"problem": "1+1?", "solution": "no box"}, "answer is None"),
        ("math", {"problem": "", "answer": "2"}, "prompt"),
        ("rlvr_ifeval", {"messages": USER, "ground_truth": ""}, "ground_truth is empty"),
        ("nemotron_if", {"input": USER, "args": {"instruction_id_list": ["a"]}}, "same length"),
        ("plain", {"prompt": [{"role": "system", "content": "x"}]}, "user turn"),
        ("plain", {"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "prompt"),
        ("plain", {"prompt": [{"content": "x"}, {"role": "user", "content": "y"}]}, "prompt"),
    ],
)
def test_rows_that_a_schema_cannot_read(schema, row, words):
    with pytest.raises(ValueError, match=words):
        SCHEMAS[schema].convert(row)


@pytest.mark.parametrize("gold", [0, 0.0])
def test_a_gold_zero_is_a_gold_answer(gold):
    row = {"problem": "1-1?", "solution": r"Not \boxed{7}.", "answer": gold}
    assert SCHEMAS["math"].convert(row)["answer"] == str(gold)


@pytest.mark.parametrize("gold", [None, ""])
@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So \boxed 6.", "6"),
        (r"So \fbox{6}.", "6"),
        (r"\boxed{\{1,2} y}", r"\{1,2"),
        (r"\boxed{5} and \boxed{", "5"),
    ],
)
def test_without_an_answer_the_solutions_box_is_it(gold, solution, answer):
    assert SCHEMAS["math"].convert({"problem": "?", "solution": solution, "answer": gold})["answer"] == answer


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("schema", "row", "column"),
    [
        ("math", {"problem": "?", "solution": r"\boxed{5}"}, "answer"),
        ("simplerl", {"question": "?"}, "gt_answer"),
        ("plain", {"prompt": "?"}, "answer"),
    ],
)
def test_a_gold_number_is_finite(number, schema, row, column):
    with pytest.raises(ValueError, match=f"^{column} is {number}, but a number must be finite"):
        SCHEMAS[schema].convert({**row, column: number})


def test_numbers_are_written_out():
    for number, text in [(1e-05, "0.00001"), (1e16, "10000000000000000"), (-3, "-3"), (0.5, "0.5")]:
        assert SCHEMAS["plain"].convert({"prompt": "?", "answer": number})["answer"] == text


def test_instructions_and_arguments_may_be_json_text():
    args = {"instruction_id_list": ["a:b"], "instruction_kwargs": [{"x": 1, "y": None}]}
    texts = {name: json.dumps(value) for name, value in args.items()}
    for form in (args, texts, json.dumps(args), json.dumps(texts)):
        row = SCHEMAS["nemotron_if"].convert({"input": USER, "args": form})
        assert row == {"prompt": USER, "instruction_id_list": ["a:b"], "kwargs": '[{"x": 1}]'}
    ifeval = {"prompt": "?", "instruction_id_list": '["a:b"]', "kwargs": '[{"x": 1}]'}
    assert SCHEMAS["ifeval"].convert(ifeval)["instruction_id_list"] == ["a:b"]
    with pytest.raises(ValueError, match=r"^args is 'none', but a text there must be JSON"):
        SCHEMAS["nemotron_if"].convert({"input": USER, "args": "none"})


# --- domains ---


def test_rows_get_their_domain_and_lost_columns_are_none_elsewhere(tmp_path):
    """demand R11: a domain's verifier columns are None in other domains' rows."""
    math = load_domain("math", write(tmp_path / "m.jsonl", lines({"prompt": "1+1", "answer": 2, "domain": "old"})))
    chat = load_domain("chat", write(tmp_path / "c.jsonl", lines({"messages": USER})), keep=("answer",))
    for part in (math, chat):
        for row in part.rows:
            row["prompt"] = "p"
    data = combine([math, chat])
    assert data.to_list() == [
        {"prompt": "p", "domain": "math", "answer": "2"},
        {"prompt": "p", "domain": "chat", "answer": None},
    ]


def test_columns_a_verifier_reads_survive_any_schema(tmp_path):
    spec = write(tmp_path / "m.jsonl", lines({"messages": USER, "gold": "2"}))
    spec.columns = {"answer": "gold"}
    (row,) = load_domain("math", spec, keep=("answer",)).rows
    assert row == {"prompt": USER, "answer": "2", "domain": "math"}


def test_renaming_a_missing_column_suggests_one(tmp_path):
    spec = write(tmp_path / "m.jsonl", lines({"query": "hi"}))
    spec.columns = {"prompt": "qery"}
    with pytest.raises(ValueError, match="Did you mean 'query'"):
        load_domain("math", spec)


def test_a_row_without_a_renamed_column_is_a_row_without_a_value(tmp_path):
    def check_row(row):
        if row["answer"] is None:
            raise ValueError("no answer")

    spec = write(tmp_path / "m.jsonl", lines({"prompt": "a", "gold": "1"}, {"prompt": "b"}))
    spec.columns = {"answer": "gold"}
    with pytest.raises(ValueError, match="row 2: no answer"):
        load_domain("math", spec, check_row)
    spec.invalid_rows = "drop"
    part = load_domain("math", spec, check_row)
    assert part.rows == [{"prompt": "a", "answer": "1", "domain": "math"}] and list(part.dropped.values()) == [1]


def test_invalid_rows_stop_or_are_dropped_and_counted(tmp_path, caplog):
    spec = write(tmp_path / "m.jsonl", lines(*({"question": f"{n}?", "gt_answer": n or None} for n in range(4))))
    with pytest.raises(ValueError, match=r"domain 'math'.*m\.jsonl', row 1: gt_answer is None"):
        load_domain("math", spec)
    spec.invalid_rows = "drop"
    part = load_domain("math", spec)
    assert [row["answer"] for row in part.rows] == ["1", "2", "3"]
    assert list(part.dropped.values()) == [1]
    assert "1 of 4 rows dropped" in caplog.text


def test_a_row_that_the_verifier_refuses_is_named(tmp_path):
    def check_row(row):
        if row["answer"] == "3":
            raise ValueError("no threes")

    spec = write(tmp_path / "m.jsonl", lines(*({"prompt": "x", "answer": n} for n in range(1, 5))))
    with pytest.raises(ValueError, match="row 3: no threes"):
        load_domain("math", spec, check_row)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_domains_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"domain 'chat'.* no rows"):
        load_domain("chat", write(tmp_path / "c.jsonl", content))


def test_a_domain_without_a_usable_row_is_refused(tmp_path):
    spec = write(tmp_path / "m.jsonl", lines({"question": "?", "gt_answer": ""}))
    spec.invalid_rows = "drop"
    with pytest.raises(ValueError, match="none of its 1 rows"):
        load_domain("math", spec)


def test_a_dataset_object_and_a_limit(tmp_path):
    assert len(load_domain("chat", hf.Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}])).rows) == 2
    spec = write(tmp_path / "c.jsonl", lines({"prompt": "a"}, {"prompt": "b"}))
    spec.limit = 1
    assert [row["prompt"] for row in load_domain("chat", spec).rows] == ["a"]


def test_columns_of_different_types_are_refused(tmp_path):
    a = load_domain("a", write(tmp_path / "a.jsonl", lines({"prompt": "x", "target": "text"})))
    b = load_domain("b", write(tmp_path / "b.jsonl", lines({"prompt": "x", "target": [1]})))
    with pytest.raises(ValueError, match=r"column 'target' \(domains a, b\)"):
        combine([a, b])


@pytest.mark.parametrize("value", ["\ud83d", 2**70])
def test_a_value_that_no_table_holds_is_refused(tmp_path, value):
    rows = load_domain("a", write(tmp_path / "a.jsonl", lines({"prompt": "x", "target": value})))
    with pytest.raises(ValueError, match=r"column 'target' \(domains a\).* no table holds"):
        combine([rows])
