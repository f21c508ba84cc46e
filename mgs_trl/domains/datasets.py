"""Datasets of domains: read from anywhere, mapped to one row form, checked, put together for the trainer."""

import csv
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets as hf
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from mgs_trl.domains.schemas import Row, find_schema
from mgs_trl.policies.path import is_local
from mgs_trl.recipe import DATA_FILES, DatasetSpec, did_you_mean

logger = logging.getLogger(__name__)


class DataUnreachable(ValueError):
    """The hub did not answer: the data may be right, but cannot be looked at from here."""


@dataclass
class DomainRows:
    """The rows of one domain in our form.

    Attributes:
        schema: name of the schema they came in.
        rows: `prompt`, `domain` and the verifier columns.
        dropped: how many rows were left out, by reason.
    """

    domain: str
    schema: str
    rows: list[Row]
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Every column that some row has."""
        return sorted({name for row in self.rows for name in row})

    def drop(self, keep: Callable[[Row], bool], reason: str) -> None:
        """Leave out the rows that `keep` refuses; they are counted under `reason` and logged."""
        kept = [row for row in self.rows if keep(row)]
        count = len(self.rows) - len(kept)
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            logger.warning("domain %s: %d of %d rows dropped: %s", self.domain, count, len(self.rows), reason)
        self.rows = kept


def load_domain(
    domain: str,
    source: DatasetSpec | hf.Dataset,
    check_row: Callable[[Row], None] = lambda row: None,
    keep: Collection[str] = (),
) -> DomainRows:
    """Read a domain's dataset and bring it to our form.

    Args:
        domain: the domain's name, which every row gets.
        source: where the data is, or a `datasets.Dataset`.
        check_row: raises ValueError for a row that the domain's verifiers cannot score.
        keep: columns taken over as they are, if the data has them and its schema makes none of that name.

    Raises:
        ValueError: an unreadable file (with the line), columns of no known schema, a bad row, no rows.
        DataUnreachable: a hub dataset from which no answer came.
    """
    spec = source if isinstance(source, DatasetSpec) else DatasetSpec(path="the given dataset")
    where = f"domain {domain!r}, dataset {spec.path!r}"
    raw = read_rows(spec) if isinstance(source, DatasetSpec) else source.to_list()
    if not (raw := raw[: spec.limit]):
        raise ValueError(f"{where} has no rows, but every domain needs at least 1.")
    raw = _renamed(raw, spec.columns, where)
    try:
        schema = find_schema(spec.schema, {name for row in raw[:100] for name in row})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    rows, invalid = [], 0
    for number, theirs in enumerate(raw, 1):
        try:
            kept = {name: theirs[name] for name in keep if name in theirs}
            row = {**kept, **schema.convert(theirs), "domain": domain}
            check_row(row)
        except ValueError as error:
            if spec.invalid_rows == "error":
                raise ValueError(f"{where}, row {number}: {error}") from None
            invalid += 1
            logger.debug("%s, row %d dropped: %s", where, number, error)
            continue
        rows.append(row)
    if not rows:
        raise ValueError(f"{where}: none of its {len(raw)} rows can be scored; invalid_rows: error names the first.")
    if invalid:
        logger.warning("domain %s: %d of %d rows dropped: not scorable by its verifier", domain, invalid, len(raw))
    return DomainRows(domain, schema.name, rows, {"not scorable by its verifier": invalid} if invalid else {})


def read_rows(spec: DatasetSpec) -> list[Row]:
    """The rows of a local file, of a directory saved by `datasets`, or of a hub dataset.

    Raises:
        ValueError: a missing or unreadable file (the message names the file and the line), or a split that it lacks.
        DataUnreachable: a hub dataset from which no answer came.
    """
    path = Path(spec.path).expanduser()
    if path.is_dir():
        return _saved(path, spec.split)
    if path.suffix not in DATA_FILES:
        if path.exists() or is_local(spec.path):
            what = "a file of another kind" if path.exists() else "a path at which there is nothing"
            raise ValueError(
                f"dataset {spec.path!r} is {what}, but it must be a file ({', '.join(DATA_FILES)}), a directory saved "
                "by datasets, or a hub id."
            )
        return _hub(spec).to_list()
    if not path.is_file():
        raise ValueError(f"dataset file {spec.path!r} does not exist.")
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    try:
        rows = readers[path.suffix](path)
    except OSError as error:
        raise ValueError(f"dataset file {spec.path!r} cannot be read: {error.strerror or error}.") from None
    # A file has one split, which `datasets` calls train.
    return [row for _, part in _parts(path, spec.split, {"train": len(rows)}) for row in rows[part]]


def combine(parts: Sequence[DomainRows]) -> hf.Dataset:
    """One dataset of all domains' rows; a column that a domain lacks is None in its rows.

    Raises:
        ValueError: a column whose values are of different types in different rows or domains, or a value of no type of
            Arrow's, such as half a surrogate pair.
    """
    others = {name for part in parts for name in part.columns} - {"prompt", "domain"}
    names = ["prompt", "domain", *sorted(others)]
    rows = [row for part in parts for row in part.rows]
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = hf.Dataset.from_dict({name: values})
        except (OverflowError, TypeError, ValueError) as error:  # Arrow's errors are the last two
            owners = [part.domain for part in parts if name in part.columns]
            raise ValueError(
                f"column {name!r} (domains {', '.join(owners)}) holds values of different types, or one that no table "
                f"holds: {str(error).splitlines()[0]}."
            ) from None
    return hf.concatenate_datasets(list(columns.values()), axis=1)


def _renamed(rows: Sequence[Row], columns: Mapping[str, str], where: str) -> list[Row]:
    """The rows under our names; what a row lacks that others have is None in it, as in `combine`."""
    present = dict.fromkeys(name for row in rows for name in row)
    for ours, theirs in columns.items():
        if theirs not in present:
            raise ValueError(
                f"{where}: columns maps {ours!r} to {theirs!r}, but the columns are {sorted(present)}."
                + did_you_mean(theirs, present)
            )
    gone = set(columns.values()) - set(columns)
    return [
        {name: value for name, value in row.items() if name not in gone}
        | {ours: row.get(theirs) for ours, theirs in columns.items()}
        for row in rows
    ]


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}).") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a row must be a JSON object, not {type(row).__name__}.")
        rows.append(row)
    return rows


def _read_json(path: Path) -> list[Row]:
    text = "".join(_lines(path))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a `.json` with one object per line is common
            return _read_jsonl(path)
        raise ValueError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno})."
        ) from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}, line 1: the file must hold a list of rows, not {type(rows).__name__}.")
    for index, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {index}: a row must be a JSON object, not {type(row).__name__}.")
    return rows


def _read_csv(path: Path) -> list[Row]:
    csv.field_size_limit(sys.maxsize)  # for the whole process; a prompt may be longer than its 128 KiB
    reader = csv.reader(_lines(path), strict=True)
    try:
        header = next(reader, [])
        if twice := [name for name, count in Counter(header).items() if count > 1]:
            raise ValueError(f"{path}, line 1: the header names the column {twice[0]!r} twice.")
        rows = []
        for values in reader:
            if not values:  # an empty line, as in JSONL
                continue
            if len(values) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(values)} fields, but the header has {len(header)}."
                )
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error}).") from None
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).") from None


def _lines(path: Path) -> Iterable[str]:
    """Lines of a UTF-8 file, line ends kept; a byte order mark is skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 text (byte {error.start + 1}).") from None


