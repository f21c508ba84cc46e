"""Numbers in the report equal those in the logs: the embedded data against NumPy on the JSONL files."""

import base64
import json

import numpy as np
import pytest
import torch

from mgs_trl.report import write_report
from mgs_trl.report.conflicts import read_conflicts
from mgs_trl.surgery import ConflictReport

from .logs import DOMAINS, embedded, write_run

PAIRS = [(0, 1), (0, 2), (1, 2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Directory, lines, embedded data; one step lacks the chat domain, as a window without its rows leaves it."""
    directory = write_run(tmp_path_factory.mktemp("numbers") / "run")
    lines = [json.loads(line) for line in (directory / "conflicts.jsonl").read_text().splitlines()]
    gramian = np.array(lines[7]["gramian"])
    gramian[:, 0, :] = gramian[:, :, 0] = 0
    lines[7]["gramian"] = gramian.tolist()
    (directory / "conflicts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report([directory], directory / "report.html")
    return directory, lines, embedded(directory / "report.html")["runs"][0]


def chart(run, group, title):
    return {s["label"]: s for c in run["charts"][group] if c["title"] == title for s in c["series"]}


def test_training_charts_are_the_logged_metrics(run):
    directory, _, data = run
    logged = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    titles = {"Reward": "reward", "Entropy": "entropy", "Length": "mean_length", "Gradient norm": "grad_norm"}
    for title, metric in titles.items():
        shown = chart(data, "training", title)
        assert set(shown) == set(DOMAINS)
        for domain, series in shown.items():
            key = f"domain/{domain}/{metric}"
            expected = [(line["step"], line[key]) for line in logged if key in line]
            assert series["steps"] == [step for step, _ in expected]
            assert series["values"] == pytest.approx([value for _, value in expected], rel=1e-6)
    held_out = chart(data, "training", "Held-out reward")["math"]
    expected = [line["eval_domain/math/reward"] for line in logged if "eval_domain/math/reward" in line]
    assert held_out["values"] == pytest.approx(expected, rel=1e-6)


def test_conflict_and_surgery_charts_are_what_the_trackers_get(run):
    """Against ConflictReport.metrics, which the trainer logs."""
    _, lines, data = run
    cosine, share = chart(data, "conflict", "Cosine"), chart(data, "conflict", "Modules in conflict")
    ratio, weight = chart(data, "conflict", "Norm ratio"), chart(data, "surgery", "Weights")
    removed = chart(data, "surgery", "Removed by surgery")["change"]
    for i, line in enumerate(lines):
        metrics = ConflictReport(
            line["step"], tuple(line["domains"]), tuple(line["modules"]), tuple(line["kinds"]),
            torch.tensor(line["gramian"], dtype=torch.float64), torch.tensor(line["weights"], dtype=torch.float64),
        ).metrics()  # fmt: skip
        assert removed["values"][i] == pytest.approx(metrics["surgery/removed"], rel=1e-6)
        for a, b in PAIRS:
            pair = f"{DOMAINS[a]}~{DOMAINS[b]}"
            if i == 7 and a == 0:
                assert cosine[pair]["values"][i] is ratio[pair]["values"][i] is None
                continue
            assert cosine[pair]["values"][i] == pytest.approx(metrics[f"conflict/{pair}/cosine"], rel=1e-6)
            assert share[pair]["values"][i] == pytest.approx(metrics[f"conflict/{pair}/share"], rel=1e-6)
            norms = [metrics[f"domain/{DOMAINS[d]}/grad_norm"] for d in (a, b)]
            assert ratio[pair]["values"][i] == pytest.approx(norms[0] / norms[1], rel=1e-6)
        for d, name in enumerate(DOMAINS):
            expected = None if i == 7 and d == 0 else metrics[f"surgery/weight/{name}"]
            assert weight[name]["values"][i] == (expected and pytest.approx(expected, rel=1e-6))


def test_means_and_standard_errors_of_every_module_kind_and_pair(run):
    _, lines, data = run
    gramian = np.array([line["gramian"] for line in lines])
    kinds = np.array(lines[0]["kinds"])
    rows = {name: gramian[:, m] for m, name in enumerate(lines[0]["modules"])}
    rows |= {f"kind:{kind}": gramian[:, kinds == kind].sum(1) for kind in kinds}
    rows["whole model"] = gramian.sum(1)
    assert len(data["means"]) == len(rows) * len(PAIRS)
    for entry in data["means"]:
        a, b = (DOMAINS.index(name) for name in entry["pair"].split("~"))
        kept = [i for i in range(len(lines)) if not (i == 7 and a == 0)]
        g = rows[entry["row"]][kept]
        inner = g[:, a, b]
        cosine = inner / np.sqrt(g[:, a, a] * g[:, b, b])
        assert entry["steps"] == len(kept)
        assert entry["inner"] == pytest.approx(inner.mean(), rel=1e-6, abs=1e-9)
        assert entry["cosine"] == pytest.approx(cosine.mean(), rel=1e-6, abs=1e-9)
        assert entry["negative"] == pytest.approx((inner < 0).mean())
        for name, x in (("inner_error", inner), ("cosine_error", cosine)):
            deviation = x - x.mean()
            # Steps 7 and 9 are no neighbours where step 8 is left out.
            joined = [i for i in range(1, len(kept)) if kept[i] == kept[i - 1] + 1]
            correlation = sum(deviation[i] * deviation[i - 1] for i in joined) / (deviation**2).sum()
            correlation = min(max(correlation, 0), 0.99)
            expected = x.std(ddof=1) / np.sqrt(len(x)) * np.sqrt((1 + correlation) / (1 - correlation))
            assert entry[name] == pytest.approx(expected, rel=1e-5)


def test_heat_map_holds_every_cosine(run):
    _, lines, data = run
    heat = data["heat"]
    gramian = np.array([line["gramian"] for line in lines])
    assert heat["columns"] == [[line["step"]] * 2 for line in lines]
    for (a, b), text in zip(PAIRS, heat["cosines"], strict=True):
        shown = np.frombuffer(base64.b64decode(text), "<i2").reshape(len(heat["modules"]), len(lines)).T
        for i in range(len(lines)):
            if i == 7 and a == 0:
                assert (shown[i] == -32768).all()
                continue
            g = gramian[i]
            np.testing.assert_allclose(shown[i] / 32767, g[:, a, b] / np.sqrt(g[:, a, a] * g[:, b, b]), atol=2e-5)


def test_weights_beside_the_constant_weighting(run):
    """Least squares on all steps and modules at once."""
    directory, lines, _ = run
    conflicts = read_conflicts(directory / "conflicts.jsonl")
    assert conflicts is not None
    gramian, weights = (np.array([line[key] for line in lines]) for key in ("gramian", "weights"))
    squares = np.einsum("smdd->smd", gramian)
    share = squares / squares.sum((0, 1))
    moved = np.where(squares.sum(1, keepdims=True) > 0, weights - 1, 0)
    constant = np.array(
        [
            np.linalg.lstsq(s[:, None], s * w, rcond=None)[0][0]
            for s, w in ((np.sqrt(squares[..., d]).ravel(), weights[..., d].ravel()) for d in range(len(DOMAINS)))
        ]
    )
    np.testing.assert_allclose(conflicts.weights.constant(), constant, rtol=1e-12)

    departure = (share * moved**2).sum()
    residual = (share * (weights - constant) ** 2).sum()
    everything = np.ones((1, weights.shape[1]))
    assert conflicts.weights.explained(everything) == pytest.approx(1 - residual / departure)
    kinds = np.array(lines[0]["kinds"])
    residual = 0.0
    for kind in set(kinds):
        s, w = share[:, kinds == kind], weights[:, kinds == kind]
        residual += (s * (w - (s * w).sum((0, 1)) / s.sum((0, 1))) ** 2).sum()
    membership = np.array([kinds == kind for kind in conflicts.kind_names], dtype=float)
    assert conflicts.weights.explained(membership) == pytest.approx(1 - residual / departure)

    # The change of the update, sum_d (w - 1) g_d, against sum_d c_d g_d, in coordinates that have these Gramians.
    values, vectors = np.linalg.eigh(gramian)
    gradients = np.sqrt(np.maximum(values, 0))[..., None] * np.swapaxes(vectors, -1, -2)  # [s, m, x, d]
    target = np.einsum("smxd,smd->smx", gradients, moved).ravel()
    design = gradients.reshape(-1, len(DOMAINS))
    best, *_ = np.linalg.lstsq(design, target, rcond=None)
    expected = 1 - ((target - design @ best) ** 2).sum() / (target**2).sum()
    assert conflicts.weights.explained_update() == pytest.approx(expected)


def test_texts_hold_the_same_numbers(run):
    directory, lines, data = run
    text = (directory / "report.html").read_text()
    whole = next(m for m in data["means"] if m["row"] == "whole model")
    errors = whole["inner"] / whole["inner_error"]
    assert errors < -2, "the log was made with a conflict of these two"
    assert f"{abs(errors):.1f} standard errors below zero" in text
    assert f"cosine −{abs(whole['cosine']):.3f} ± {whole['cosine_error']:.2g}" in text
    modules = lines[0]["modules"]
    found = [m for m in data["means"] if m["row"] in modules and m["inner"] < -2 * m["inner_error"]]
    assert f"Of {3 * len(modules)} module-and-pair means, {len(found)} lie more than 2 standard errors below" in text
