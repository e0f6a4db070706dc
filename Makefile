# make quickstart   set up .venv, make data and starter model, train GCPO on 2 processes, export, evaluate
# make test         the same, then the whole test suite
# make install      only the set-up
# make sglang-cpu   SGLang's own environment for the CPU, in .venv-sglang
# make test-sglang  the tests with real SGLang servers
# make test-python  the suite with another Python: make test-python PYTHON=python3.12 [MEGATRON=0.18.2] [TESTS=tests/actor]
# make test-faults  the fault matrix and a long run, into docs/reliability.md
# make reproduce    the quick start's figures beside the published ones
# make docs         the pages as a site, in site/
# make bench        speed beside TRL and transformers, into bench/results/ and docs/performance.md
PYTHON ?= python3
PROCESSES ?= 2
VENV := .venv
RUN := runs/gcpo-carry-seed0
EXPORT := exports/quickstart
STARTER := prepared/carry-seed0/starter
TORCHRUN := $(VENV)/bin/torchrun --standalone --nproc-per-node $(PROCESSES)
# One thread a process: two processes on two cores, and results that do not depend on the machine's core count.
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
# Nothing here is fetched from a model hub.
export HF_HUB_OFFLINE := 1

# Both are for the CPU: on a machine with fewer GPUs than processes there is none for each of them.
quickstart reproduce test test-sglang test-python test-faults: export CUDA_VISIBLE_DEVICES :=

.PHONY: install quickstart reproduce test sglang-cpu test-sglang test-python test-faults lint docs bench wheel clean

install: $(VENV)/.installed

# torch first and pinned: left to the dependencies, pip would take the newest build with its CUDA packages.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) || { echo "python venv is missing: on Debian, apt-get install python3-venv"; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	touch $@

quickstart: install
	$(VENV)/bin/python tools/prepare.py --processes $(PROCESSES)
	$(TORCHRUN) tools/train.py algorithm=gcpo
	test -d $(EXPORT) || $(VENV)/bin/python tools/convert.py to-hf $(RUN) $(EXPORT)
	$(VENV)/bin/python tools/evaluate.py model.path=$(EXPORT) evaluation.beside=[$(STARTER)]

reproduce: quickstart
	$(VENV)/bin/python bench/reproduce.py $(RUN)

test: quickstart
	$(VENV)/bin/python -m pytest -n $(PROCESSES) --dist loadfile

sglang-cpu: .venv-sglang/.installed

.venv-sglang/.installed: sglang-cpu.txt tools/sglang_cpu.sh
	tools/sglang_cpu.sh .venv-sglang $(PYTHON)

test-sglang: install sglang-cpu
	$(VENV)/bin/python tools/prepare.py --processes $(PROCESSES)
	$(VENV)/bin/python -m pytest -m sglang

# In an environment of its own, with the newest megatron-core that this Python gets (MEGATRON= takes another).
# constraints.txt is for Python 3.11: all but the one version that differs holds for later ones too.
OTHER := .venv-$(notdir $(PYTHON))$(MEGATRON:%=-megatron-%)
TESTS ?= tests
test-python:
	$(PYTHON) -m venv $(OTHER)
	grep -v "^megatron-core==" constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/pip install --quiet --disable-pip-version-check -e ".[dev]" $(MEGATRON:%=megatron-core==%) -c $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pytest -n $(PROCESSES) --dist loadfile $(TESTS)

# Apart from the suite: it takes a quarter to half an hour.
test-faults: install
	$(VENV)/bin/python -m tests.faults --parallel $(PROCESSES) --write docs/reliability.md
	$(VENV)/bin/python -m tests.faults.soak

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/python tests/docs_commands.py

# Strictly: a link, a heading or a page that is not there is an error. The suite does it too (tests/package/test_site.py).
docs: install
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --site-dir site

# Ratios in one run; TRL, what we are measured against, is installed for it.
bench: install
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[bench]" -c constraints.txt
	$(VENV)/bin/python bench/versus_trl.py --rounds 2 --out bench/results/versus_trl.json
	$(VENV)/bin/python bench/decode.py --out bench/results/decode_cpu.json
	$(VENV)/bin/python bench/update.py --out bench/results/update_cpu.json
	$(VENV)/bin/python bench/step_share.py --out bench/results/step_share.json
	$(VENV)/bin/python bench/scaling.py --out bench/results/scaling_cpu.json
	$(VENV)/bin/python bench/performance_page.py

wheel: install
	rm -rf build dist
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf runs prepared exports site
