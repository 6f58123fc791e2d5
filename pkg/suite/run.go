package suite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Options configure a run.
type Options struct {
	Image   v1.Image       // config and layers, for the checks of metadata and files
	Config  *v1.ConfigFile // of the image, if Image is nil and the target reads the files
	ImageID string         // for the report
	Target  Target         // may be nil if no test needs an instance

	Parallel  int            // maximum number of instances at a time; 0 for the number of CPUs
	Seed      uint64         // seed of the order; 0 for a random one
	Run       *regexp.Regexp // run only tests with a matching name; nil for all
	Tags      []string       // run only tests with at least one of the tags; nil for all
	ReportDir string         // logs of failed tests are written to its subdirectory logs; "" for no logs

	// Log receives messages about the run itself. Nil discards them.
	Log io.Writer
	// Clean removes secrets from a line of the image's output before the line is stored. It may be nil.
	Clean func(line string) string
	// Progress is called after each test, never concurrently, with the number of finished and of all tests.
	Progress func(r *Result, done, total int)
}

// Run runs the tests of a suite and reports them in the order of the suite. Test failures are in the Report, not in the
// error. Run returns an error if tests could not run or ctx ended; the Report then has the results so far. Run removes
// all of its containers before it returns.
func Run(ctx context.Context, s *Suite, o Options) (*Report, error) {
	r, err := newRun(s, o)
	if err != nil {
		return nil, err
	}
	return r.execute(ctx)
}

// execute runs the tests.
func (r *run) execute(ctx context.Context) (*Report, error) {
	if err := r.reap(ctx); err != nil {
		return nil, err
	}
	var static, containers errgroup.Group
	static.Go(func() error { return r.runStatic(ctx) }) // needs a CPU, but no container
	containers.SetLimit(r.parallel)
	for _, unit := range r.units {
		containers.Go(func() error { return r.runUnit(ctx, unit) })
	}
	err := errors.Join(containers.Wait(), static.Wait())
	r.finish(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("run the tests: stopped early: %w", cause)
	}
	return r.report, err
}

// run is the state of one run of a suite.
type run struct {
	Options
	suiteDir string // base directory of golden files and mounts
	log      io.Writer
	parallel int
	config   *v1.ConfigFile
	units    [][]*Result // tests with containers, in start order; tests of a unit run in sequence in one container
	static   []*Result   // tests without containers
	tests    map[*Result]*Test
	report   *Report

	mutex sync.Mutex // guards done and log
	done  int
}

