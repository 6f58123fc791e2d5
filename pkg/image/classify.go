package image

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
	"google.golang.org/grpc/codes"
)

// classifyError converts an error of BuildKit to one of this package's types. If ctx has ended, it returns the cause.
func classifyError(ctx context.Context, r Request, steps *stepRecorder, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	f := newFailure(r, steps, err)
	if vertex := (*errdefs.VertexError)(nil); !errors.As(err, &vertex) && isPushFailure(r, f.whole, f.hasSource) {
		return pushFailure(ctx, r, f.whole, err)
	}
	for _, explain := range []func(failure) error{
		failure.badIgnoreFile, failure.missingTarget, failure.missingDockerfile, failure.missingEntitlement,
		failure.missingSecret, failure.missingAgent, failure.failedPull, failure.failedFetch, failure.unreadableContext,
		failure.missingFile, failure.failedOutput, failure.failedStep,
	} {
		if explained := explain(f); explained != nil {
			return explained
		}
	}
	return f.failedBuilder()
}

// failure is an error of BuildKit with what is known about it.
//
// BuildKit sends the causes of most failures as text, without a type or a code. The texts in this file are those of
// moby/buildkit v0.34.2 and v0.11.6. The names of the steps come from config.go, context.go and namedcontext.go in
// frontend/dockerui, frontend/dockerfile/dockerfile2llb/convert.go and solver/llbsolver/bridge.go.
type failure struct {
	request    Request
	err        error
	whole      string       // the message of err, without prefixes
	message    string       // the message of the failed step, otherwise that of err
	step       recordedStep // zero if it is unknown
	hasSource  bool         // whether BuildKit blames an instruction of the Dockerfile
	at         Position
	dockerfile []byte // nil if it is unknown
}

func newFailure(r Request, steps *stepRecorder, err error) failure {
	f := failure{request: r, err: err, whole: buildkitMessage(r, err)}
	f.at.File = r.DockerfileName
	if f.at.File == "" {
		f.at.File = filepath.Base(r.Dockerfile)
	}
	f.message = f.whole
	var vertex digest.Digest
	if failed, ok := errors.AsType[*errdefs.VertexError](err); ok {
		vertex = digest.Digest(failed.Vertex.Digest)
	}
	if step := steps.failed(vertex, err.Error()); step != nil {
		f.step = *step
		if step.err != "" {
			f.message = buildkitMessage(r, errors.New(step.err))
		}
	}
	for _, source := range errdefs.Sources(err) {
		f.hasSource = true
		if source.Info != nil && len(source.Info.Data) > 0 {
			f.dockerfile = source.Info.Data
		}
		for _, lines := range source.Ranges {
			f.at = f.at.extend(int(lines.Start.Line), int(lines.End.Line))
		}
	}
	if f.dockerfile == nil {
		f.dockerfile = r.dockerfile()
	}
	return f
}

// dockerfile returns the content of the Dockerfile, or nil if it is unknown.
func (r Request) dockerfile() []byte {
	if r.Definition != nil {
		return r.Definition.data
	}
	if r.isRemote() {
		return nil
	}
	data, err := readFile(r.Dockerfile)
	if err != nil {
		return nil
	}
	return data
}

func (p Position) extend(first, last int) Position {
	if p.Line == 0 || first < p.Line {
		p.Line = first
	}
	p.EndLine = max(p.EndLine, first, last)
	return p
}

// instructions returns the instructions of the Dockerfile, or none if it is invalid or unknown.
func (f failure) instructions() []*parser.Node {
	parsed, err := parser.Parse(bytes.NewReader(f.dockerfile))
	if err != nil {
		return nil
	}
	return parsed.AST.Children
}

// position returns where BuildKit reports the failure. If it reports no line, position returns the first instruction
// that matches.
func (f failure) position(matches func(*parser.Node) bool) Position {
	at := f.at
	if at.Line == 0 {
		if i := slices.IndexFunc(f.instructions(), matches); i >= 0 {
			node := f.instructions()[i]
			at = at.extend(node.StartLine, node.EndLine)
		}
	}
	if at.Line > 0 {
		source := errdefs.Source{
			Info:   &pb.SourceInfo{Filename: at.File, Data: f.dockerfile},
			Ranges: []*pb.Range{{Start: &pb.Position{Line: int32(at.Line)}, End: &pb.Position{Line: int32(at.EndLine)}}},
		}
		var excerpt bytes.Buffer
		if source.Print(&excerpt) == nil {
			at.Excerpt = excerpt.String()
		}
	}
	return at
}

