package daytona

import (
	"errors"
	"net/http"
	"regexp"
	"slices"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Errors that callers handle. Daytona reports them only as text; see [messages].
var (
	// ErrNameTaken means that a snapshot with the name exists.
	ErrNameTaken = errors.New("the snapshot name is taken")
	// ErrQuota means that the organization has its maximum number of snapshots.
	ErrQuota = errors.New("the snapshot quota is exceeded")
	// ErrSandboxQuota means that the organization's sandboxes use all of its cores, memory or disk space.
	ErrSandboxQuota = errors.New("the quota of sandboxes is exceeded")
	// ErrInProgress means that Daytona is processing another snapshot of the same image.
	ErrInProgress = errors.New("another operation on the image is in progress")
	// ErrDeactivating means that a snapshot was deactivated less than ten minutes ago.
	ErrDeactivating = errors.New("the snapshot was just deactivated")

	errTransient    = errors.New("transient failure of Daytona")
	errImageMissing = errors.New("the image or a part of it is missing from the registry")
)

// IsTransient reports whether an operation failed because of Daytona, not because of the image or the request, so that
// another attempt may succeed. It includes [ErrInProgress].
func IsTransient(err error) bool {
	if errors.Is(err, errTransient) || errors.Is(err, ErrInProgress) {
		return true
	}
	failed, ok := errors.AsType[*httpclient.APIError](err)
	return ok && failed.Transient()
}

// isInconclusive reports whether a failed read says nothing about what it was to read. Another read may succeed.
func isInconclusive(err error) bool { return IsTransient(err) || errors.Is(err, httpclient.ErrFormat) }

// isNotFound reports whether Daytona, and not a proxy, returned 404.
func isNotFound(err error) bool {
	return httpclient.Status(err) == http.StatusNotFound && !errors.Is(err, httpclient.ErrFormat)
}

// NeedsPush reports whether a snapshot failed because its image is missing from the registry or incomplete.
func NeedsPush(err error) bool { return errors.Is(err, errImageMissing) }

// maxReason is the maximum number of characters that an error shows of a reason.
const maxReason = 500

// A message is a text of Daytona, of its runner, or of the Docker Engine and registries behind it.
type message struct {
	status  int // of the response that has the text; 0 for the reason of a failed snapshot
	pattern *regexp.Regexp
	hint    string  // may refer to groups of pattern
	is      []error // what [errors.Is] reports
}

const (
	limitsPage  = "https://app.daytona.io/dashboard/limits"
	regionsPage = "https://app.daytona.io/dashboard/regions"
)

const (
	tryAgain  = "try again"
	pushAgain = "push the image again"
	deleteOne = "delete one (`action-snapshot list`, `action-snapshot delete NAME`), or set make_room: true; set " +
		"keep: 5 to delete older ones after each run"
)

// messages are the known texts, from daytonaio/daytona v0.190.0. The first match applies. The API has no codes for
// them.
var messages = []message{
	// apps/api/src/sandbox/services/snapshot.service.ts, validateOrganizationQuotas
	refusal(
		400,
		`Snapshot quota exceeded\. Maximum allowed: (\d+)`,
		"Daytona holds $1 of $1 snapshots: "+deleteOne,
		ErrQuota,
	),
	refusal(400, `CPU request \S+ exceeds maximum allowed per sandbox \(([\d.]+)\)`, atMost("cpu", "")),
	refusal(400, `Memory request \S+ exceeds maximum allowed per sandbox \(([\d.]+)GB\)`, atMost("memory", " GB")),
	refusal(400, `Disk request \S+ exceeds maximum allowed per sandbox \(([\d.]+)GB\)`, atMost("disk", " GB")),
	refusal(400, `GPU quota exceeded`, "set the input gpu to 0, or request GPUs at "+limitsPage),
	// the same file, createFromPull and activateSnapshot
	refusal(400, `No runners are configured in region`, "change the input region or sandbox_class"),
	refusal(400, `Windows snapshots cannot be created`, "set the input sandbox_class to container"),
	refusal(400, `Invalid snapshot name format`, "correct the input name"),
	refusal(400, `deactivation is still in progress`, "wait ten minutes after the deactivation", ErrDeactivating),
	refusal(404, `region.* not found`, "set the input region to one listed at "+regionsPage+
		", or leave it empty for the organization's default"),
	refusal(403, `Region \S+ is not available`, "set the input region to one listed at "+regionsPage),
	refusal(409, `already exists for this organization`, "choose another name, or delete that snapshot with "+
		"`action-snapshot delete`", ErrNameTaken),
	// apps/api/src/organization/exceptions/DefaultRegionRequiredException.ts
	refusal(400, `does not have a default region`, "the organization's owner can choose one at "+regionsPage),
	// apps/api/src/organization/services/organization.service.ts, assertOrganizationIsNotSuspended
	refusal(403, `Organization is suspended`, "see https://app.daytona.io/dashboard/billing, or contact Daytona support"),
	// apps/api/src/sandbox/dto/create-snapshot.dto.ts, apps/api/src/common/validators/is-safe-string.validator.ts
	refusal(400, `sandboxClass must be one of the following values: ([\w, -]+)`,
		"set the input sandbox_class to one of $1"),
	refusal(400, `gpu must not be`, "set the input gpu to 0 or 1"),
	refusal(400, `must not contain HTML tags, URLs`, "use a name without www., data:, tel:, mailto: and javascript:"),
	// apps/api/src/sandbox/utils/gpu-type-preferences.util.ts
	refusal(400, `GPU type`, "set the input gpu to 0, or change the input region"),
	// apps/api/src/sandbox/services/runner.service.ts, getRandomAvailableRunner: only for requests with a GPU
	refusal(400, `No available runners`, "try again later, change the input region, or set the input gpu to 0"),
	// apps/api/src/sandbox/errors/job-conflict.error.ts, snapshot-conflict.error.ts
	// apps/api/src/sandbox/services/sandbox.service.ts, validateOrganizationQuotas: of all running sandboxes
	refusal(
		400,
		`Total (CPU|memory|disk|GPU) limit exceeded\. Maximum allowed: (\d+)`,
		"the organization's sandboxes use "+
			"nearly all of its $1 ($2): stop or delete some, request more at "+limitsPage+", or set verify: off",
		ErrSandboxQuota,
	),
	refusal(409, `already in progress`, "try again in a minute", ErrInProgress),
	refusal(409, `modified by another operation`, tryAgain, errTransient),

	// apps/api/src/sandbox/errors/job-conflict.error.ts: one job at a time for an image on a runner
	reason(`operation is already in progress`, "try again when the other snapshot of the image is active", ErrInProgress),
	// apps/api/src/sandbox/managers/snapshot.manager.ts, processSnapshotDigest
	reason(`exceeds maximum allowed size`, "make the image smaller, or request a higher limit at "+limitsPage),
	// apps/runner/pkg/docker/daemon.go, in a sandbox. The daemon writes to the home directory when it starts.
	reason(
		`timeout waiting for daemon to start`,
		"Daytona's daemon needs a shell (sh) in the image, and a USER with a home "+
			"directory that it can write: set USER to a user of /etc/passwd, or ENV HOME",
	),
	// apps/runner/pkg/docker/create.go, validateImageArchitecture
	reason(`is not x64 compatible`, "build the image for linux/amd64"),
	// apps/api/src/sandbox/managers/snapshot.manager.ts and apps/api/src/sandbox/services/job.service.ts
	reason(`\btimed out\b|\btimeout\b`, tryAgain, errTransient),
	// apps/api/src/sandbox/services/runner.service.ts, apps/api/src/sandbox/runner-adapter
	reason(`runner (with ID )?\S* ?(not found|is not (healthy|ready))|in an unknown state|`+
		`failed (to pull snapshot )?on (initial )?runner|modified by another operation`, tryAgain, errTransient),
	reason(`No internal registry found`, "contact Daytona support: the region has no registry"),
	// apps/runner/pkg/docker passes on the errors of the Docker Engine and of registries (Harbor, CNCF Distribution)
	reason(`no space left on device`, "Daytona's runner is out of disk space: try again later, or make the image smaller",
		errTransient),
	reason(`no (matching manifest|match for platform|child with platform)`, "build the image for linux/amd64"),
	reason(`invalid reference format`, "create the snapshot by a tag, not by a digest"),
	reason(`(blob|manifest)[ _]unknown|unknown[: ]+(blob|manifest)`, pushAgain, errImageMissing, errTransient),
	reason(`\b(429|5\d\d) (Too Many Requests|Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time-?out)|`+
		`toomanyrequests|status( code)?:? 5\d\d`, tryAgain, errTransient),
	// Connections of the runner (Go's net and net/http, the Docker client) and of the API (Node.js, axios).
	reason(`connection (refused|reset)|broken pipe|no such host|\bEOF\b|deadline exceeded|(request|context) canceled|`+
		`no route to host|network is unreachable|server misbehaving|temporary failure in name resolution|`+
		`use of closed network connection|GOAWAY|stream error|cannot connect to the docker daemon|socket hang up|`+
		`socket disconnected|stream has been aborted|`+
		`\bE(CONNREFUSED|CONNRESET|CONNABORTED|PIPE|HOSTUNREACH|NETUNREACH|TIMEDOUT|NOTFOUND|AI_AGAIN)\b`,
		tryAgain, errTransient),
	// The API's database and cache (pg 8, ioredis 5); the handlers of states store any error as the reason.
	reason(`deadlock detected|could not serialize access|connection (terminated|is closed)|too many (clients|connections)`,
		tryAgain, errTransient),
	// A layer was damaged on its way to the runner (Docker Engine 20.10 to 29, containerd 2).
	reason(`layer verification failed|unexpected commit digest`, tryAgain, errTransient),
	// A push to the registry in which Daytona stores images failed.
	reason(`error from registry: `, tryAgain, errTransient),
	reason(`unauthorized|access (is )?denied|denied: |is denied|403 forbidden`,
		"Daytona cannot read the image: push it to Daytona's registry"),
	reason(`\bnot found\b|name unknown`, pushAgain, errImageMissing, errTransient),
}

func atMost(input, unit string) string {
	return "set the input " + input + " to at most $1" + unit + ", or request a higher limit at " + limitsPage
}

func refusal(status int, pattern, hint string, is ...error) message {
	return message{status, regexp.MustCompile("(?i)" + pattern), hint, is}
}

func reason(pattern, hint string, is ...error) message { return refusal(0, pattern, hint, is...) }

// findMessage returns the entry for a text, with the complete hint.
func findMessage(status int, text string) (found message, ok bool) {
	for _, m := range messages {
		if m.status != status {
			continue
		}
		if groups := m.pattern.FindStringSubmatchIndex(text); groups != nil {
			m.hint = string(m.pattern.ExpandString(nil, m.hint, text, groups))
			return m, true
		}
	}
	return message{}, false
}

// isReason reports whether the reason of a failed snapshot or sandbox is known to mean an error.
func isReason(reason string, is error) bool {
	known, _ := findMessage(0, reason)
	return slices.Contains(known.is, is)
}

// explainedError is an APIError with a known message.
type explainedError struct {
	*httpclient.APIError
	is []error
}

func (e *explainedError) Unwrap() error { return e.APIError }

// Is implements the interface of [errors.Is].
func (e *explainedError) Is(target error) bool { return slices.Contains(e.is, target) }

// explain replaces the hint of a refused call if its message is known.
func explain(failed *httpclient.APIError) error {
	if failed.Status < 400 || errors.Is(failed.Err, httpclient.ErrFormat) {
		return failed
	}
	known, ok := findMessage(failed.Status, failed.Message)
	if !ok {
		return failed
	}
	failed.Hint = known.hint
	return &explainedError{failed, known.is}
}
