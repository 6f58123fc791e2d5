package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Each workflow and action in this repository and the examples follows the rules.
func TestWorkflowRules(t *testing.T) {
	var files []string
	for _, pattern := range []string{
		"../../.github/workflows/*.y*ml", "../../*/action.y*ml",
		"../../examples/*/.github/workflows/*.y*ml", "../../examples/*/*/action.y*ml",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 6 {
		t.Fatalf("found only %q", files)
	}
	for _, file := range files {
		for _, problem := range ruleViolations(file, read(t, file)) {
			t.Error(problem)
		}
	}
}

// Each rule detects a violation, and accepts a workflow that follows all rules.
func TestWorkflowRuleViolations(t *testing.T) {
	const good = `on: {push: , pull_request: , workflow_run: {workflows: [CI]}}
permissions: {}
concurrency: {group: g}
jobs:
  a:
    runs-on: ubuntu-latest
    timeout-minutes: 5
    permissions: {contents: read}
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0
        with: {persist-credentials: false}
      - uses: ./build
      - uses: org/sandbox-actions/build@v1
      - run: echo "$X"
        env: {X: "${{ github.head_ref }}"}
  b:
    permissions: {contents: read}
    uses: org/sandbox-actions/.github/workflows/build-docker-image.yml@v1
    secrets: {DEPOT_TOKEN: "${{ secrets.DEPOT_TOKEN }}"}
`
	const checkout = "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0"
	replace := func(old, by string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the workflow does not contain %q", old)
		}
		return strings.Replace(good, old, by, 1)
	}
	step := func(step string) string { return replace("      - uses: ./build\n", "      - "+step+"\n") }
	for _, test := range []struct{ name, file, text, want string }{
		{"no violation", "examples/x/.github/workflows/ci.yml", good, ""},
		{"action by tag", "examples/ci.yml", step("uses: actions/cache@v4"), "actions/cache@v4 is not pinned"},
		{"action by short SHA", "examples/ci.yml", step("uses: actions/setup-go@924ae3a # v6.5.0"), "is not pinned"},
		{"action without a version comment", "examples/ci.yml",
			step("uses: actions/setup-go@924ae3a1cded613372ab5595356fb5720e22ba16"), "has no version comment"},
		{"image by tag", "examples/ci.yml", step("uses: docker://alpine:3"), "docker://alpine:3 is not pinned"},
		{"our action by tag, outside the examples", ".github/workflows/ci.yml", good,
			"org/sandbox-actions/build@v1 is not pinned"},
		{"workflow by branch", "examples/ci.yml",
			replace("org/sandbox-actions/.github/workflows/build-docker-image.yml@v1", "acme/x/.github/workflows/x.yml@main"),
			"x.yml@main is not pinned"},
		{"no top-level permissions", "examples/ci.yml", replace("permissions: {}\n", ""),
			"set permissions: {} at the top"},
		{"top-level permissions", "examples/ci.yml", replace("permissions: {}\n", "permissions: {contents: read}\n"),
			"set permissions: {} at the top"},
		{"job with write-all", "examples/ci.yml",
			replace("    permissions: {contents: read}\n    steps", "    permissions: write-all\n    steps"),
			"job a has write-all"},
		{"expression in a script", "examples/ci.yml", step("run: echo ${{ github.head_ref }}"), "has ${{ }} in run"},
		{"expression in a script of an action", "build/action.yml",
			"runs:\n  using: composite\n  steps:\n    - run: echo ${{ inputs.ref }}\n      shell: sh\n", "has ${{ }} in run"},
		{"expression as shell", "examples/ci.yml", step("{run: x, shell: '${{ inputs.shell }}'}"), "has ${{ }} in shell"},
		{"expression in github-script", "examples/ci.yml",
			step("uses: actions/github-script@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v8.0.0\n" +
				"        with: {script: 'x(${{ github.head_ref }})'}"),
			"has ${{ }} in script"},
		{"no persist-credentials", "examples/ci.yml", replace("        with: {persist-credentials: false}\n", ""),
			"needs persist-credentials: false"},
		{"persist-credentials: true", "examples/ci.yml",
			step("uses: " + checkout + "\n        with: {persist-credentials: true}"), "needs persist-credentials: false"},
		{"pull_request_target", "examples/ci.yml", replace("push: ,", "pull_request_target: ,"),
			"pull_request_target exposes"},
		{"pull_request_target as the only trigger", "examples/ci.yml",
			replace("{push: , pull_request: , workflow_run: {workflows: [CI]}}", "pull_request_target"),
			"pull_request_target exposes"},
		{"inherited secrets", "examples/ci.yml", replace(`{DEPOT_TOKEN: "${{ secrets.DEPOT_TOKEN }}"}`, "inherit"),
			"secrets: inherit"},
		{"cache", "examples/ci.yml", step("uses: actions/cache@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v4.0.0"),
			"restores a cache"},
		{"cache, restore only", "examples/ci.yml",
			step("uses: actions/cache/restore@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v4.0.0"), "restores a cache"},
		{"implicit cache", "examples/ci.yml",
			step("uses: actions/setup-go@924ae3a1cded613372ab5595356fb5720e22ba16 # v6.5.0"), "restores a cache"},
		{"artifact of another run", "examples/ci.yml",
			step("uses: actions/download-artifact@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0\n        with: {run-id: 1}"),
			"an artifact of another run"},
		{"artifact of another run, with gh", "examples/ci.yml", step("run: gh run download 1"),
			"an artifact of another run"},
		{"no timeout", "ci.yml", replace("    timeout-minutes: 5\n", ""), "job a has no timeout-minutes"},
		{"no concurrency", "ci.yml", replace("concurrency: {group: g}\n", ""), "job a has no concurrency"},
		{"invalid YAML", "examples/ci.yml", "a: [", "did not find"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ruleViolations(test.file, test.text)
			if test.want == "" && len(got) > 0 ||
				test.want != "" &&
					!slices.ContainsFunc(got, func(problem string) bool { return strings.Contains(problem, test.want) }) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

var (
	pinnedBySHA    = regexp.MustCompile(`@([0-9a-f]{40}|sha256:[0-9a-f]{64})$`)
	versionComment = regexp.MustCompile(`^# v[0-9]+(\.[0-9]+){2}`)
	readsOtherRun  = regexp.MustCompile(`\bgh run download\b|/actions/artifacts\b`)
)

// ruleViolations returns a message for each violation in a workflow or action. The rules are those audits of zizmor
// (https://docs.zizmor.sh/audits) that prevent the execution of untrusted code.
func ruleViolations(file, text string) (found []string) {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return []string{fmt.Sprintf("%s: %v", file, err)}
	}
	root := document.Content[0]
	violation := func(at *yaml.Node, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s:%d: %s", file, at.Line, fmt.Sprintf(format, args...)))
	}
	uses := func(node *yaml.Node) {
		name := node.Value
		if name == "" || strings.HasPrefix(name, "./") ||
			strings.HasPrefix(name, "org/sandbox-actions/") && strings.Contains(file, "examples/") {
			return // this repository at the same commit, or its release in an example
		}
		switch {
		case !pinnedBySHA.MatchString(name):
			violation(node, "%s is not pinned: use the full commit SHA of a version and add the version as a comment", name)
		case !versionComment.MatchString(node.LineComment):
			violation(node, "%s has no version comment: add # vN.N.N, which Dependabot updates", name)
		}
	}
	steps := func(list *yaml.Node) {
		for _, step := range list.Content {
			action, with := yamlValue(step, "uses"), yamlValue(step, "with")
			uses(action)
			name, _, _ := strings.Cut(action.Value, "@")
			for key, node := range map[string]*yaml.Node{
				"run": yamlValue(step, "run"), "shell": yamlValue(step, "shell"), "script": yamlValue(with, "script"),
			} {
				if strings.Contains(node.Value, "${{") {
					violation(node, "a step has ${{ }} in %s, which allows code injection: pass the value through env", key)
				}
			}
			if name == "actions/checkout" && yamlValue(with, "persist-credentials").Value != "false" {
				violation(action, "the checkout stores the token in .git: it needs persist-credentials: false")
			}
			if strings.HasPrefix(name, "actions/cache") ||
				strings.HasPrefix(name, "actions/setup-") && yamlValue(with, "cache").Value != "false" {
				violation(action, "%s restores a cache that another run may have filled: disable or remove it", name)
			}
			if name == "actions/download-artifact" && yamlValue(with, "run-id").Value != "" ||
				readsOtherRun.MatchString(yamlValue(step, "run").Value) {
				violation(step, "a step downloads an artifact of another run, possibly a fork's: build it in this run")
			}
		}
	}
	steps(yamlValue(yamlValue(root, "runs"), "steps"))
	jobs := yamlValue(root, "jobs")
	if len(jobs.Content) == 0 {
		return found
	}
	on := yamlValue(root, "on")
	if on.Value == "pull_request_target" ||
		slices.ContainsFunc(on.Content, func(n *yaml.Node) bool { return n.Value == "pull_request_target" }) {
		violation(on, "pull_request_target exposes secrets to pull requests from forks: use pull_request")
	}
	if top := yamlValue(root, "permissions"); top.Kind != yaml.MappingNode || len(top.Content) > 0 {
		violation(root, "set permissions: {} at the top, and the permissions of each job in the job")
	}
	for i := 0; i+1 < len(jobs.Content); i += 2 {
		name, job := jobs.Content[i].Value, jobs.Content[i+1]
		called := yamlValue(job, "uses")
		uses(called)
		steps(yamlValue(job, "steps"))
		if all := yamlValue(job, "permissions"); all.Kind == yaml.ScalarNode { // the default is the top-level permissions
			violation(all, "job %s has %s: list the permissions that it needs", name, all.Value)
		}
		if yamlValue(job, "secrets").Value == "inherit" {
			violation(job, "job %s passes all secrets (secrets: inherit): list the required secrets", name)
		}
		// A called workflow sets these itself. Examples omit them to be short: our actions have a timeout.
		if called.Value != "" || strings.Contains(file, "examples/") {
			continue
		}
		if yamlValue(job, "timeout-minutes").Value == "" {
			violation(job, "job %s has no timeout-minutes: the default is six hours", name)
		}
		if yamlValue(root, "concurrency").Kind == 0 && yamlValue(job, "concurrency").Kind == 0 {
			violation(job, "job %s has no concurrency: set a concurrency group in the job or at the top", name)
		}
	}
	return found
}

// yamlValue returns the value of a key in a mapping, or an empty node.
func yamlValue(mapping *yaml.Node, key string) *yaml.Node {
	if mapping.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			if mapping.Content[i].Value == key {
				return mapping.Content[i+1]
			}
		}
	}
	return &yaml.Node{}
}