func newRun(s *Suite, o Options) (*run, error) {
	r := &run{Options: o, suiteDir: s.dir, log: o.Log, parallel: o.Parallel, tests: map[*Result]*Test{}}
	if r.log == nil {
		r.log = io.Discard
	}
	if r.parallel <= 0 {
		r.parallel = runtime.NumCPU()
	}
	if r.config = o.Config; o.Image != nil {
		var err error
		if r.config, err = o.Image.ConfigFile(); err != nil {
			return nil, fmt.Errorf("read the image's config: %w", err)
		}
	}
	seed := o.Seed
	for seed == 0 {
		seed = rand.Uint64()
	}
	r.report = &Report{Suite: s.Name, File: s.File, Image: o.ImageID, Seed: seed, Started: time.Now()}
	sessions := map[Word]int{} // indexes of their units
	for _, t := range s.Tests {
		if !r.isSelected(t) {
			continue
		}
		result := &Result{Name: t.Name, File: s.File, Line: t.Line, Tags: stringsOf(t.Tags)}
		r.report.Tests = append(r.report.Tests, result)
		r.tests[result] = t
		unit, started := sessions[t.Session]
		switch {
		case t.Skip != "":
			result.Status, result.Reason = Skipped, t.Skip
		case t.Image != nil || t.Files != nil:
			r.static = append(r.static, result)
		case o.Target == nil:
			return nil, fmt.Errorf("test %q needs a container, but no Docker Engine is available; start one, or select tests "+
				"of files and metadata", t.Name)
		case t.Session != "" && started:
			r.units[unit] = append(r.units[unit], result)
		default:
			if t.Session != "" {
				sessions[t.Session] = len(r.units)
			}
			r.units = append(r.units, []*Result{result})
		}
	}
	if len(r.report.Tests) == 0 {
		return nil, fmt.Errorf("no tests of %s match the selected names and tags (the suite has %d tests)",
			s.File, len(s.Tests))
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	swap := func(i, j int) { r.units[i], r.units[j] = r.units[j], r.units[i] }
	rand.New(rand.NewChaCha8(key)).Shuffle(len(r.units), swap)
	for _, result := range r.report.Tests {
		if result.Status == Skipped {
			r.reportProgress(result)
		}
	}
	return r, nil
}

func (r *run) isSelected(t *Test) bool {
	if r.Run != nil && !r.Run.MatchString(t.Name) {
		return false
	}
	hasTag := func(tag string) bool { return slices.Contains(t.Tags, Word(tag)) }
	return r.Tags == nil || slices.ContainsFunc(r.Tags, hasTag)
}

// reap removes containers of earlier runs that were killed. It returns an error only if it could remove none.
func (r *run) reap(ctx context.Context) error {
	if r.Target == nil {
		return nil
	}
	removed, err := r.Target.Reap(ctx)
	switch {
	case err != nil && removed == 0:
		return err
	case err != nil:
		fmt.Fprintf(r.log, "%v\n", err)
	case removed > 0:
		fmt.Fprintf(r.log, "removed %d containers of an earlier run\n", removed)
	}
	return nil
}

// runStatic runs the tests of metadata and files. It reads each layer at most twice: for the headers and the contents.
func (r *run) runStatic(ctx context.Context) error {
	opened := (*Tree)(nil)
	readTree := sync.OnceValues(func() (_ *Tree, err error) {
		opened, err = r.readTree(ctx)
		return opened, err
	})
	defer func() {
		if opened != nil && opened.close != nil {
			r.logError(opened.close())
		}
	}()
	fileResults := map[*Result][]*fileResult{}
	var contentFiles []File // of all tests in order
	for _, result := range r.static {
		started := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		t := r.tests[result]
		if t.Image != nil {
			result.Failures = t.Image.check(r.config, func() (int64, error) {
				if r.Image == nil {
					return 0, &UnsupportedError{"max_size is not supported without the image's layers"}
				}
				tree, err := readTree()
				if err != nil {
					return 0, err
				}
				return tree.Size, nil
			})
		} else if tree, err := readTree(); err != nil {
			result.Failures = executionFailure(ctx, t.Line, err)
		} else {
			tree.hidden = ""
			checks := []*fileResult{}
			for i := range t.Files {
				checks = append(checks, checkFiles(tree, r.expandPath(t, &t.Files[i])))
			}
			if hidden := tree.hiddenFrom(checks); hidden != "" {
				result.Failures = executionFailure(ctx, t.Line, unsupported("the image's user cannot read %s", quote(hidden)))
			} else {
				fileResults[result] = checks
				for _, checked := range checks {
					contentFiles = append(contentFiles, checked.contentFiles...)
				}
			}
		}
		result.Duration = time.Since(started)
	}
	var contents [][]byte
	var contentsErr error
	if len(contentFiles) > 0 {
		if tree, err := readTree(); err == nil { // returns the tree that was read above
			contents, contentsErr = tree.Contents(contentFiles)
		}
	}
	for _, result := range r.static {
		for _, checked := range fileResults[result] {
			result.Failures = append(result.Failures, checked.failures(contents, contentsErr, r.suiteDir)...)
			if contentsErr == nil {
				contents = contents[len(checked.contentFiles):]
			}
		}
		if result.Attempts = 1; len(result.Failures) > 0 && result.Failures[0].skip {
			result.skip(result.Failures[0].Message)
		}
		if err := r.finalize(result, nil); err != nil {
			return err
		}
	}
	return nil
}

// readTree reads the files of the image from its layers or, without them, from the target.
func (r *run) readTree(ctx context.Context) (*Tree, error) {
	reader, ok := r.Target.(treeReader)
	if r.Image == nil && ok {
		return reader.readTree(ctx)
	}
	tree, err := ReadTree(ctx, r.Image)
	if err == nil {
		tree.addMountPoints(&r.config.Config)
	}
	return tree, err
}

// cleanKeepingSlash returns the shortest path, with a slash at the end if it can only name a directory.
func cleanKeepingSlash(name string) string {
	clean := path.Clean(name)
	if clean != "/" && (strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.")) {
		clean += "/"
	}
	return clean
}

// expandPath returns the check with the references in its path replaced, if the test sets expand.
func (r *run) expandPath(t *Test, check *FileCheck) *FileCheck {
	if !t.Expand {
		return check
	}
	expanded := *check
	quoted := func(name string) string { return string(literalPath(r.imageVariable(name))) }
	expanded.Path = PathPattern(cleanKeepingSlash(os.Expand(string(check.Path), quoted)))
	return &expanded
}

// runUnit runs the tests of a session in a shared container, or a single test. It starts no test after ctx ends.
func (r *run) runUnit(ctx context.Context, unit []*Result) error {
	var shared *testInstance
	defer func() { r.closeContainer(ctx, &shared) }()
	for _, result := range unit {
		started := time.Now()
		log, completed := r.runWithRetries(ctx, result, &shared)
		if !completed {
			result.Attempts, result.Failures = 0, nil
			return nil
		}
		result.Duration = time.Since(started)
		if err := r.finalize(result, log); err != nil {
			return err
		}
	}
	return nil
}

// runWithRetries runs a test until it passes or has no retries left. It returns the container's output, or nil if the
// test passed on the first attempt. completed is false if ctx ended, in which case the test has no result.
func (r *run) runWithRetries(
	ctx context.Context, result *Result, shared **testInstance,
) (log []byte, completed bool) {
	t := r.tests[result]
	for ctx.Err() == nil {
		result.Attempts++
		failures, printed := r.attempt(ctx, t, shared)
		switch {
		case ctx.Err() != nil:
			return nil, false
		case len(failures) > 0 && failures[0].skip:
			result.skip(failures[0].Message)
			return nil, true
		case len(failures) == 0 && result.Attempts == 1:
			return nil, true
		case len(failures) == 0:
			result.Status = Flaky
			return printed, true
		}
		result.Failures = failures
		if result.Attempts > t.Retries {
			return printed, true
		}
		r.closeContainer(ctx, shared) // a retry starts in a new container
	}
	return nil, false
}

// attempt runs a test once. It returns the failures and everything that the container printed.
func (r *run) attempt(ctx context.Context, t *Test, shared **testInstance) ([]Failure, []byte) {
	timeout := time.Duration(t.Timeout)
	limited, cancel := withTimeout(ctx, timeout)
	defer cancel()
	if t.Service == nil && t.Session != "" {
		return r.runInSession(limited, t, shared)
	}
	var own *testInstance
	defer func() { r.closeContainer(ctx, &own) }() // ctx: the time for the removal does not depend on the test's timeout
	switch {
	case t.Service != nil:
		return r.runService(limited, t, &own)
	case len(t.Setup) > 0:
		return r.runInSession(limited, t, &own)
	}
	return r.runCommand(limited, t, &own)
}

// withTimeout returns a context that ends with a [*timeoutError]. [pauseTimeout] stops its clock.
func withTimeout(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(&timeoutError{limit}) })
	pause := func() (resume func()) {
		if timer.Stop() {
			return func() { timer.Reset(limit) }
		}
		return func() {}
	}
	return context.WithValue(ctx, pauseKey{}, pause), func() {
		timer.Stop()
		cancel(nil)
	}
}

