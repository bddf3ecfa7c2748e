# A fresh machine needs python3 (3.11 or newer, with venv) and make. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9

.PHONY: setup run run-control run-one-to-many run-data test test-interfaces test-slow test-oracles lint exactness docs bench costs mutants clean

setup: .venv/.done

.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "onward needs Python 3.11 or newer, this is %d.%d; say make PYTHON=..." % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python -r requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --editable .
	@touch $@

# The main job: trace patterning and sequential digits at their default size, in about three minutes.
run: setup
	$(BIN)/onward run trace-patterning --out runs/trace-patterning --replace
	$(BIN)/onward run sequential-digits --out runs/sequential-digits --replace

# A network that balances a pole without seeing how fast it falls: some two minutes.
run-control: setup
	$(BIN)/onward run cartpole-in-the-dark --methods elstm memoryless --seeds 8 --steps 300000 --out runs/cartpole --replace

# The second paper's experiments at a size that ends within two minutes each.
run-one-to-many: setup
	$(BIN)/onward run one-to-many-mixture --lengths 5 30 --methods gru-bptt gru-tptt gru-memory --iterations 1000 --seeds 3 --out runs/one-to-many-mixture --replace
	$(BIN)/onward run one-to-many-classes --lengths 2 20 --methods gru-bptt gru-tptt --iterations 600 --seeds 2 --out runs/one-to-many-classes --replace

# Real data, or what is embedded where none is installed: about two minutes each.
run-data: setup
	$(BIN)/onward run sequential-mnist --out runs/sequential-mnist --replace
	$(BIN)/onward run piano --out runs/piano --replace

test: lint
	$(BIN)/python -m pytest -n 2 -q

# The check suites of River and scikit-learn, examples of pages, and whole commands from start to report.
test-interfaces: setup
	$(BIN)/python -m pytest -n 2 -q -m 'interfaces and not slow'

test-slow: setup
	$(BIN)/python -m pytest -q -m 'slow or experiment'

# Against PyTorch's autograd, braintrace, swifttd and popgym, and cells as PyTorch's modules, with their page: in an environment of their
# own with the locked versions of everything else.
test-oracles: .oracles/.done
	.oracles/bin/python -m pytest -q -p no:cacheprovider -m 'not slow' tests/oracles tests/adapters/test_online_cell.py \
	  src/onward/adapters/torch.py 'tests/test_site.py::test_examples_of_a_page_run_and_print_what_it_says[torch]'

.oracles/.done: requirements.lock pyproject.toml
	test -x .oracles/bin/python || $(PYTHON) -m venv .oracles
	sed -n 's/^\([A-Za-z0-9].*\) \\$$/\1/p' requirements.lock > .oracles/constraints.txt
	.oracles/bin/python -m pip install --quiet --upgrade pip
	.oracles/bin/python -m pip install --quiet -c .oracles/constraints.txt --editable . pytest --group oracles
	@touch $@

# Every rule against BPTT and finite differences, and its cost: writes docs/exactness.md (about four minutes on one core).
exactness: setup
	$(BIN)/onward verify --markdown > docs/.exactness.md && mv docs/.exactness.md docs/exactness.md

# The documentation site, without network: docs/_build/index.html. It executes the notebooks of the gallery (some minutes the first time). Drawings: python docs/_draw.py.
docs: setup
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Speed, every row with its contestant in the same run: about twenty-five minutes. PyTorch comes from the
# environment of the oracles, hand-written AVX-512 from benchmarks/ccn_lanes.cpp (needs g++ and such a CPU; else left out),
# memorax from a folder of its repository (make bench MEMORAX=FOLDER; else left out).
bench: setup .oracles/.done
	$(BIN)/python benchmarks/columns.py
	$(BIN)/python benchmarks/kinds.py
	$(if $(MEMORAX),.oracles/bin/python benchmarks/peer_rtu.py $(MEMORAX))
	$(BIN)/python benchmarks/rules.py
	.oracles/bin/python benchmarks/targets.py
	.oracles/bin/python benchmarks/data.py
	.oracles/bin/python benchmarks/agents.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/rivers.py
	$(BIN)/python benchmarks/rows.py
	$(BIN)/python benchmarks/acting.py
	$(BIN)/python benchmarks/devices.py

# How cost grows, fitted: the tables and the figure of docs/costs.md (about eight minutes on one core).
costs: setup
	$(BIN)/python benchmarks/exponents.py --markdown --figure docs/figures/costs.png

# Small faults planted one at a time: which do the tests notice? Nightly, hours; it goes on where it was stopped, and
# `make mutants MUTANTS="--sample 40 loop.py"` takes more of one module (docs/developer/mutants.md).
MUTANTS ?=
mutants: setup .mutants/.done
	.mutants/bin/python benchmarks/mutants.py --processes 2 $(MUTANTS)

.mutants/.done: pyproject.toml
	test -x .mutants/bin/python || $(PYTHON) -m venv .mutants
	.mutants/bin/python -m pip install --quiet --upgrade pip
	.mutants/bin/python -m pip install --quiet --group mutants
	@touch $@

clean:
	rm -rf .venv .oracles .mutants runs dist docs/_build docs/jupyter_execute .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