// containing matches the instructions that contain a text.
func containing(text string) func(*parser.Node) bool {
	return func(n *parser.Node) bool { return strings.Contains(n.Original, text) }
}

// instruction returns the text of the lines of at, joined into one.
func (f failure) instruction(at Position) string {
	lines := strings.Split(string(f.dockerfile), "\n")
	if at.Line < 1 || at.EndLine < at.Line || at.Line > len(lines) {
		return ""
	}
	return safetext.Line(f.request.clean(strings.Join(lines[at.Line-1:min(at.EndLine, len(lines))], " ")), maxMessage)
}

// prefix matches the prefixes that BuildKit's components add to a message.
var prefix = regexp.MustCompile(`^(failed to solve|rpc error: code = \w+ desc|dockerfile parse error on line \d+|` +
	`failed to read dockerfile|failed to load LLB|failed to (compute|load) cache key|error from (receiver|sender)|` +
	`ResourceExhausted|failed to copy( to tar)?|failed to send write|` +
	`process "(?:[^"\\]|\\.)*" did not complete successfully) *[:=] *`)

// buildkitMessage returns BuildKit's message as one safe line without prefixes.
func buildkitMessage(r Request, err error) string {
	message := safetext.Line(r.clean(err.Error()), 0)
	for {
		shorter := prefix.ReplaceAllString(message, "")
		if shorter == message {
			return safetext.Line(message, maxMessage)
		}
		message = shorter
	}
}

func (r Request) clean(text string) string {
	if r.Clean == nil {
		return text
	}
	return r.Clean(text)
}

