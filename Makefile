# latent_summ: every target creates .venv on first use, from constraints.txt.
#   PYTHON=/path/to/python3.11   choose the interpreter      PIP_FLAGS='...'   extra options for pip
#   ARGS='...'                   options for the command that a target runs, for instance make demo ARGS='--seed 2'

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS  ?=
CODE  := latent_summ tests setup.py .ci/pages.py $(wildcard benchmarks) nbs

export PYTHON
export PIP_FLAGS

.DEFAULT_GOAL := help
.PHONY: help setup demo test promises soak fuzz lint docs axe bench readme export clean distclean

help:  ## show this list
	@echo 'make demo     the full pipeline on a CPU: cache, four training stages, checkpoint, summaries with scores (runs/demo/)'
	@echo 'make test     every notebook and every test'
	@echo 'make promises the tests that attack each guarantee, and a table of the results'
	@echo 'make soak     training of the preset mini under faults (MINUTES=30)'
	@echo 'make fuzz     broken files of every kind that is read (INPUTS=100000)'
	@echo 'make lint     ruff; clean notebooks; modules, README and tiers that match the notebooks'
	@echo 'make docs     the website, in _docs/'
	@echo 'make axe      axe-core on every page of the website; needs a Chromium (CHROMIUM=/usr/bin/chromium)'
	@echo 'make bench    the scripts in benchmarks/'
	@echo 'make readme   README.md from nbs/index.ipynb'
	@echo 'make export   clean the notebooks and export the package from them'
	@echo 'make clean    remove the output of docs, tests and builds (make distclean: .venv too)'
	@echo 'Each creates .venv on first use. PYTHON=/path/to/python3.11 chooses the interpreter, PIP_FLAGS=... adds options'
	@echo 'for pip (for instance an index of CPU-only torch wheels, which are far smaller), ARGS=... for the command itself.'

$(STAMP): settings.ini constraints.txt setup.py
	@rm -f $@
	@.ci/setup-venv
	@touch $@

setup: $(STAMP)  ## only the environment

demo: $(STAMP)
	@$(BIN)/latent_summ demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python tests/run_all.py $(ARGS)

promises: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/promises/table.py $(ARGS)

MINUTES ?= 30
soak: $(STAMP)
	@OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python tests/soak.py --minutes $(MINUTES) --out benchmarks/results/soak.json $(ARGS)

INPUTS ?= 100000
fuzz: $(STAMP)
	@OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python tests/fuzz.py --inputs $(INPUTS) --out benchmarks/results/fuzz.json $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check --output-format concise $(CODE); style=$$?; \
	$(BIN)/python -m pytest -q --tb=short -p no:cacheprovider tests/test_repository.py $(ARGS) && exit $$style

# README.md is touched first: nbdev_docs would otherwise write it anew with Quarto when it looks older than its notebook.
docs: $(STAMP)
	@if command -v quarto >/dev/null 2>&1; then \
	  touch README.md && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_docs; \
	else \
	  $(BIN)/python .ci/pages.py html; \
	fi

CHROMIUM ?= /usr/bin/chromium
axe: docs
	@$(BIN)/python -c 'import axe_playwright_python' 2>/dev/null || $(BIN)/python -m pip install -q $(PIP_FLAGS) axe-playwright-python==0.1.8
	@$(BIN)/python tests/axe.py --chromium $(CHROMIUM) --out benchmarks/results/axe.json $(ARGS)

bench: $(STAMP)
	@$(BIN)/python -c 'import sentence_transformers' 2>/dev/null || $(BIN)/python -m pip install -q $(PIP_FLAGS) -e '.[bench]' -c constraints.txt
	@if ls benchmarks/*.py >/dev/null 2>&1; then \
	  for script in benchmarks/*.py; do \
	    case $$script in */_*) continue;; esac; \
	    echo "== $$script"; $(BIN)/python $$script $(ARGS) || exit 1; \
	  done; \
	else \
	  echo 'There is nothing in benchmarks/ yet.'; \
	fi

readme: $(STAMP)
	@$(BIN)/python .ci/pages.py readme

export: $(STAMP)
	@$(BIN)/nbdev_clean && $(BIN)/nbdev_export

clean:
	rm -rf _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .hypothesis nbs/sidebar.yml
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