def _parts(path: Path, split: str, lengths: Mapping[str, int]) -> list[tuple[str, slice]]:
    """What a split in the grammar of `datasets`, such as `train[:10%]+test`, takes of the splits that there are."""
    try:
        parts = hf.ReadInstruction.from_spec(split).to_absolute(dict(lengths))
    except (ValueError, AssertionError):
        raise ValueError(
            f"dataset {str(path)!r} has no split {split!r}; it has {', '.join(lengths)}, or parts of it as in "
            f"{min(lengths)}[:100]."
        ) from None
    return [(part.splitname, slice(part.from_, part.to)) for part in parts]


def _saved(path: Path, split: str) -> list[Row]:
    try:
        data = hf.load_from_disk(str(path))
    except (FileNotFoundError, ValueError):
        raise ValueError(
            f"dataset {str(path)!r} is a directory, but not one saved by datasets' save_to_disk; "
            f"name a file ({', '.join(DATA_FILES)})."
        ) from None
    own_name = str(getattr(data, "split", None) or "train")
    splits = data if isinstance(data, hf.DatasetDict) else {"train": data, own_name: data}
    parts = _parts(path, split, {str(name): len(rows) for name, rows in splits.items()})
    return [row for name, part in parts for row in splits[name].select([*range(len(splits[name]))[part]]).to_list()]


def _hub(spec: DatasetSpec) -> hf.Dataset:
    """A hub dataset; nothing but data is loaded (`datasets` runs no dataset scripts)."""
    try:
        data = hf.load_dataset(
            spec.path, spec.name, split=spec.split, revision=spec.revision, data_files=spec.data_files
        )
    except DatasetNotFoundError:
        raise ValueError(f"dataset {spec.path!r} is neither a file ({', '.join(DATA_FILES)}) nor on the hub.") from None
    except ConnectionError as error:
        raise DataUnreachable(f"dataset {spec.path!r}: the hub is not reachable from here ({error}).") from None
    except (ValueError, OSError, DatasetsError) as error:
        what = f", split {spec.split!r}," + (f" data_files {spec.data_files!r}," if spec.data_files else "")
        raise ValueError(f"dataset {spec.path!r}{what} cannot be loaded: {str(error).splitlines()[0]}") from None
    assert isinstance(data, hf.Dataset)
    return data
