"""Import directions, public names, and file sizes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mgs_trl"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules named by import statements anywhere in the file, `if TYPE_CHECKING` aside."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def third_party(path: Path) -> set[str]:
    names = {name.split(".")[0] for name in imports(path)}
    return names - set(sys.stdlib_module_names) - {"mgs_trl"}


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.startswith("mgs_trl")}


def in_package(name: str) -> list[Path]:
    return [path for path in FILES if module_of(path).startswith(f"mgs_trl.{name}")]


def test_surgery_knows_only_torch():
    for path in in_package("surgery"):
        assert third_party(path) <= ({"torch", "triton"} if path.name == "kernels.py" else {"torch"}), path
        assert all(name.startswith("mgs_trl.surgery") for name in ours(path)), path


def test_engines_know_torch_surgery_and_their_engine():
    for path in in_package("engines"):
        assert third_party(path) <= {"torch", "accelerate", "deepspeed"}, path
        if "deepspeed" in third_party(path):
            assert path.name.startswith("zero"), path
        assert all(name.startswith(("mgs_trl.engines", "mgs_trl.surgery")) for name in ours(path)), path


@pytest.mark.parametrize("package", ["surgery", "domains", "verifiers"])
def test_core_packages_do_not_import_each_other(package):
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    others = folders - {package, "policies"}  # a file of data may lie where a policy would
    for path in in_package(package):
        for name in ours(path):
            assert name.split(".")[1:2] not in [[other] for other in others], (path, name)


def test_nobody_imports_the_trainer_but_build_and_entry_points():
    allowed = {"mgs_trl", "mgs_trl.build", "mgs_trl.train", "mgs_trl.generate", "mgs_trl.runs.staged"}
    importers = {module_of(path) for path in FILES if "mgs_trl.trainer" in ours(path)}
    assert importers <= allowed


def test_no_two_files_import_each_other():
    """Through however many others; imports inside functions count."""
    names = {module_of(path): path for path in FILES if path.name != "__init__.py"}
    needs = {name: {other for other in ours(path) if other in names} for name, path in names.items()}
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, sorted(needs)


def test_no_utils_and_no_long_files():
    for path in FILES:
        assert "utils" not in path.name
        assert len(path.read_text().splitlines()) <= 400, path


def test_public_names():
    import mgs_trl
    import mgs_trl.surgery
    import mgs_trl.verifiers

    assert mgs_trl.__all__ == ["MGSConfig", "MGSTrainer"]
    assert callable(mgs_trl.MGSTrainer)
    assert {"resolve_conflicts", "ConflictReport", "partition"} <= set(mgs_trl.surgery.__all__)
    assert {"math_verifier", "ifeval_verifier", "RewardModelVerifier"} <= set(mgs_trl.verifiers.__all__)
    with pytest.raises(AttributeError):
        mgs_trl.nothing  # noqa: B018


def test_config_fields():
    from dataclasses import fields

    from trl import GRPOConfig

    from mgs_trl import MGSConfig
    from mgs_trl.surgery import GRANULARITIES, KINDS, method_names

    added = {f.name for f in fields(MGSConfig)} - {f.name for f in fields(GRPOConfig)}
    assert added == {
        "domain_column", "mixture", "domain_weights", "sampling",
        "surgery", "granularity", "balance", "gramian_ema", "surgery_exclude",
        "surgery_top_modules", "surgery_seed", "surgery_dtype", "surgery_offload", "conflict_log_steps",
            "server", "weight_check_syncs",
    }  # fmt: skip
    text = (PACKAGE.parent / "docs" / "config.md").read_text()
    assert not [name for name in (*sorted(added), *method_names(), *GRANULARITIES, *KINDS) if f"`{name}`" not in text]


def test_config_can_be_given_on_a_command_line_and_in_yaml(tmp_path):
    """As GRPOConfig can, by TRL's parser: mappings are JSON text there."""
    from trl import TrlParser

    from mgs_trl import MGSConfig

    parser = TrlParser((MGSConfig,))
    assert "--surgery_top_modules" in parser.format_help()
    common = ["--output_dir", str(tmp_path), "--bf16", "False", "--use_cpu"]
    given = ["--mixture", '{"math": 2, "chat": 1}', "--surgery_exclude", "norm", "head", "--gramian_ema", "0.9",
             "--domain_weights", '{"math": 0.5, "chat": 1}', "--sampling", '{"math": {"temperature": 0.6}}',
             "--server", '{"urls": ["http://localhost:8000"]}']  # fmt: skip
    [config] = parser.parse_args_and_config([*common, *given])
    assert config.mixture == {"math": 2, "chat": 1} and config.domain_weights == {"math": 0.5, "chat": 1}
    assert config.sampling == {"math": {"temperature": 0.6}} and config.surgery_exclude == ["norm", "head"]
    assert config.server == {"urls": ["http://localhost:8000"]} and config.use_vllm and config.vllm_mode == "server"
    for text, value in (("5", 5), ("1", 1), ("1.0", 1.0), ("0.1", 0.1)):
        [config] = parser.parse_args_and_config([*common, "--surgery_top_modules", text])
        assert config.surgery_top_modules == value and type(config.surgery_top_modules) is type(value)
    (tmp_path / "run.yaml").write_text("mixture: {math: 2, chat: 1}\nsurgery_top_modules: 3\nsurgery_exclude: [mlp]\n")
    [config] = parser.parse_args_and_config([*common, "--config", str(tmp_path / "run.yaml")])
    assert (config.mixture, config.surgery_top_modules) == ({"math": 2, "chat": 1}, 3)
    assert config.surgery_exclude == ["mlp"]


