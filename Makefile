# The book's commands. Without make: the plain lines are in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000
# More options for JupyterLab: make lab LAB_ARGS=--no-browser
LAB_ARGS ?=
WORKERS ?= 2
# With how many seeds `make claims` runs each notebook on each set.
SEEDS ?= 5
# Which notebooks `make notebooks` executes: make notebooks NB=book/derive/the-symptom.ipynb
NB ?= $(sort $(wildcard book/*/*.ipynb))

# One thread per process: results do not depend on the number of cores, and workers do not fight.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
QUIET := TQDM_DISABLE=1 KERAS_BACKEND=torch

.PHONY: help book test check times serve lab notebooks claims repeat audit-public stamp calculator launch bench fuzz constraints licences clean

help:  ## list the targets
	@echo "Sum or Mean? Targets (the environment in $(VENV) is made on first use):"
	@sed -n 's/^\([a-z-]*\):.*##/  make \1:/p' $(MAKEFILE_LIST)

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Sum or Mean? needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.13" >&2; exit 1; }
	@echo "== setting up $(VENV) (once, a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# Always from nothing: Jupyter Book keeps pages that are gone, and it exits 0 when a page fails, so
# that every page of the table of contents is looked for afterwards.
book: $(STAMP)  ## build the site into _build/html; warnings are errors
	@echo "== building the book into _build/html"
	rm -rf _build/html _build/.doctrees _build/jupyter_execute
	$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	$(BIN)/python tools/site_check.py _build/html

test: $(STAMP)  ## everything: style, unit tests, every notebook executed and compared, the site
	@echo "== testing the library, every notebook and the site"
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(ONE_THREAD) $(QUIET) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: $(STAMP)  ## the fast ring: style, import arrows, unit tests (90 seconds)
	@echo "== style and unit tests; make test runs the notebooks and the site as well"
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(ONE_THREAD) $(QUIET) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q -r fE \
	  -m "not notebook and not site and not launch and not network" tests vaeloss sumormean

times: $(STAMP)  ## take the last test run over into the page of run times
	@echo "== data/run-times.json is what the page shows"
	$(BIN)/python tools/times.py

serve: book  ## build the site, then serve it on http://localhost:8000 (PORT=8000)
	@echo "== http://localhost:$(PORT)  (stop with Ctrl-C)"
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lab: $(STAMP)  ## open the notebooks in JupyterLab
	@echo "== opening JupyterLab in book/"
	KERAS_BACKEND=torch $(BIN)/jupyter lab $(LAB_ARGS) book

notebooks: $(STAMP)  ## execute the notebooks in place, all or NB=path; their outputs are what is committed
	@for notebook in $(NB); do \
	  echo "== executing $$notebook"; \
	  $(ONE_THREAD) $(QUIET) $(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace \
	    --ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.record_timing=False \
	    --ExecutePreprocessor.timeout=600 "$$notebook" && \
	  $(BIN)/jupyter nbconvert --log-level=WARN --to notebook --inplace --coalesce-streams "$$notebook" && \
	  $(BIN)/jupytext --quiet --update-metadata '{"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"version": null}}' "$$notebook" \
	  || exit 1; \
	done
	@echo "== the landing picture and the social card, from the first figure of the first chapter"
	$(BIN)/python tools/pictures.py

claims: $(STAMP)  ## every claim for five seeds (or SEEDS=1) and three data sets, and its margin (hours; one notebook: NB=path)
	@echo "== $(SEEDS) seeds on three sets of every notebook: data/claims.json"
	$(ONE_THREAD) $(QUIET) $(BIN)/python tools/claims.py --seeds $(SEEDS) $(NB)

repeat: $(STAMP)  ## run every notebook twice, and once with two threads, and compare (half an hour)
	@echo "== three runs of every notebook"
	$(ONE_THREAD) $(QUIET) $(BIN)/python tools/repeat.py

calculator: $(STAMP)  ## compute the calculator's thresholds again, after a change to a likelihood (a minute)
	@echo "== book/_static/calculator-data.js"
	$(BIN)/python tools/calculator_data.py

bench: $(STAMP)  ## measure what the book promises of speed, make test included, on an idle machine (15 minutes)
	@echo "== measuring into data/bench.json: two cores, a quarter of an hour, with nothing else running"
	$(QUIET) $(BIN)/python tools/bench.py

fuzz: $(STAMP)  ## 100,000 damaged files for the IDX reader, as many again if atheris is installed (minutes)
	@echo "== fuzzing sumormean.data.read_idx; tools/fuzz.py --help has the options"
	$(ONE_THREAD) $(BIN)/python tools/fuzz.py

audit-public: $(STAMP)  ## the auditor on public losses: packages, each in an environment of its own, and repositories (15 minutes)
	@echo "== data/public-audit.json: installs about a dozen packages below _build/audit-public"
	$(ONE_THREAD) $(QUIET) $(BIN)/python tools/audit_public/run.py
	$(ONE_THREAD) $(QUIET) $(BIN)/python tools/audit_public/functions.py _build/audit-public/snapshots

stamp: $(STAMP)  ## write this checkout's GitHub address into the notebooks, for Colab
	@$(BIN)/python tools/stamp.py

launch: $(STAMP)  ## run the notebooks, all or NB=path, as Binder does, and one as Colab does (minutes, 2 GB)
	@echo "== as Colab: a notebook alone, and the library from a git address"
	$(BIN)/python tools/launch.py colab book/derive/the-elbo.ipynb
	@echo "== as Binder: binder/ in an environment of its own, its server, and the peak memory"
	$(BIN)/python tools/launch.py binder $(NB)

# torch's wheel decides which nvidia packages it wants (none on a CPU wheel), so they are not pinned.
# Delete constraints.txt first to take the newest of everything. The weekly workflow's pip-audit is no
# part of the environment: its pins lie apart.
constraints: $(STAMP)  ## resolve requirements.txt again into constraints.txt
	@echo "== resolving for Linux, macOS and Windows, Python 3.11 and newer"
	grep -v '^-' requirements.txt \
	  | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --no-header --no-annotate -o constraints.txt
	$(BIN)/python tools/constraints.py
	echo pip-audit | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --no-header \
	  --no-annotate -c constraints.txt -o .github/pip-audit.txt

licences: $(STAMP)  ## list the licence of every dependency in data/licences.md, after make constraints
	@echo "== data/licences.md: what the packages in $(VENV) say of themselves"
	$(BIN)/python tools/licences.py

clean:  ## remove the site, the caches and .venv
	@echo "== removing _build, caches and $(VENV)"
	rm -rf _build $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
