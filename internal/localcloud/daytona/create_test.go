package daytona

import (
	"fmt"
	"strings"
	"testing"
)

func TestCreateRules(t *testing.T) {
	s := startCloud(t, nil)
	s.Put(Snapshot{Organization: "org-1", Name: "taken", State: "error", Reason: "no"})
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, test := range []struct {
		name, key, body string
		status          int
		message         string
	}{
		{name: "no name", body: `{"imageName":"a:1"}`, status: 400, message: "name must be a string"},
		{
			name: "no image", body: `{"name":"a"}`, status: 400,
			message: "Must specify an image name when not using a build info entry",
		},
		{
			name: "negative", body: `{"name":"a","imageName":"a:1","cpu":-1}`, status: 400,
			message: "cpu must not be less than 0",
		},
		{
			name: "several violations", body: `{"name":7,"entrypoint":"sh","cpu":"x","gpu":2,"memory":-1,"sandboxClass":"vm"}`,
			status: 400, message: "name must not contain HTML tags, URLs, or control characters, name must be a string, " +
				"entrypoint must be an array, cpu must not be less than 0, " +
				"cpu must be a number conforming to the specified constraints, gpu must not be greater than 1, " +
				"memory must not be less than 0, " +
				"sandboxClass must be one of the following values: linux-vm, container, android, windows",
		},
		{
			name: "URL in the name", body: `{"name":"WWW.example","imageName":"a:1"}`, status: 400,
			message: "name must not contain HTML tags, URLs, or control characters",
		},
		{
			name: "scheme in the name", body: `{"name":"metadata:1","imageName":"a:1"}`, status: 400,
			message: "name must not contain HTML tags, URLs, or control characters",
		},
		{
			name: "Windows", body: `{"name":"a","imageName":"a:1","sandboxClass":"windows"}`, status: 400,
			message: "Windows snapshots cannot be created via this endpoint; " +
				"they are produced by snapshot-from-sandbox flows.",
		},
		{
			name: "no virtual machines", body: `{"name":"a","imageName":"a:1","sandboxClass":"linux-vm"}`, status: 400,
			message: "No runners are configured in region 'US' for sandbox class 'linux-vm'. " +
				"Try a different region or sandbox class.",
		},
		{
			name: "no GPU quota", body: `{"name":"a","imageName":"a:1","gpu":1}`, status: 400,
			message: "GPU quota exceeded. Maximum allowed: 0.",
		},
		{
			name: "no GPU", body: `{"name":"a","imageName":"a:1","gpu":1,"regionId":"free"}`, status: 400,
			message: "No available runners",
		},
		{
			name: "no GPU of a type", body: `{"name":"a","imageName":"a:1","gpu":1,"gpuType":"H100","regionId":"free"}`,
			status: 400, message: "No available runners with GPU type: H100.",
		},
		{
			name: "build info and an image", body: `{"name":"a","imageName":"a:1","buildInfo":{}}`, status: 400,
			message: "Cannot specify an image name when using a build info entry",
		},
		{
			name: "fraction", body: `{"name":"a","imageName":"a:1","cpu":1.5}`, status: 500,
			message: "An unexpected error occurred.",
		},
		{
			name: "empty name", body: `{"name":"","imageName":"a:1"}`, status: 400,
			message: "Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes",
		},
		{
			name: "space in the name", body: `{"name":"a b","imageName":"a:1"}`, status: 400,
			message: "Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes",
		},
		{
			name: "no tag", body: `{"name":"a","imageName":"a"}`, status: 400,
			message: "Image name must include a tag (e.g., ubuntu:22.04) or digest (@sha256:...)",
		},
		{
			name: "latest", body: `{"name":"a","imageName":"a:latest"}`, status: 400,
			message: `Images with tag ":latest" are not allowed`,
		},
		{
			name: "invalid image", body: `{"name":"a","imageName":"a b:1"}`, status: 400,
			message: "Invalid image name format. " +
				"Must be lowercase, may contain digits, dots, dashes, and single slashes between components",
		},
		{
			name: "half a digest", body: `{"name":"a","imageName":"a@sha256:12"}`, status: 400,
			message: "Invalid digest format. Must be image@sha256:64_hex_characters",
		},
		{
			name: "too much CPU", body: `{"name":"a","imageName":"a:1","cpu":8}`, status: 400,
			message: "CPU request 8 exceeds maximum allowed per sandbox (4).\nNeed higher resource limits per-sandbox? " +
				"Contact us at support@daytona.io and let us know about your use case.",
		},
		{
			name: "too much memory", body: `{"name":"a","imageName":"a:1","memory":9}`, status: 400,
			message: "Memory request 9GB exceeds maximum allowed per sandbox (8GB).\nNeed",
		},
		{
			name: "too much disk", body: `{"name":"a","imageName":"a:1","disk":11}`, status: 400,
			message: "Disk request 11GB exceeds maximum allowed per sandbox (10GB).\nNeed",
		},
		{
			name: "limit of a region", body: `{"name":"a","imageName":"a:1","cpu":3,"regionId":"eu"}`, status: 400,
			message: "CPU request 3 exceeds maximum allowed per sandbox (2).\nNeed",
		},
		{
			name: "unknown region", body: `{"name":"a","imageName":"a:1","regionId":"mars"}`, status: 404,
			message: "Region not found",
		},
		{
			name: "another organization's region", body: `{"name":"a","imageName":"a:1","regionId":"asia"}`, status: 403,
			message: "Region asia is not available to the organization",
		},
		{
			name: "no runner", body: `{"name":"a","imageName":"a:1","regionId":"void"}`, status: 400,
			message: "No runners are configured in region 'Void' for sandbox class 'container'. " +
				"Try a different region or sandbox class.",
		},
		{
			name: "no region", key: "dtn_nowhere", body: `{"name":"a","imageName":"a:1"}`, status: 400,
			message: "This organization does not have a default region. " +
				"Please open the Daytona Dashboard to set a default region.",
		},
		{
			name: "suspended", key: "dtn_suspended", body: `{"name":"a","imageName":"a:1"}`, status: 403,
			message: "Organization is suspended: unpaid",
		},
		{
			name: "name of a failed snapshot", body: `{"name":"taken","imageName":"a:1"}`, status: 409,
			message: `Snapshot with name "taken" already exists for this organization`,
		},
		{
			name: "name of another organization's snapshot", key: "dtn_other",
			body: `{"name":"taken","imageName":"a` + digest + `"}`, status: 200,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.key == "" {
				test.key = "dtn_all"
			}
			status, body := sendRequest(t, s, test.key, "POST", "/snapshots", test.body)
			if status != test.status {
				t.Fatalf("%d, want %d: %s", status, test.status, body)
			}
			if test.message == "" {
				return
			}
			if got := errorMessage(t, "/snapshots", body); !strings.HasPrefix(got, test.message) {
				t.Errorf("%q, want %q", got, test.message)
			}
		})
	}
	for i := range 4 {
		s.Put(Snapshot{Organization: "org-1", Name: fmt.Sprint("filler ", i)})
	}
	status, body := sendRequest(t, s, "dtn_all", "POST", "/snapshots", `{"name":"fifth","imageName":"a:1"}`)
	if status != 400 ||
		errorMessage(t, "/snapshots", body) != "Snapshot quota exceeded. Maximum allowed: 4" {
		t.Error(status, body)
	}
}