def test_trainer_takes_what_grpo_trainer_takes_by_position():
    import inspect

    from trl import GRPOTrainer

    from mgs_trl import MGSTrainer

    theirs = list(inspect.signature(GRPOTrainer.__init__).parameters)
    ours = list(inspect.signature(MGSTrainer.__init__).parameters)
    assert ours[:6] == theirs[:6] == ["self", "model", "reward_funcs", "args", "train_dataset", "eval_dataset"]
    assert ours[6:] == ["rest", "kwargs"]  # the rest goes to GRPOTrainer as it was given


@pytest.mark.parametrize("module", ["mgs_trl.surgery", "mgs_trl.verifiers", "mgs_trl.domains.schedule"])
def test_light_imports_stay_light(module):
    code = f"import {module}, sys; print('trl' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("verb", ["train", "generate", "score", "serve", "report", "study", "study.miniature"])
@pytest.mark.parametrize("option, exit_code", [("--help", 0), ("--foo", 2)])
def test_commands_parse_before_they_import_torch(verb, option, exit_code):
    """What is wrong with a command line is said at once."""
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print('torch:', 'torch' in sys.modules)); "
        "module, *sys.argv[1:] = sys.argv[1:]; runpy.run_module(module, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, f"mgs_trl.{verb}", option]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "usage: " in done.stdout + done.stderr
    assert done.returncode == exit_code
    assert done.stdout.endswith("torch: False\n")


def test_private_names_of_trl_that_the_trainer_overrides_still_exist():
    """TRL 1.16, transformers 5.17: a new version that moves one of them must fail here, not in a run."""
    import inspect

    from transformers import Trainer
    from trl import GRPOTrainer

    for name in (
        "_set_signature_columns_if_needed", "_get_train_sampler", "_calculate_rewards", "_prepare_inputs",
        "_generate_and_score_completions", "_get_per_token_logps_and_entropies", "_save_checkpoint",
        "_inner_training_loop", "_init_training_state", "_run_epoch",
        "_maybe_log_save_evaluate", "_finalize_training", "_generate", "_generate_single_turn",
        "training_step", "compute_loss", "log",
    ):  # fmt: skip
        assert callable(getattr(GRPOTrainer, name))
    source = inspect.getsource(GRPOTrainer)
    for attribute in (
        "_buffered_inputs",
        "_step",
        "_metrics",
        "_tokenizer",
        "eos_token_ids",
    ):
        assert f"self.{attribute} " in source or f"self.{attribute}[" in source, attribute
    assert "_set_sync_gradients" in inspect.getsource(Trainer)
