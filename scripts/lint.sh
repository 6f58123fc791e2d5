#!/usr/bin/env bash
# Checks formatting, line lengths, Go, workflows, shell scripts, modules, and the programs for known vulnerabilities.
# Prints each problem, or one line if there are no problems.
set -euo pipefail
cd "$(dirname "$0")/.."
GOFLAGS="$(go env GOFLAGS) -mod=readonly"
export GOFLAGS

# files PATTERN… lists the files in the repository, including untracked files, one per line.
files() {
	git ls-files -co --exclude-standard -- "$@" | while read -r file; do
		[[ ! -e $file ]] || echo "$file"
	done
}

check_format() {
	local unformatted
	unformatted=$(files '*.go' | xargs gofmt -l)
	if [[ -n $unformatted ]]; then
		echo "gofmt: run gofmt -w on: $unformatted" >&2
		return 1
	fi
}

# check_line_length reports lines of more than 120 characters, except in generated files. A tab counts as one character.
check_line_length() {
	local long
	long=$(files '*.go' '*.sh' '*.yml' '*.yaml' .ci/run | git check-attr --stdin linguist-generated |
		sed -n 's/: linguist-generated: unspecified$//p' |
		LC_ALL=C.UTF-8 xargs grep -HnE '^.{121,}$' | cut -c 1-160) || true # grep fails if no line matches
	if [[ -n $long ]]; then
		echo "$long" >&2
		echo "line length: wrap the lines above at 120 columns" >&2
		return 1
	fi
}

check_scripts() {
	files '*.sh' .ci/run | xargs shellcheck -x
}

check_modules() {
	local module status=0
	while read -r module; do
		scripts/quiet.sh "$module" go -C "$(dirname "$module")" mod verify || status=1
		scripts/quiet.sh "$module" go -C "$(dirname "$module")" mod tidy -diff || status=1
	done < <(files go.mod '**/go.mod')
	return "$status"
}

status=0
check_format || status=1
check_line_length || status=1
go vet ./... || status=1
GOOS=darwin go vet ./... || status=1
.cache/bin/staticcheck ./... || status=1
.cache/bin/actionlint -shellcheck "$(command -v shellcheck)" || status=1
check_scripts || status=1
check_modules || status=1
scripts/vuln.sh || status=1
((status)) || echo "lint: no problems"
exit "$status"
