# Needs Python 3.11 or newer and git; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
LOCK := requirements/lock.txt
NEEDS := pyproject.toml requirements/torch.txt $(LOCK)
RECIPE ?= recipes/mnist5k-cnn.yaml

.PHONY: train test check recipes catalog format lock clean

train: $(VENV)/.installed ## train on real data; the last line is the path of the report
	@$(BIN)/brickyard train $(RECIPE)

test: check ## all checks, then all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

recipes: $(VENV)/.installed ## train every recipe; fails when one misses the metric that it states
	$(BIN)/python tools/recipes.py

catalog: $(VENV)/.installed ## write catalog.json and the figures anew and check every card
	$(BIN)/python -m brickyard.catalog
	$(BIN)/python -m brickyard.plots
	$(BIN)/python tools/readme.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first and alone, so that no other package can pick another build of it.
$(VENV)/.torch: requirements/torch.txt
	@echo "setting up $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/torch.txt -c $(LOCK)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch $(NEEDS)
	$(PIP) -e '.[all]' -c $(LOCK)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[all,dev]' -c $(LOCK)
	@touch $@

lock: ## write requirements/lock.txt anew from the newest versions, in a fresh environment
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/torch.txt
	$(PIP) -e '.[all,dev]' -c requirements/torch.txt
	(echo "# Every package of the environment, pinned; written by 'make lock'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\).*/\1/') > $(LOCK)

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
