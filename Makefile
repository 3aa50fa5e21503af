# Cask: every command a person needs. `make` alone prints this list.
SHELL := /bin/bash
# What targets print may be read by programs, also below another target. (A make of somebody else's says its folders
# before it reads this: make --no-print-directory -C here status.)
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: support-bundle backup backup-check restore help serve stop reload recycle dev config config-diff doctor up deploy history down rollback logs ps shell smoke status docker-engine base-image monitoring-image wheels image test test-long test-attacks test-clients check \
	format install lock docs postman fuzz \
	example model-add model-new model-test model-dev model-list model-check model-build model-report model-versions model-promote model-rollback model-canary \
	model-shadow model-give-up bench train clean

# ENV, PORT and any other setting given to make reach the programs through the environment, as they were typed: a value is
# never read by make ($(shell …) in it) nor by a shell (quotes, blanks, semicolons). app/given.sh makes arguments of them.
$(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(eval override export $(name) := $$(value $(name)))))
GIVEN := A AFTER ANYWAY ARCH B BEFORE BUILD CODE CONFIRM FILE FOLDER JOIN LABELS MASTER MIX MODEL NAME NAMES OPENAPI OPTIONS PART PROFILE RATE REPLAY SAMPLES SCENARIO SECONDS SHARE SINCE SLO SPEED TASK TEMPLATE VERSION WEIGHTS WORKERS
$(foreach name,$(GIVEN),$(eval export GIVEN_$(name) := $$(value $(name))))
override PY := .venv/bin/python
# Its words are for people; programs read what follows.
override INSTALL := >&2 requirements/install.sh
override MODEL_COMMAND := app/given.sh $(PY) -m app.cli model
override RATE_OPTIONS := --slo:SLO --scenario:SCENARIO --mix:MIX --rate:RATE --seconds:SECONDS --confirm:CONFIRM @OPTIONS
override JOIN_OPTIONS := --join:JOIN --processes:WORKERS

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "; print "\n\033[1mCask\033[0m  a Flask app and a torch model in one Apache container"} \
		/^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  \033[36m%-17s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

##@ Run it here
serve: ## Start Apache in the foreground: ENV=dev PORT=8000
	@$(INSTALL) serve
	@apache/serve.sh
stop: ## Stop make serve; requests in flight finish
	@apache/stop.sh
reload: ## Apply env/*.env and certificates, losing no request
	@docker/steps/reload.sh
recycle: ## Replace the processes one by one, losing no request
	@docker/steps/recycle.sh
dev: ## The app and an engine, without Apache, anew after a save
	@$(INSTALL) serve
	@app/dev.sh

##@ Secrets and certificates
.PHONY: secrets certs
secrets: ## Make the secrets that are missing: ROTATE=1, 2, 3
	@docker/steps/secrets.sh
certs: ## Make an authority and a certificate: NAMES="box 10.0.0.7"
	@app/given.sh apache/make_certificates.sh @NAMES

##@ Back it up
backup: ## Back up state, settings, secrets, models: FILE=… (no stop)
	@app/given.sh docker/steps/backup.sh create :FILE @OPTIONS
backup-check: ## Compare a backup and start a throw-away service: FILE=…
	@app/given.sh docker/steps/backup.sh check :FILE @OPTIONS
restore: ## Put a backup back; the service is stopped: FILE=…
	@app/given.sh docker/steps/backup.sh restore :FILE @OPTIONS

##@ Run it in a container
deploy: up ## The same, by the name that CI uses
up: ## Build, check and start; no request is lost: ENV=prod
	@docker/steps/up.sh
history: ## Show the last releases: when, by whom, with which result
	@docker/steps/history.sh
rollback: ## Return to the previous release: RELEASE=number
	@docker/steps/rollback.sh
down: ## Stop and remove the container; its state stays
	@docker/steps/down.sh
logs: ## Follow the container's log
	@docker/steps/logs.sh
ps: ## Show the container and its processes
	@docker/steps/ps.sh
shell: ## Open a shell in the container
	@docker/steps/shell.sh
status: ## Show how the service is: OPTIONS=--json, --watch
	@app/given.sh docker/steps/status.sh @OPTIONS
support-bundle: ## Gather what helps to find a fault, no secrets: FILE=…
	@app/given.sh docker/steps/support-bundle.sh :FILE
smoke: ## Send a real image to the service and check the answer
	@docker/steps/smoke.sh
image: ## Build the image only
	@docker/steps/build.sh
docker-engine: ## Install and start a Docker Engine (Debian, Ubuntu)
	@docker/steps/engine.sh
base-image: ## Make the base image from Debian packages
	@docker/steps/base-image.sh
monitoring-image: ## Make a Prometheus image from Debian packages
	@docker/steps/monitoring-image.sh
.PHONY: bundle bundle-key
bundle: ## One signed file for sites without internet: SINCE=older
	@docker/steps/bundle.sh
bundle-key: ## Make the key that bundles are signed with
	@docker/steps/bundle-key.sh
wheels: ## Collect all wheels, to install without internet
	@docker/steps/wheels.sh

##@ Settings
config: ## Print every setting, its value and source: ENV=prod
	@$(INSTALL) serve
	@$(PY) -m app.cli config show
config-diff: ## Compare environments or releases: A=dev B=prod SINCE=tag
	@$(INSTALL) serve
	@app/given.sh $(PY) -m app.cli config diff :A=dev :B=prod --since:SINCE

doctor: ## Check what the service needs, and what to do: ENV=prod
	@app/given.sh docker/steps/doctor.sh @OPTIONS

##@ Models
model-add: ## Add a model: ARCH=… WEIGHTS=…, FILE=… TASK=…, or CODE=…
	@$(INSTALL) serve
	@$(MODEL_COMMAND) add --arch:ARCH --code:CODE --file:FILE --task:TASK --weights:WEIGHTS --labels:LABELS --name:NAME --version:VERSION --samples:SAMPLES @OPTIONS
model-new: ## Begin one with code: NAME=x TEMPLATE=text|table|image|…
	@$(INSTALL) serve
	@$(MODEL_COMMAND) new :NAME --template:TEMPLATE --folder:FOLDER @OPTIONS
model-test: ## Test one with code as callers meet it: MODEL=folder
	@$(INSTALL) serve
	@$(MODEL_COMMAND) test :MODEL @OPTIONS
model-dev: ## Serve one with code while you write it: MODEL=folder
	@$(INSTALL) serve
	@$(MODEL_COMMAND) dev :MODEL @OPTIONS
example: ## Add a model of examples/models and ask it: NAME=read-text
	@$(INSTALL) serve
	@app/given.sh examples/models/add.sh :NAME
model-list: ## List the models of the store and what serves
	@$(INSTALL) serve
	@$(MODEL_COMMAND) list @OPTIONS
model-check: ## Measure the demonstration models on held-out scenes
	@$(INSTALL) serve
	@$(MODEL_COMMAND) check @OPTIONS
model-build: ## Build the fastest faithful form for this machine: MODEL=x
	@$(INSTALL) dev
	@$(MODEL_COMMAND) build :MODEL @OPTIONS
model-report: ## Print what was built, its speed and accuracy: MODEL=x
	@$(INSTALL) serve
	@$(MODEL_COMMAND) report :MODEL @OPTIONS
model-versions: ## List the versions that the engine holds
	@$(INSTALL) serve
	@$(MODEL_COMMAND) versions :MODEL @OPTIONS
model-promote: ## Make a version the active one: MODEL=x VERSION=2
	@$(INSTALL) serve
	@$(MODEL_COMMAND) promote :MODEL :VERSION '--build?BUILD' '--anyway?ANYWAY' @OPTIONS
model-rollback: ## Make the previous version active again: MODEL=x
	@$(INSTALL) serve
	@$(MODEL_COMMAND) rollback :MODEL @OPTIONS
model-canary: ## Give a version a share: MODEL=x VERSION=2 SHARE=10; 0 ends
	@$(INSTALL) serve
	@$(MODEL_COMMAND) canary :MODEL :VERSION --share:SHARE '--build?BUILD' '--anyway?ANYWAY' @OPTIONS
model-shadow: ## Mirror requests to a version: MODEL=x VERSION=2
	@$(INSTALL) serve
	@$(MODEL_COMMAND) shadow :MODEL :VERSION @OPTIONS
model-give-up: ## End a change of versions that is under way
	@$(INSTALL) serve
	@$(MODEL_COMMAND) give-up
bench: ## Measure Cask and other servers: OPTIONS=--quick
	@$(INSTALL) dev
	@app/given.sh $(PY) -m bench.run @OPTIONS
train: ## Train the demonstration models (20 minutes, two cores)
	@$(INSTALL) serve
	@app/given.sh $(PY) -m training.train @OPTIONS

##@ Your own Flask code
.PHONY: plugin-new plugin-list plugin-install plugin-flask plugin-test
plugin-new: ## Begin one: a route, a page, a test: NAME=claims
	@$(INSTALL) serve
	@app/given.sh $(PY) -m app.cli plugin new :NAME
plugin-list: ## List the plugins and what serves
	@$(INSTALL) serve
	@app/given.sh $(PY) -m app.cli plugin list @OPTIONS
plugin-install: ## Lock and install its requirements.txt: NAME=claims
	@$(INSTALL) serve
	@app/given.sh $(PY) -m app.cli plugin install :NAME
plugin-flask: ## Run its own command: NAME=shop OPTIONS=init-db
	@app/given.sh $(PY) -m app.cli plugin flask :NAME @OPTIONS
plugin-test: ## Run its tests with the models of the store: NAME=claims
	@$(INSTALL) dev
	@app/given.sh $(PY) -m app.cli plugin test :NAME @OPTIONS

##@ Load tests
.PHONY: loadtest loadtest-worker loadtest-new loadtest-docker loadtest-search loadtest-compare loadtest-report loadtest-selftest loadtest-proof loadtest-ui
loadtest: ## Run a load test: PROFILE=smoke ENV=dev SCENARIO=file.py MIX
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest run --profile:PROFILE --replay:REPLAY --speed:SPEED $(JOIN_OPTIONS) $(RATE_OPTIONS)
loadtest-worker: ## Send for another machine's: MASTER=10.0.0.1:5557 WORKERS=2
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest worker --master:MASTER --processes:WORKERS --scenario:SCENARIO --confirm:CONFIRM @OPTIONS
loadtest-new: ## Write a scenario file: OPENAPI=url-or-file NAME=shop
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest new --openapi:OPENAPI --name:NAME @OPTIONS
loadtest-docker: ## Run it from containers: WORKERS=2 PROFILE=smoke
	@app/given.sh docker/steps/loadtest.sh --profile:PROFILE --replay:REPLAY --speed:SPEED $(RATE_OPTIONS)
loadtest-search: ## Find the highest rate within the SLO: ENV=staging
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest search $(JOIN_OPTIONS) $(RATE_OPTIONS)
loadtest-compare: ## Compare runs: BEFORE="folders" AFTER="folders"
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest compare --before @BEFORE --after @AFTER
loadtest-report: ## Write a run's HTML report anew: FOLDER=folder
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest report :FOLDER
loadtest-selftest: ## Check that every fault is found: PART="stall mix-ups"
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m loadtest selftest @PART
loadtest-proof: ## Check the figures on the real service: PART="search"
	@$(INSTALL) dev
	@app/given.sh $(PY) -m tests.loadtest.proofs @PART @OPTIONS
loadtest-ui: ## Open Locust's own page on loopback, for ENV's target
	@$(INSTALL) loadtest
	@app/given.sh $(PY) -m locust -f loadtest/locustfile.py --scenario:SCENARIO --mix:MIX --confirm:CONFIRM @OPTIONS

##@ Develop
test: ## Run the quick tests: PART=unit,apache for some of them
	@$(INSTALL) dev
	@requirements/examples.sh
	@app/given.sh tests/run.sh @PART
test-long: ## Run the long ones: attacks, faults, load, releases, builds
	@$(INSTALL) dev
	@tests/run.sh --long
.PHONY: deploy-under-load swarm-under-load
deploy-under-load: ## 20 deploys and 10 power cuts while callers ask
	@$(INSTALL) dev
	@$(PY) -m tests.system.deploys
swarm-under-load: ## Update, drain and kill nodes of a Swarm while callers ask
	@$(INSTALL) dev
	@$(PY) -m tests.system.swarm
test-attacks: ## Attack the service beside honest callers; print the cost
	@$(INSTALL) dev
	@tests/run.sh attacks
test-clients: ## Run KServe's, Triton's and others' clients against it
	@$(INSTALL) dev
	@tests/run.sh clients
fuzz: ## Send 200 generated requests to each address and compare
	@$(INSTALL) dev
	@$(PY) -m tests.description.run 200
check: ## Check style and types
	@$(INSTALL) dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
format: ## Format the code
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
install: ## Install packages and the virtual environment only
	@$(INSTALL) dev
lock: ## Resolve the requirements and write the lock files
	@requirements/lock.sh
postman: ## Write build/cask.postman_collection.json
	@$(INSTALL) serve
	@$(PY) -m app.web.openapi postman
docs: ## Write the generated documents
	@$(PY) -m app.cli config docs
	@$(PY) -m app.telemetry
	@$(PY) -m app.cli.reference_document
.PHONY: translations
translations: ## Update the German catalogue; list what is missing
	@$(INSTALL) serve
	@$(PY) -m app.web.pages.translations
clean: ## Remove build outputs; state and models stay
	@rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis

# Names of earlier versions, for one release: one is accepted, and one is told what to do instead.
OLD_NAMES := plugin-load tune
.PHONY: $(OLD_NAMES)
$(OLD_NAMES):
	@[ $@ != tune ] || { echo "FAIL: make tune is gone. docs/loadtest.md says how to find settings for this machine." >&2; exit 2; }
	@echo "make plugin-load NAME=… is called make loadtest MIX=… now; the next release does not know it." >&2
	@$(INSTALL) loadtest
	@GIVEN_MIX="$$GIVEN_NAME" app/given.sh $(PY) -m loadtest run --profile:PROFILE $(RATE_OPTIONS)
