package daytona

import (
	"errors"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// The reasons are texts of daytonaio/daytona v0.190.0, Docker Engine 20.10 and 29, and registries.
func TestReasons(t *testing.T) {
	const (
		transient = "transient"
		push      = "push" // also transient
		conflict  = "conflict"
		permanent = ""
	)
	for _, test := range []struct{ reason, hint, is string }{
		{"Job 0190-ab timed out after 30000ms", "try again", transient},
		{"Job timed out - no update received for 120 minutes", "try again", transient},
		{"Timeout processing snapshot on initial runner", "try again", transient},
		{"Timeout processing snapshot pull on initial runner", "try again", transient},
		{"Failed to pull snapshot on initial runner", "try again", transient},
		{"Runner with ID 0190-ab not found", "try again", transient},
		{"Runner is not healthy", "try again", transient},
		{"Runner 0190-ab is not ready", "try again", transient},
		{"Request failed with status code 502", "try again", transient},
		{"connect ECONNREFUSED 127.0.0.1:3003", "try again", transient},
		{"timeout of 900000ms exceeded", "try again", transient},
		{
			"Snapshot h/p/a:1 failed to inspect in registry on runner 0190-ab. Error: Error response from daemon: received " +
				"unexpected HTTP status: 503 Service Unavailable", "try again", transient,
		},
		{
			"Error response from daemon: unexpected status from HEAD request to http://h/v2/: 502 Bad Gateway", "try", transient,
		},
		{`Error response from daemon: Get "http://h/v2/": dial tcp: lookup h: no such host`, "try again", transient},
		{`Error response from daemon: Get "https://h/v2/": net/http: TLS handshake timeout`, "try again", transient},
		{"failed to register layer: write /x: no space left on device", "Daytona's runner is out of disk space", transient},
		{"timeout waiting for daemon to start", "Daytona's daemon needs a shell (sh) in the image", permanent},
		{
			"conflict: image sha256:12 architecture (arm64) is not x64 compatible", "build the image for linux/amd64", permanent,
		},
		{"unknown blob", "push the image again", push},
		{"BLOB_UNKNOWN: blob unknown to registry", "push the image again", push},
		{"unknown: artifact p/a:1 not found", "push the image again", push},
		{
			"Error response from daemon: manifest for h/p/a:1 not found: manifest unknown: manifest unknown",
			"push the image again", push,
		},
		{`Error response from daemon: failed to resolve reference "h/p/a:1": h/p/a:1: not found`, "push the image", push},
		{"Snapshot h/p/a:1 not found in registry on runner 0190-ab", "push the image again", push},
		{"name unknown: repository name not known to registry", "push the image again", push},
		{"An operation is already in progress for this resource", "try again when the other snapshot", conflict},
		{"Snapshot size (21.50GB) exceeds maximum allowed size of 20GB", "make the image smaller, or request", permanent},
		{"no matching manifest for linux/amd64 in the manifest list entries", "build the image for linux/amd64", permanent},
		{"no match for platform in manifest: not found", "build the image for linux/amd64", permanent},
		{"no child with platform linux/amd64 in index h/p/a:1", "build the image for linux/amd64", permanent},
		{
			"Snapshot h/p/a:sha256:12 failed to inspect in registry on runner 0190-ab. Error: Error response from daemon: " +
				"invalid reference format", "create the snapshot by a tag", permanent,
		},
		{"error from registry: upstream failed", "try again", transient},
		{"error from registry: unknown blob", "push the image again", push},
		{"error from registry: unauthorized: no", "try again", transient},
		{"unauthorized: authentication required", "Daytona cannot read the image", permanent},
		{"requested access to the resource is denied", "Daytona cannot read the image", permanent},
		{"No internal registry found for snapshot", "contact Daytona support: the region has no registry", permanent},
		{"open /x: permission denied", "try again; if it persists, contact Daytona support", permanent},
	} {
		err := &SnapshotError{Snapshot: Snapshot{Name: "app-1", State: Failed, Reason: test.reason}}
		checkError(t, err, "snapshot app-1 is in state error: "+test.reason+" ("+test.hint)
		if got, want := IsTransient(err), test.is != permanent; got != want {
			t.Errorf("%s: transient: %v, want %v", test.reason, got, want)
		}
		if got, want := NeedsPush(err), test.is == push; got != want {
			t.Errorf("%s: needs push: %v, want %v", test.reason, got, want)
		}
		if got, want := errors.Is(err, ErrInProgress), test.is == conflict; got != want {
			t.Errorf("%s: in progress: %v, want %v", test.reason, got, want)
		}
	}
	err := &SnapshotError{Snapshot: Snapshot{Name: "app-1", State: Failed, Reason: "a\nb\x1b" + strings.Repeat("c", 600)}}
	checkError(t, err, `a b\u001bccc … c…`)
	if len(err.Error()) > 800 {
		t.Errorf("got %d bytes", len(err.Error()))
	}
}

// The messages are texts of daytonaio/daytona v0.190.0.
func TestRefusals(t *testing.T) {
	const contact = "Need higher resource limits per-sandbox? Contact us at support@daytona.io and let us know."
	for _, test := range []struct {
		status  int
		message string
		hint    string
		is      error
	}{
		{
			400, "Snapshot quota exceeded. Maximum allowed: 30",
			"the organization has 30 of 30 snapshots: delete one with `action-snapshot delete NAME`", ErrQuota,
		},
		{
			400, "CPU request 8 exceeds maximum allowed per sandbox (4).\n" + contact, "set the input cpu to at most 4, or", nil,
		},
		{400, "Memory request 16GB exceeds maximum allowed per sandbox (8GB).", "set the input memory to at most 8 GB,", nil},
		{400, "Disk request 30GB exceeds maximum allowed per sandbox (10GB).", "set the input disk to at most 10 GB,", nil},
		{400, "GPU quota exceeded. Maximum allowed: 0.", "set the input gpu to 0", nil},
		{400, "No GPU types are allowed in this region.", "set the input gpu to 0", nil},
		{400, "No available runners", "try again later", nil},
		{
			400, "Total CPU limit exceeded. Maximum allowed: 10.\n" + contact,
			"the organization's sandboxes use nearly all of its CPU (10): stop or delete some", nil,
		},
		{
			400, "No runners are configured in region 'eu' for sandbox class 'container'. Try a different region.",
			"change the input region or sandbox_class", nil,
		},
		{400, "Windows snapshots cannot be created via this endpoint", "set the input sandbox_class to container", nil},
		{
			400, "sandboxClass must be one of the following values: linux-vm, container, android, windows",
			"set the input sandbox_class to one of linux-vm, container, android, windows", nil,
		},
		{400, "gpu must not be greater than 1", "set the input gpu to 0 or 1", nil},
		{
			400, "This organization does not have a default region. Please open the Daytona Dashboard to set a default region.",
			"the organization's owner can choose one at https://app.daytona.io/dashboard/regions", nil,
		},
		{400, "name must not contain HTML tags, URLs, or control characters", "use a name without www.", nil},
		{400, "Invalid snapshot name format. May contain letters", "correct the input name", nil},
		{400, "Snapshot deactivation is still in progress.", "wait ten minutes after the deactivation)", ErrDeactivating},
		{403, "Organization is suspended: unpaid", "see https://app.daytona.io/dashboard/billing", nil},
		{403, "Region asia is not available to the organization", "set the input region to one listed at", nil},
		{404, "Region not found", "set the input region to one listed at", nil},
		{404, "Region mars not found", "set the input region to one listed at", nil},
		{404, "Snapshot with name a not found", "check DAYTONA_API_URL", nil},
		{409, `Snapshot with name "a" already exists for this organization`, "choose another name", ErrNameTaken},
		{409, "An operation is already in progress for this resource", "try again in a minute", ErrInProgress},
		{409, "Snapshot was modified by another operation", "try again", errTransient},
		{400, "A text of a newer server", "correct the input", nil},
	} {
		c := &Client{Key: "dtn_all"}
		c.HTTP.Base = jsonResponse(test.status, test.message)
		_, err := c.Create(t.Context(), Request{Name: "a", Image: "h.example/p/a:1"})
		first, _, _ := strings.Cut(test.message, "\n")
		checkError(t, err, "create snapshot a: Daytona returned … "+strings.TrimRight(first, ".")+" … ("+test.hint)
		if httpclient.Status(err) != test.status {
			t.Errorf("%s: status %d", test.message, httpclient.Status(err))
		}
		for _, known := range []error{ErrNameTaken, ErrInProgress, ErrDeactivating, errTransient} {
			if errors.Is(err, known) != (known == test.is) {
				t.Errorf("%s: is %v: %v", test.message, known, errors.Is(err, known))
			}
		}
	}
}

func TestIsTransient(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("x"), false},
		{&httpclient.APIError{Status: 400}, false},
		{&httpclient.APIError{Status: 404}, false},
		{&httpclient.APIError{Status: 409, Err: ErrInProgress}, true},
		{&httpclient.APIError{Status: 408}, true},
		{&httpclient.APIError{Status: 429}, true},
		{&httpclient.APIError{Status: 500}, true},
		{&httpclient.APIError{Status: 502, Err: httpclient.ErrFormat}, true},
		{&httpclient.APIError{Status: 200, Err: httpclient.ErrFormat}, false},
		{&httpclient.APIError{}, true},
		{&LeftoverError{Err: &httpclient.APIError{Status: 503}}, true},
	} {
		if got := IsTransient(test.err); got != test.want {
			t.Errorf("%v: got %v", test.err, got)
		}
	}
}
