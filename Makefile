# Cask: every command a person needs. `make` alone prints this list.
SHELL := /bin/bash
# What targets print may be read by programs, also below another target. (A make of somebody else's says its folders
# before it reads this: make --no-print-directory -C here status.)
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help serve stop reload dev config config-diff doctor up down rollback logs ps shell smoke status docker-engine base-image monitoring-image wheels image test test-long test-attacks test-clients check \
	format install lock docs postman fuzz \
	model-add model-list model-check model-build model-report model-versions model-promote model-rollback model-canary \
	model-shadow bench train clean

# ENV, PORT and any other setting given to make reach the programs through the environment, as they were typed: a value is
# never read by make ($(shell …) in it) nor by a shell (quotes, blanks, semicolons). app/given.sh makes arguments of them.
$(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(eval override export $(name) := $$(value $(name)))))
GIVEN := A AFTER ANYWAY ARCH B BEFORE BUILD CONFIRM FOLDER LABELS MIX MODEL NAME OPTIONS PART PROFILE RATE SAMPLES SECONDS SHARE SLO VERSION WEIGHTS
$(foreach name,$(GIVEN),$(eval export GIVEN_$(name) := $$(value $(name))))
override PY := .venv/bin/python
# Its words are for people; programs read what follows.
override INSTALL := >&2 requirements/install.sh
override MODEL_COMMAND := app/given.sh $(PY) -m app.cli model
override RATE_OPTIONS := --slo:SLO --mix:MIX --rate:RATE --seconds:SECONDS --confirm:CONFIRM @OPTIONS

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "; print "\n\033[1mCask\033[0m  a Flask app and a torch model in one Apache container"} \
		/^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

##@ Run it here
serve: ## Start Apache in the foreground: make serve ENV=dev PORT=8000
	@$(INSTALL) serve
	@apache/serve.sh
stop: ## Stop what make serve started; requests in flight are finished
	@apache/stop.sh
reload: ## Let the running service read env/*.env and certificates anew, losing no request; ports and models need a restart
	@$(PY) apache/reload.py
dev: ## Flask's reloader with the engine beside it, without Apache
	@$(INSTALL) serve
	@app/dev.sh

##@ Run it in a container
up: ## Build, check and start what the files say: make up ENV=prod (GPUS=all, MONITORING=1)
	@docker/steps/up.sh
rollback: ## Go back to the release before: image, settings, secrets (RELEASE=number)
	@docker/steps/rollback.sh
down: ## Stop and remove the container; its state stays
	@docker/steps/down.sh
logs: ## Follow the container's log
	@docker/steps/logs.sh
ps: ## Show the container and its processes
	@docker/steps/ps.sh
shell: ## Open a shell in the container
	@docker/steps/shell.sh
status: ## What the running service says of itself, in a container or not
	@docker/steps/status.sh
smoke: ## Send a real image to the running service and check the answer
	@docker/steps/smoke.sh
image: ## Build the image only
	@docker/steps/build.sh
docker-engine: ## Install and start a Docker Engine (Debian, Ubuntu)
	@docker/steps/engine.sh
base-image: ## Make the base image without a registry (Debian packages)
	@docker/steps/base-image.sh
monitoring-image: ## Make an image of Prometheus without a registry (Debian packages)
	@docker/steps/monitoring-image.sh
wheels: ## Collect all Python wheels, for installing without internet
	@docker/steps/wheels.sh

##@ Settings
config: ## Every setting, its value, source and meaning: make config ENV=prod
	@$(INSTALL) serve
	@$(PY) -m app.cli config show
config-diff: ## What differs between two environments: make config-diff A=dev B=prod
	@$(INSTALL) serve
	@app/given.sh $(PY) -m app.cli config diff :A=dev :B=prod

doctor: ## Look at everything that the service needs, and say what to do: make doctor ENV=prod
	@$(INSTALL) serve
	@app/given.sh $(PY) -m app.cli doctor @OPTIONS

##@ Models
model-add: ## Add a model: make model-add ARCH=resnet50 WEIGHTS=file LABELS=file NAME=mine VERSION=1
	@$(INSTALL) serve
	@$(MODEL_COMMAND) add --arch:ARCH --weights:WEIGHTS --labels:LABELS --name:NAME --version:VERSION --samples:SAMPLES @OPTIONS
model-list: ## What lies in the store, and what of it serves
	@$(INSTALL) serve
	@$(MODEL_COMMAND) list @OPTIONS
model-check: ## Measure the demonstration models on held-out scenes
	@$(INSTALL) serve
	@$(MODEL_COMMAND) check @OPTIONS
model-build: ## Build a model for this machine and choose the fastest faithful form: make model-build MODEL=name
	@$(INSTALL) dev
	@$(MODEL_COMMAND) build :MODEL @OPTIONS
model-report: ## Print what was built, how fast and how faithful: make model-report MODEL=name
	@$(INSTALL) serve
	@$(MODEL_COMMAND) report :MODEL @OPTIONS
model-versions: ## Which versions the running engine holds, and what for
	@$(INSTALL) serve
	@$(MODEL_COMMAND) versions :MODEL @OPTIONS
model-promote: ## Let a version answer, without losing a request: make model-promote MODEL=name VERSION=2
	@$(INSTALL) serve
	@$(MODEL_COMMAND) promote :MODEL :VERSION '--build?BUILD' '--anyway?ANYWAY' @OPTIONS
model-rollback: ## Let the previous version answer again: make model-rollback MODEL=name
	@$(INSTALL) serve
	@$(MODEL_COMMAND) rollback :MODEL @OPTIONS
model-canary: ## Let a version answer a share; 0 ends it: make model-canary MODEL=name VERSION=2 SHARE=10
	@$(INSTALL) serve
	@$(MODEL_COMMAND) canary :MODEL :VERSION --share:SHARE '--build?BUILD' '--anyway?ANYWAY' @OPTIONS
model-shadow: ## Ask a version too, unseen; without VERSION print how it differs: make model-shadow MODEL=name VERSION=2
	@$(INSTALL) serve
	@$(MODEL_COMMAND) shadow :MODEL :VERSION @OPTIONS
bench: ## Measure the same work on our peers, side by side: make bench OPTIONS=--quick
	@$(INSTALL) dev
	@app/given.sh $(PY) -m bench.run @OPTIONS
train: ## Train the demonstration models again (about 20 minutes on two cores)
	@$(INSTALL) serve
	@app/given.sh $(PY) -m training.train @OPTIONS

##@ Load tests
.PHONY: loadtest loadtest-docker loadtest-search loadtest-compare loadtest-report loadtest-selftest loadtest-proof loadtest-ui
loadtest: ## Send load and judge: make loadtest PROFILE=smoke ENV=dev (SLO RATE SECONDS MIX CONFIRM OPTIONS)
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest run --profile:PROFILE $(RATE_OPTIONS)
loadtest-docker: ## The same from containers, for more load than one process sends: make loadtest-docker WORKERS=2 PROFILE=smoke
	@app/given.sh docker/steps/loadtest.sh --profile:PROFILE $(RATE_OPTIONS)
loadtest-search: ## Find the highest rate that keeps the promise: make loadtest-search ENV=staging
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest search $(RATE_OPTIONS)
loadtest-compare: ## Did it become slower? make loadtest-compare BEFORE="folders" AFTER="folders", eight or more each, in turns
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest compare --before @BEFORE --after @AFTER
loadtest-report: ## Write the HTML report of a run or a search anew: make loadtest-report FOLDER=loadtest/results/…
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest report :FOLDER
loadtest-selftest: ## Order faults of a test server and see whether each is found; PART="stall mix-ups" tries some
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest selftest @PART
loadtest-proof: ## Show on the real service that its figures are right, minutes each: make loadtest-proof PART="loadgen search"
	@$(INSTALL) dev
	@app/given.sh $(PY) -m tests.loadtest.proofs @PART @OPTIONS
loadtest-ui: ## Locust's own page, on loopback only, for the target of ENV
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m locust -f loadtest/locustfile.py --confirm:CONFIRM @OPTIONS

##@ Develop
test: ## The quick tests; installs what is missing. PART=unit,apache runs all of some parts
	@$(INSTALL) dev
	@app/given.sh tests/run.sh @PART
test-long: ## The other tests: attacks, load, hung processes, full disks, releases, builds of whole models
	@$(INSTALL) dev
	@tests/run.sh --long
test-attacks: ## Attack the real service beside honest callers, and print what it cost them
	@$(INSTALL) dev
	@tests/run.sh attacks
test-clients: ## Call the real service with programs of others, got from PyPI and npm: KServe's, Triton's, newman, spectral, a generator
	@$(INSTALL) dev
	@tests/run.sh clients
fuzz: ## Send 200 requests an address, made from the API's description, and compare each answer with it
	@$(INSTALL) dev
	@$(PY) -m tests.description.run 200
check: ## Style and types
	@$(INSTALL) dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
format: ## Put the code into one style
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
install: ## Install system packages and the virtual environment only
	@$(INSTALL) dev
lock: ## Resolve the requirements anew and write the lock files
	@requirements/lock.sh
postman: ## Write a Postman collection of the API: build/cask.postman_collection.json
	@$(INSTALL) serve
	@$(PY) -m app.web.openapi postman
docs: ## Write the generated documents anew
	@$(PY) -m app.cli config docs
	@$(PY) -m app.telemetry
.PHONY: translations
translations: ## Bring the German words of the pages up to date with the code, and say which are missing
	@$(INSTALL) serve
	@$(PY) -m app.web.pages.translations
clean: ## Remove build outputs; state and models stay
	@rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis
