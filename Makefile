# What each installs or builds is kept in .cache, and done once.
.PHONY: demo test lint clean

demo: ## The sandbox image from source to a snapshot, twice, against the local cloud.
	@scripts/setup.sh demo
	@scripts/demo.sh

test: ## Every test, with the race detector, against real daemons on loopback.
	@scripts/setup.sh test
	@scripts/test.sh

lint: ## gofmt, vet, staticcheck, actionlint, shellcheck.
	@scripts/setup.sh lint
	@scripts/lint.sh

clean: ## Removes all that the others made.
	@scripts/clean.sh