type pauseKey struct{}

// pauseTimeout stops the clock of a test's timeout, which starts again with resume.
func pauseTimeout(ctx context.Context) (resume func()) {
	if pause, ok := ctx.Value(pauseKey{}).(func() func()); ok {
		return pause()
	}
	return func() {}
}

// timeoutError reports a test that took too long.
type timeoutError struct{ limit time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("timed out after %s and was killed", e.limit)
}

// finalize sets the status of a finished test, removes secrets, stores the log, and reports progress.
func (r *run) finalize(result *Result, log []byte) error {
	if result.Status == "" {
		result.Status = Passed
		if len(result.Failures) > 0 {
			result.Status = Failed
		}
	}
	result.Reason = cleanLines(result.Reason, r.Clean)
	for i := range result.Failures {
		f := &result.Failures[i]
		f.Message, f.Detail = cleanLines(f.Message, r.Clean), cleanLines(f.Detail, r.Clean)
	}
	var err error
	if len(log) > 0 && r.ReportDir != "" {
		result.Log, err = r.writeLog(result, log)
	}
	r.reportProgress(result)
	return err
}

// cleanLines applies clean to each line of a text.
func cleanLines(text string, clean func(line string) string) string {
	if clean == nil {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

// unsafeInFileName matches characters that are replaced in the name of a log file.
var unsafeInFileName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// writeLog writes a container's output to the report directory and returns the path of the file.
func (r *run) writeLog(result *Result, log []byte) (string, error) {
	// The number distinguishes tests with names that differ only in replaced characters.
	number := slices.Index(r.report.Tests, result) + 1
	name := strings.Trim(unsafeInFileName.ReplaceAllString(truncate(result.Name, 80), "-"), "-")
	file := filepath.Join("logs", fmt.Sprintf("%03d-%s.log", number, name))
	if err := WriteBelow(r.ReportDir, file, []byte(cleanLines(string(log), r.Clean))); err != nil {
		return "", fmt.Errorf("write the log of test %q: %w", result.Name, err)
	}
	return filepath.Join(r.ReportDir, file), nil
}

// WriteBelow writes a file below dir and creates missing directories. It fails if a symbolic link leads out of dir,
// because an untrusted repository could use one to overwrite other files of the machine.
func WriteBelow(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return root.WriteFile(name, data, 0o644)
}

func (r *run) reportProgress(result *Result) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.done++
	if r.Progress != nil {
		r.Progress(result, r.done, len(r.report.Tests))
	}
}

// finish completes the report and marks the tests that did not run as skipped.
func (r *run) finish(ctx context.Context) {
	for _, result := range r.report.Tests {
		if result.Status != "" {
			continue
		}
		result.Status, result.Reason, result.NotRun = Skipped, "not run", true
		if cause := context.Cause(ctx); cause != nil {
			result.Reason += ": " + cause.Error()
		}
	}
	r.report.Duration = time.Since(r.report.Started)
	r.report.count()
}

func stringsOf[T ~string](list []T) []string {
	var converted []string
	for _, s := range list {
		converted = append(converted, string(s))
	}
	return converted
}
