# Cask: every command a person needs. `make` alone prints this list.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export ENV PORT PYTHON
PY := .venv/bin/python

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
