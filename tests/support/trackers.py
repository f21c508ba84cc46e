"""Reading what trackers have written, each with its own reader or from its own files."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path


def tensorboard_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """By tag the value at each step, read with TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for path in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({e.step: e.value for e in events.Scalars(tag)})
    return found


def wandb_runs(folder: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Of each offline run below `folder`, by its name: by tag the value at each step. They must have been finished."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[str, dict[int, float]]] = {}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        records: list[Record] = []
        while not any(record.HasField("exit") for record in records):  # wandb's own process writes on for a moment
            records = [Record.FromString(data) for data in leveldb_records(path.read_bytes())]
        (name,) = {record.run.display_name for record in records if record.HasField("run")}
        assert name not in found, f"two runs are called {name}"
        scalars = found[name] = {}
        for items in (record.history.item for record in records):
            entry = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            for tag, value in entry.items():
                scalars.setdefault(tag, {})[entry["train/global_step"]] = value
    return found


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format, in which wandb keeps a run, behind a header of seven bytes."""
    place, record = 7, b""
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:  # a record's header is never split between blocks
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
