# Two commands to start with: make demo and make test. `make help` lists all targets.
# Variables:
#   PYTHON=/path/to/python3.12   interpreter for .venv (3.11 or newer)
#   PACKAGE_INDEX=URL            an additional package index, such as PyTorch's index of CPU-only wheels. Without it, a
#                                machine without a GPU may download several GB of CUDA libraries.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)) python3)
PACKAGE_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(if $(PACKAGE_INDEX),--extra-index-url $(PACKAGE_INDEX))
PIP_LOG := $(VENV)/pip.log
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name) 2>/dev/null)))
DEMO := output/demo
# Drops the log lines that a training writes every 20 steps and at the start of a stage.
few := 2>&1 | sed -u '/, about .* left$$/d; / …$$/d'
# Keeps the table of scores; costs and findings are on the page that the demo ends with.
table := | sed '/^$$/,$$d'
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help demo demo-full demo-hub picture test test-slow bench bench-gpu quality format clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.main ## train and evaluate both projects on the miniature, annotate a file, publish to a loopback Hub
	@echo "The miniature: invented posts and sentences, in $$($(BIN)/python -m common.miniature --print_folder --quiet)"
	@rm -rf $(DEMO)
	@echo; echo "Step 1 of 5: classify sentence pairs (SNLI) with full fine-tuning, and beside it with LoRA"
	@$(MAKE) --no-print-directory -j2 demo-train-snli_full demo-train-snli_lora
	@$(BIN)/python -m snli_roberta.evaluate --model $(DEMO)/snli_full $(DEMO)/snli_lora --title "full fine-tuning" LoRA \
		--output_dir $(DEMO)/records --quiet
	@echo; echo "Step 2 of 5: annotate posts (SBIC) with one QLoRA adapter per feature"
	@$(MAKE) --no-print-directory -j2 demo-train-offensive_yn demo-train-has_biased_implication demo-train-target_minority
	@for feature in hasBiasedImplication offensiveYN targetMinority; do \
		$(BIN)/python -m sbic_llama.evaluate --adapter $(DEMO)/sbic/$$feature --output_dir $(DEMO)/records --quiet $(table) || exit; \
	done
	@echo; echo "Step 3 of 5: annotate your own file, and measure how far to trust the labels"
	@own=$$($(BIN)/python -m common.miniature --print_folder --quiet)/own_file && \
		adapters="--adapter $(DEMO)/sbic/offensiveYN --adapter $(DEMO)/sbic/targetMinority" && \
		$(BIN)/python -m sbic_llama.annotate $$own/posts.csv $$adapters --adapter $(DEMO)/sbic/hasBiasedImplication \
			--review_share 0.1 --output $(DEMO)/annotated.csv --quiet && \
		head -n 3 $(DEMO)/annotated.csv && \
		$(BIN)/python -m sbic_llama.trust $$own/posts.csv --human_labels $$own/human_labels.csv --key id $$adapters \
			--output_dir $(DEMO)/trust --quiet
	@echo; echo "Step 4 of 5: publish a model of each project to a Hub on the loopback, verify them, and use one from there"
	@$(BIN)/python -m common.miniature $(MAKE) --no-print-directory demo-hub
	@echo; echo "Step 5 of 5: one page with all results"
	@$(BIN)/python -m common.report --records $(DEMO)/records --output $(DEMO)/report.html --title "Demo on the miniature" \
		--quiet >$(DEMO)/report.txt
	@echo; echo "Open these files. They are about the miniature, so their numbers say nothing about real data:"
	@echo "  $(DEMO)/trust/trust.html  how far to trust the labels of your file"
	@echo "  $(DEMO)/report.html       the scores of all models next to their baselines (as text: report.txt)"
	@echo "  $(DEMO)/annotated.csv     the annotated file"
	@echo "Next: $(BIN)/python -m common.doctor shows what this machine can run. README.md, \"Three ways in\", has pages to try the models on."

# The demo's trainings, two at a time: with models this small, one thread is as fast as two. The first of each project shows how
# it goes.
demo-train-%: export OMP_NUM_THREADS := 1
demo-train-snli_%:
	@echo "training $* …"
	@$(BIN)/python -m snli_roberta.train_$* --config snli_roberta/recipes/miniature_$*.yaml --output_dir $(DEMO)/snli_$* \
		$(if $(filter full,$*),$(few),--quiet)
demo-train-%:
	@echo "training $* …"
	@$(BIN)/python -m sbic_llama.train_$* --config sbic_llama/recipes/miniature.yaml --output_dir $(DEMO)/sbic \
		$(if $(filter offensive_yn,$*),$(few),--quiet)

# Two of the demo's models through a Hub on the loopback: published, verified, downloaded and used.
demo-hub:
	@for model in snli_lora sbic/offensiveYN; do \
		$(BIN)/python -m common.hub publish $(DEMO)/$$model --repo_id miniature/$$(basename $$model) --tag v1 --items 50 --quiet || exit; \
	done
	@echo "Does \"A boy who is wet is indoors and quiet.\" entail \"A child is dry.\"?"
	@$(BIN)/python -m snli_roberta.predict --model miniature/snli_lora --revision v1 --quiet \
		"A boy who is wet is indoors and quiet." "A child is dry."