// badIgnoreFile explains an invalid pattern in a .dockerignore file. BuildKit reports neither the file nor the pattern.
func (f failure) badIgnoreFile() error {
	isPattern := strings.HasSuffix(f.message, filepath.ErrBadPattern.Error()) || contextStep.MatchString(f.step.name)
	if !isPattern || f.hasSource || f.request.isRemote() {
		return nil
	}
	file := f.request.ignoreFile()
	data, err := readFile(file)
	if err != nil {
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for number := 1; lines.Scan(); number++ {
		patterns, err := ignorefile.ReadAll(bytes.NewReader(lines.Bytes()))
		if err != nil || len(patterns) == 0 {
			continue
		}
		matcher, err := patternmatcher.New(patterns)
		if err == nil {
			_, err = matcher.MatchesOrParentMatches("a")
		}
		if errors.Is(err, filepath.ErrBadPattern) {
			at := Position{File: f.request.displayPath(file), Line: number, EndLine: number}
			return &IgnoreFileError{Position: at, Pattern: strings.TrimSpace(lines.Text()), Err: f.err}
		}
	}
	return nil
}

// ignoreFile returns the file with the patterns of excluded files, as BuildKit selects it.
func (r Request) ignoreFile() string {
	own := r.Dockerfile + ".dockerignore"
	if _, err := os.Stat(own); err == nil {
		return own
	}
	return filepath.Join(r.Context, ".dockerignore")
}

// displayPath returns a path as the user would write it: relative to the same directory as DockerfileName.
func (r Request) displayPath(file string) string {
	if root, ok := strings.CutSuffix(r.Dockerfile, string(filepath.Separator)+r.DockerfileName); ok {
		if relative, err := filepath.Rel(root, file); err == nil {
			return relative
		}
	}
	if relative, err := filepath.Rel(r.Context, file); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return file
}

// missingTarget explains an unknown target stage.
func (f failure) missingTarget() error {
	if !strings.HasPrefix(f.message, "target stage ") || !strings.HasSuffix(f.message, " could not be found") {
		return nil
	}
	e := &TargetError{File: f.at.File, Target: f.request.Target, Err: f.err}
	for _, n := range f.instructions() {
		words := strings.Fields(n.Original)
		as := slices.IndexFunc(words, func(word string) bool { return strings.EqualFold(word, "as") })
		if strings.EqualFold(n.Value, command.From) && as > 0 && as+1 < len(words) {
			e.Stages = append(e.Stages, safetext.Line(words[as+1], maxMessage))
		}
	}
	return e
}

const dockerfileHint = "set the input dockerfile to its path"

// missingDockerfile explains a Dockerfile that is not in a remote context.
func (f failure) missingDockerfile() error {
	if f.hasSource || !f.request.isRemote() || !strings.Contains(f.err.Error(), "failed to read dockerfile: open ") {
		return nil
	}
	return &ContextError{
		Context: "the Dockerfile " + f.request.Dockerfile, Message: "not found in " + f.request.displayContext(),
		Hint: dockerfileHint, Err: f.err,
	}
}

// shownDockerfile returns the whole path of the Dockerfile if the user's own is unknown.
func (r Request) shownDockerfile() string { return cmp.Or(r.DockerfileName, r.Dockerfile) }

// deniedEntitlement matches the errors of util/entitlements/entitlements.go.
var deniedEntitlement = regexp.MustCompile(`\b(network\.host|security\.insecure|device\S*) is not allowed( by)?`)

func (f failure) missingEntitlement() error {
	found := deniedEntitlement.FindStringSubmatch(f.message)
	if found == nil || f.step.output.lines != nil {
		return nil
	}
	flag := map[string]string{"network.host": "--network=host", "security.insecure": "--security=insecure"}[found[1]]
	at := f.position(func(n *parser.Node) bool { return flag != "" && slices.Contains(n.Flags, flag) })
	return &EntitlementError{Position: at, Name: found[1], ByBuilder: found[2] != "", Err: f.err}
}

// missingSecretText matches the error of [secretStore.GetSecret].
var missingSecretText = regexp.MustCompile(`^secret (\S+): not found$`)

func (f failure) missingSecret() error {
	if found := missingSecretText.FindStringSubmatch(f.message); found != nil {
		return &SecretError{Position: f.position(containing("id=" + found[1])), ID: found[1], Err: f.err}
	}
	return nil
}

// missingAgentText matches the errors of solver/llbsolver/mounts/mount.go, without any agent, and of
// session/sshforward/sshprovider/agentprovider.go, without this one.
var missingAgentText = regexp.MustCompile(
	`^(?:no SSH key "(.*)" forwarded from the client|unset ssh forward key (.*))$`,
)

func (f failure) missingAgent() error {
	found := missingAgentText.FindStringSubmatch(f.message)
	if found == nil {
		return nil
	}
	e := &SSHError{Position: f.position(containing("type=ssh")), ID: found[1] + found[2], Err: f.err}
	if e.ID == "" {
		e.ID = "default"
	}
	return e
}

// imageStep matches the steps that resolve or pull an image, and captures its reference.
var imageStep = regexp.MustCompile(
	`^(?:\[[^\]]+\] load metadata for (\S+)|resolve image config for (?:docker-image://)?` +
		`(\S+)|(?:\[[^\]]* ?\d+/\d+\] )?FROM (\S+?)(?:@sha256:\w+)?)$`,
)

// registryFailure matches the error of a registry in a message of containerd's resolver, which quotes the status line
// and perhaps the registry's message: core/remotes/errors/errors.go and core/remotes/docker/fetcher.go of containerd
// v2.4, remotes/docker/resolver.go of v1.6.
var registryFailure = regexp.MustCompile(
	`(?:unexpected status|failed with status code).*?: ([45]\d\d) [A-Z][A-Za-z ]*(?:- Server message: )?(.*)$`)

// failedRequest matches what net/http adds to the cause of a failed request.
var failedRequest = regexp.MustCompile(`^.*(?:Head|Get|Post) "?[^ "]*"?: `)

// pullPrefix matches what comes before the cause in a message about an image.
var pullPrefix = regexp.MustCompile(`^(?:failed to resolve source metadata for )?\S*/\S+: |^failed to authorize: `)

// namedContext matches the steps of a named context, and captures its name.
var namedContext = regexp.MustCompile(`^\[context ([^\]]+)\] `)

// failedPull explains an image that cannot be resolved or pulled.
func (f failure) failedPull() error {
	found := imageStep.FindStringSubmatch(f.step.name)
	if found == nil {
		return nil
	}
	image := found[1] + found[2] + found[3]
	short := image
	if named, err := reference.ParseNormalizedNamed(image); err == nil {
		short = reference.FamiliarString(named)
	}
	e := &ImageError{Reference: image}
	if named := namedContext.FindStringSubmatch(f.step.name); named != nil {
		e.Context = named[1]
	} else {
		e.Position = f.position(func(n *parser.Node) bool {
			return strings.Contains(n.Original, short) || strings.Contains(n.Original, image)
		})
	}
	if credentials := credentialText.FindString(f.message); credentials != "" {
		e.Err = &CredentialError{Text: credentials, Err: f.err}
		return e
	}
	message := pullPrefix.ReplaceAllString(f.message, "")
	call := registryCall{op: pullOp, references: []string{image}}
	status := 0
	if answer := registryFailure.FindStringSubmatch(message); answer != nil {
		status, _ = strconv.Atoi(answer[1])
		message = answer[2]
	} else {
		message = failedRequest.ReplaceAllString(message, "")
	}
	failed := &httpclient.APIError{
		Service: call.hosts(),
		Op:      "pull " + short,
		Status:  status,
		Message: message,
		Err:     f.err,
	}
	call.describe(failed)
	if strings.Contains(message, "no match for platform") { // containerd's core/images/image.go
		failed.Message = "the image has no variant for " + f.request.Platform
		failed.Hint = "choose another image, or set the input platform to one that the image has"
	}
	if from, _, _ := strings.Cut(short, ":"); strings.Contains(f.instruction(e.Position), "--from="+from+" ") {
		failed.Hint = "no stage is named " + from + " before this line; otherwise " + failed.Hint
	}
	e.Err = failed
	return e
}

// fetchStep matches the steps that fetch a URL or a git repository, and captures it if it is in the name.
var fetchStep = regexp.MustCompile(`^(?:\[[^\]]+\] load git source (\S+)|\[[^\]]+\] load remote build context()|` +
	`((?:https?|git|ssh)://\S+|git@\S+))$`)

// gitOutput and badStatus match the causes in messages of BuildKit's source/git and source/http.
var (
	gitOutput = regexp.MustCompile(`git stderr: (.*?) *: exit status \d+$`)
	badStatus = regexp.MustCompile(`invalid response status (\d{3})$`)
)

// addedURL matches a URL or a git repository in an ADD instruction.
var addedURL = regexp.MustCompile(`(?:(?:https?|git|ssh)://|git@)\S+`)

func (f failure) failedFetch() error {
	e := &FetchError{Message: f.message, Err: f.err, Hint: "check the URL, and that the builder can reach it"}
	if found := gitOutput.FindStringSubmatch(f.message); found != nil {
		e.Message = found[1]
	} else if found := badStatus.FindStringSubmatch(f.message); found != nil {
		status, _ := strconv.Atoi(found[1])
		e.Message = fmt.Sprintf("the server returned %d %s", status, http.StatusText(status))
	} else {
		e.Message = failedRequest.ReplaceAllString(f.message, "")
	}
	if found := fetchStep.FindStringSubmatch(f.step.name); found != nil {
		e.URL = found[1] + found[2] + found[3]
	} else if match := stepName.FindStringSubmatch(f.step.name); match != nil && match[2] == "ADD" && !f.hasSource {
		e.URL = addedURL.FindString(f.step.name)
	} else {
		return nil
	}
	e.Position = f.position(func(n *parser.Node) bool {
		return strings.EqualFold(n.Value, command.Add) &&
			(strings.Contains(n.Original, e.URL) || strings.Contains(n.Original, "$"))
	})
	if e.URL == "" {
		e.URL = f.request.Context
	}
	e.URL = withoutPassword(e.URL)
	switch {
	case strings.Contains(f.message, "digest mismatch"):
		e.Hint = "the file has changed: check it, and correct the checksum"
	case strings.Contains(f.message, "does not contain ref"):
		e.Message, e.Hint = "the repository does not have this ref", "correct the part after #"
	case strings.Contains(f.message, "could not read Username"), strings.Contains(f.message, "Authentication failed"):
		e.Hint = "add the secret GIT_AUTH_TOKEN with a token that can read the repository"
	case strings.HasSuffix(f.message, "status 401"), strings.HasSuffix(f.message, "status 403"):
		e.Hint = "add the secret HTTP_AUTH_TOKEN, or make the file public"
	}
	return e
}

func withoutPassword(text string) string {
	for _, secret := range safetext.URLSecrets(text) {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// contextStep matches the steps that receive files of this machine.
var contextStep = regexp.MustCompile(`^\[(internal|context [^\]]+)\] (?:load build context|load from client|` +
	`load build definition from .*|load \.dockerignore)$`)

func (f failure) unreadableContext() error {
	found := contextStep.FindStringSubmatch(f.step.name)
	if found == nil {
		return nil
	}
	if strings.HasSuffix(f.message, filepath.ErrBadPattern.Error()) { // of COPY and ADD
		pattern := ""
		at := f.position(func(n *parser.Node) bool {
			pattern = badPattern(n)
			return pattern != ""
		})
		message := fmt.Sprintf("invalid pattern %q: %v", pattern, filepath.ErrBadPattern)
		return &BuildError{Position: at, Step: f.instruction(at), Message: message, Err: f.err}
	}
	name := "the build context"
	if found[1] != "internal" {
		name += strings.TrimPrefix(found[1], "context")
	}
	return &ContextError{
		Context: name, Message: f.message, Err: f.err,
		Hint: "make the file readable, or exclude it in .dockerignore",
	}
}

// badPattern returns an argument of a COPY or ADD that is an invalid pattern, or "".
func badPattern(n *parser.Node) string {
	if !strings.EqualFold(n.Value, command.Copy) && !strings.EqualFold(n.Value, command.Add) {
		return ""
	}
	for argument := n.Next; argument != nil; argument = argument.Next {
		if _, err := filepath.Match(argument.Value, ""); err != nil {
			return argument.Value
		}
	}
	return ""
}

// missingFileText matches the error of a COPY or ADD without its file: cache/contenthash/checksum.go.
var missingFileText = regexp.MustCompile(`failed to calculate checksum of ref \S+: ("(?:[^"\\]|\\.)*"): not found$`)

func (f failure) missingFile() error {
	found := missingFileText.FindStringSubmatch(f.message)
	if found == nil {
		return nil
	}
	file, err := strconv.Unquote(found[1])
	if err != nil {
		return nil
	}
	e := &MissingFileError{
		Position: f.position(containing(path.Base(file))), Instruction: "COPY", Path: strings.TrimPrefix(file, "/"),
		Context: f.request.displayContext(), Err: f.err,
	}
	var node *parser.Node
	for _, n := range f.instructions() {
		if n.StartLine == e.Line {
			node = n
		}
	}
	if node == nil {
		return e
	}
	e.Instruction = strings.ToUpper(node.Value)
	for _, flag := range node.Flags {
		if from, ok := strings.CutPrefix(flag, "--from="); ok {
			e.From = from
		}
	}
	if e.Instruction == "RUN" { // a mount
		e.From = "the source of the mount"
	}
	if existing := f.request.resolve(file); e.From == "" && existing != "" {
		e.Existing, e.IgnoredBy = existing, f.request.displayPath(f.request.ignoreFile())
	}
	return e
}

// resolve returns the path of a file of the context without symbolic links, relative to the context. It returns "" if
// the file does not exist or is not in the context.
func (r Request) resolve(file string) string {
	if r.isRemote() {
		return ""
	}
	root, err := filepath.EvalSymlinks(r.Context)
	if err != nil {
		return ""
	}
	existing, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(path.Clean("/"+file))))
	if err != nil {
		return ""
	}
	relative, err := filepath.Rel(root, existing)
	if err != nil || !filepath.IsLocal(relative) {
		return ""
	}
	return filepath.ToSlash(relative)
}

// displayContext returns the build context as the user would write it.
func (r Request) displayContext() string {
	if r.isRemote() {
		return withoutPassword(r.Context)
	}
	return r.displayPath(r.Context)
}

// clientExport matches the steps that send an output to this machine: exporter/{local,tar,oci}/export.go.
var clientExport = regexp.MustCompile(`^exporting to (client|oci|docker) `)

func (f failure) failedOutput() error {
	e := &OutputError{Message: f.message, Hint: "check the destination of the input outputs", Err: f.err}
	isOutput := clientExport.MatchString(f.step.name)
	for _, output := range f.request.Outputs {
		isOutput = isOutput || output.OutputDir != "" && strings.Contains(f.message, output.OutputDir)
		// The builder may report only the end of the stream: send.go of fsutil a72de9d does not read what ended it.
		if f.message == io.EOF.Error() && output.OutputDir != "" {
			if err := tryWrite(output.OutputDir); err != nil {
				e.Message = fmt.Sprintf("write %s: %v", output.OutputDir, causeOf(err))
			}
		}
	}
	if !isOutput {
		return nil
	}
	if isDiskFull(e.Message) {
		e.Hint = "free disk space there"
	}
	return e
}

// tryWrite returns the error of writing a file of 1 MiB to a directory.
func tryWrite(directory string) error {
	file, err := os.CreateTemp(directory, ".try-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(make([]byte, 1<<20))
	return errors.Join(err, file.Close())
}

// failedStep explains a step of the Dockerfile, or an invalid line.
func (f failure) failedStep() error {
	e := &BuildError{Message: f.message, Number: f.step.number(), Err: f.err}
	if exit, ok := errors.AsType[*gateway.ExitError](f.err); ok {
		e.ExitCode = int(exit.ExitCode)
	}
	_, instruction, _ := strings.Cut(f.step.name, "] ")
	e.Position = f.position(func(n *parser.Node) bool { return instruction != "" && n.Original == instruction })
	if !f.hasSource && e.ExitCode == 0 && (e.Number == "" || e.Line == 0) {
		return nil
	}
	e.Step, e.Output = f.instruction(e.Position), f.step.output.last()
	switch {
	case strings.HasPrefix(e.Step, "#"): // the directive syntax
		e.ExitCode, e.Message = 0, "the image is not a Dockerfile frontend: "+e.Message
		e.Hint = "write for example # syntax=docker/dockerfile:1"
	case strings.HasPrefix(f.message, "invalid secret size"):
		e.Hint = "BuildKit limits a secret to 500 KiB"
	case e.ExitCode == 137 || strings.Contains(f.message, "cannot allocate memory"):
		e.Hint = "the process was killed, usually because memory ran out: use a larger builder, or fewer parallel jobs"
	case slices.ContainsFunc(e.Output, func(line string) bool { return strings.HasSuffix(line, "exec format error") }):
		e.Hint = "the program is for another platform than " + f.request.Platform + ": check the base image and the input " +
			"platform, or install an emulator (QEMU) on the builder"
	case isDiskFull(f.message):
		e.Hint = diskFullHint
	case strings.Contains(e.Step, "type=ssh"):
		if i := slices.IndexFunc(f.request.SSH, SSH.hasNoKeys); i >= 0 {
			e.Hint = "the SSH agent " + f.request.SSH[i].ID + " has no keys: add one with ssh-add"
		}
	}
	return e
}

const diskFullHint = "free disk space on the builder; on Depot, reset the project's cache or raise its size"

// isDiskFull reports whether a message ends with the text of syscall.ENOSPC.
func isDiskFull(message string) bool { return strings.HasSuffix(message, "no space left on device") }

// failedBuilder describes a failure outside the Dockerfile.
func (f failure) failedBuilder() error {
	e := &BuilderError{Message: f.whole, Err: f.err}
	switch {
	case grpcerrors.Code(f.err) == codes.Unavailable:
		e.Message = "the connection to the builder was lost: " + f.whole
		e.Hint = "retry; if it happens again, check the builder's log"
	case isDiskFull(f.whole):
		e.Hint = diskFullHint
	case strings.HasPrefix(f.whole, "lint violation found"): // frontend/dockerfile/linter
		e.Hint = "fix the warnings of the checks, or remove error=true from the line # check= of the Dockerfile"
	}
	return e
}
