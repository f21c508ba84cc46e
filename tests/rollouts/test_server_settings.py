"""What `rollout: server` refuses before a model is loaded, and how a server is started."""

import importlib
import socket
import time
import tomllib
from pathlib import Path

import pytest

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.arguments import build_config
from mgs_trl.recipe import load_recipe, parse_recipe, recipe_yaml
from mgs_trl.rollouts.errors import ServerError
from mgs_trl.rollouts.settings import ServerSettings
from mgs_trl.serve import serve_command
from tests.support.rollouts import prompts, reward

DOMAINS = {"math": {"dataset": "a.jsonl", "verifier": "math"}}


def recipe(**server):
    return {"model": "m", "domains": DOMAINS, "rollout": "server", "server": {"urls": ["http://a:8000"], **server}}


@pytest.mark.parametrize(
    "server, sentence",
    [
        ({"urls": []}, "server.urls is empty"),
        ({"urls": ["a:8000"]}, "server.urls has 'a:8000', but a URL must be like"),
        ({"urls": ["http://a:1", "http://a:1"]}, "no URL may come twice"),
        ({"urls": ["http://a:1", "http://a:1/"]}, "no URL may come twice"),
        ({"transfer": "gloo"}, "server.transfer is 'gloo', but it must be one of auto, nccl, directory"),
        ({"timeout": 0}, "server.timeout is 0"),
        ({"sync_timeout": -1.0}, r"server.sync_timeout is -1"),
        ({"transfer": "nccl", "urls": ["http://a:1", "http://b:1"]}, "it serves one URL only"),
        ({"transfer": "nccl", "weight_dir": "w"}, "uses no directory"),
        ({"url": "http://a:1"}, "unknown key 'url'|unknown key 'server.url'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(server, sentence):
    values = recipe(**server)
    with pytest.raises(ValueError, match=sentence) as from_recipe:
        parse_recipe(values)
    assert "\n" not in str(from_recipe.value)
    with pytest.raises(ValueError, match=sentence):
        ServerSettings.parse(values["server"])


def test_one_url_is_a_list_too():
    with pytest.raises(ValueError, match=r"server\.urls is .http://a:1., but it must be a list of URLs"):
        ServerSettings.parse({"urls": "http://a:1"})


def test_rollout_and_server_go_together():
    with pytest.raises(ValueError, match="rollout is 'server' without the key server"):
        parse_recipe({"model": "m", "domains": DOMAINS, "rollout": "server"})
    with pytest.raises(ValueError, match="rollout is 'vllm' with the key server"):
        parse_recipe({**recipe(), "rollout": "vllm"})


def test_recipe_sets_the_config(tmp_path):
    pytest.importorskip("vllm")
    path = tmp_path / "r.yaml"
    path.write_text(recipe_yaml(parse_recipe(recipe(timeout=7))))
    loaded = load_recipe(path, ["trainer.use_cpu=true", "trainer.bf16=false", "server.sync_timeout=9"])
    config = build_config(loaded)
    assert config.use_vllm and config.vllm_mode == "server"
    settings = ServerSettings.parse(config.server)
    assert (settings.urls, settings.timeout, settings.sync_timeout) == (["http://a:8000"], 7, 9)


def test_transfer_follows_the_device_unless_it_is_named():
    one, two = ["http://a:1"], ["http://a:1", "http://b:1"]
    assert ServerSettings(one).by_directory(on_cuda=False)
    assert not ServerSettings(one).by_directory(on_cuda=True)
    assert ServerSettings(two).by_directory(on_cuda=True)
    assert ServerSettings(one, weight_dir="w").by_directory(on_cuda=True)
    assert ServerSettings(one, transfer="directory").by_directory(on_cuda=True)
    with pytest.raises(ValueError, match="not on CUDA"):
        ServerSettings(one, transfer="nccl").by_directory(on_cuda=False)


def test_unreachable_server_stops_the_run_before_a_model_is_loaded(tmp_path):
    pytest.importorskip("vllm")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    args = MGSConfig(
        output_dir=str(tmp_path), use_vllm=True, use_cpu=True, bf16=False, report_to=[],
        server={"urls": [url], "timeout": 1.5}, per_device_train_batch_size=4, num_generations=4,
        gradient_accumulation_steps=3,
    )  # fmt: skip
    started = time.monotonic()
    with pytest.raises(ServerError) as refused:
        MGSTrainer("no/such-model", reward, args, prompts(10))  # a model that is not there would be another error
    assert str(refused.value) == (
        f"no vLLM server answered at {url} within 1.5 seconds (server.timeout); is it running?"
    )
    assert time.monotonic() - started >= 1.5  # it did wait


def test_server_command_leaves_vllms_options_alone():
    command, environment = serve_command(["m", "--weight-dir", "w", "--port", "8001", "--dtype", "float32"])
    assert command[-4:] == ["--port", "8001", "--dtype", "float32"]
    assert command[command.index("--model") + 1] == "m"
    assert environment == {"VLLM_SERVER_DEV_MODE": "1", "MGS_WEIGHT_DIR": str(Path("w").absolute())}


@pytest.mark.parametrize("argv", [["--port", "8001", "m"], ["--weight-dir", "w", "m"]])
def test_server_command_wants_the_model_first(argv, capsys):
    """Of an option that is vLLM's own, argparse would take the value for the model."""
    with pytest.raises(SystemExit, match="2"):
        serve_command(argv)
    assert f"the model must be the first argument, but that is {argv[0]!r}" in capsys.readouterr().err


def test_entry_point_makes_the_transfer_known_to_vllm():
    factory = pytest.importorskip("vllm.distributed.weight_transfer").WeightTransferEngineFactory
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, function = project["entry-points"]["vllm.general_plugins"]["mgs_trl"].split(":")
    register = getattr(importlib.import_module(module), function)
    register()
    register()  # vLLM calls it in several places
    assert "mgs_directory" in factory._registry