LOOP := $(DEMO)/loop
demo-full: demo ## the demo, then people in the loop: from an Excel file to a corrected estimate and the next training
	@rm -rf $(LOOP)
	@echo; echo "The loop, step 1 of 5: an Excel file, and an adapter for a question of one's own"
	@own=$$($(BIN)/python -m common.miniature --print_folder --quiet)/own_task && \
		recipe="--config sbic_llama/recipes/miniature.yaml" && \
		own_labels="--codebook $$own/codebook.yaml --data $$own/labels.csv" && \
		$(BIN)/python -m sbic_llama.miniature.people --posts $(LOOP)/posts.xlsx --quiet && \
		$(BIN)/python -m sbic_llama.train $$own_labels $$recipe --output_dir $(LOOP)/round1 --quiet && \
		$(BIN)/python -m sbic_llama.evaluate --adapter $(LOOP)/round1/complaint --data $$own/labels.csv --output_dir $(LOOP)/round1/records \
			--quiet $(table) && \
		echo && echo "Step 2 of 5: annotate the file, and draw 150 rows for people, more of those with uncertain answers" && \
		$(BIN)/python -m sbic_llama.annotate $(LOOP)/posts.xlsx --adapter $(LOOP)/round1/complaint --output $(LOOP)/annotated.xlsx --quiet && \
		$(BIN)/python -m sbic_llama.sample $(LOOP)/annotated.xlsx --uncertain complaint --codebook $$own/codebook.yaml --key id --size 150 \
			--output $(LOOP)/to_label.xlsx && \
		echo && echo "Step 3 of 5: the invented people fill in the column" && \
		$(BIN)/python -m sbic_llama.miniature.people $(LOOP)/to_label.xlsx --output $(LOOP)/labeled.xlsx && \
		echo && echo "Step 4 of 5: how many posts complain, and how far to trust the answers" && \
		$(BIN)/python -m sbic_llama.prevalence $(LOOP)/annotated.xlsx --human_labels $(LOOP)/labeled.xlsx --key id --feature complaint --quiet \
			--output $(LOOP)/prevalence.json | head -n 3 && \
		$(BIN)/python -m sbic_llama.trust $(LOOP)/posts.xlsx --human_labels $(LOOP)/labeled.xlsx --key id --adapter $(LOOP)/round1/complaint \
			--output_dir $(LOOP)/trust --quiet && \
		echo && echo "Step 5 of 5: the labels go into the next training run" && \
		$(BIN)/python -m sbic_llama.train $$own_labels --more_labels $(LOOP)/labeled.xlsx $$recipe --output_dir $(LOOP)/round2 --quiet && \
		$(BIN)/python -m sbic_llama.evaluate --adapter $(LOOP)/round2/complaint --data $$own/labels.csv --more_labels $(LOOP)/labeled.xlsx \
			--earlier $(LOOP)/round1/complaint --output_dir $(LOOP)/round2/records --quiet | tail -n 2
	@echo; echo "Open $(LOOP)/trust/trust.html. Its numbers are the miniature's."

picture: ## take the README's screenshot of the demo's trust page (needs Chromium)
	@test -f $(DEMO)/trust/trust.html || $(call stop,there is no $(DEMO)/trust/trust.html: run make demo first)
	@test -n "$(CHROMIUM)" || $(call stop,Chromium is missing: install it$(comma) or name a browser: make picture CHROMIUM=/path/to/chrome)
	@"$(CHROMIUM)" --headless --no-sandbox --hide-scrollbars --window-size=1000,900 --screenshot=docs/images/trust.png \
		"file://$(CURDIR)/$(DEMO)/trust/trust.html" 2>/dev/null

test: $(VENV)/.dev ## run the default tests (5 minutes or more on 2 cores)
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup

test-slow: $(VENV)/.dev $(VENV)/.scale $(VENV)/.app ## run the slow tests: kills, trainings, simulations (half an hour or more on 2 cores)
	@$(BIN)/python -m pytest -m slow -n 3 --dist loadgroup

bench: $(VENV)/.bench ## compare the speed with other tools (BENCH="--quick": fewer rows and rounds)
	@$(BIN)/python -m benchmarks $(BENCH)

bench-gpu: $(VENV)/.main ## measure training and annotating on an NVIDIA GPU (about 10 minutes, 14 GB of disk)
	@$(BIN)/python -m benchmarks.gpu

quality: $(VENV)/.dev ## check format and lint
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

format: $(VENV)/.dev ## format the code and fix what lint can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## remove .venv and output
	rm -rf $(VENV) output

# Stamps are written last, so an interrupted installation is repeated. pip writes to a log.
$(VENV)/.main: requirements.txt pyproject.toml | $(VENV)/.python
	@$(call install,$<)
	@$(PIP) --no-deps -e . >>$(PIP_LOG) 2>&1 || $(failed)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.main
$(VENV)/.scale: requirements-scale.txt $(VENV)/.main
$(VENV)/.app: requirements-app.txt $(VENV)/.main
$(VENV)/.bench: requirements-bench.txt $(VENV)/.main
$(VENV)/.dev $(VENV)/.scale $(VENV)/.app $(VENV)/.bench:
	@$(call install,$<)
	@touch $@

$(VENV)/.python:
	@command -v git >/dev/null || $(call stop,git is missing: install it with the system's package manager)
	@command -v "$(PYTHON)" >/dev/null || $(call stop,Python is missing: install Python 3.11 or newer$(comma) or name one: make PYTHON=/path/to/python)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || $(call stop,"$(PYTHON)" is too old: install Python 3.11 or newer$(comma) or name one: make PYTHON=/path/to/python)
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || $(call stop,Python\'s venv is missing: install it (Debian and Ubuntu: apt install python3-venv))
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

comma := ,
stop = { echo $(call quoted,error: $(1)) >&2; exit 2; }
quoted = "$(subst ",,$(subst \',',$(1)))"
install = echo "Installing the packages of $(1) into $(VENV) (once) …"; $(PIP) -r $(1) >>$(PIP_LOG) 2>&1 || $(failed)
failed = $(call stop,installing packages failed; see $(PIP_LOG). Is a package index reachable? To add one: make PACKAGE_INDEX=URL)
