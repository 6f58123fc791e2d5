package suite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// Engine makes the containers that tests run in. [*dockerengine.Engine] is one.
type Engine interface {
	Create(context.Context, dockerengine.ContainerSpec) (*dockerengine.Container, error)
	// Reap removes what runs that were killed have left.
	Reap(context.Context) (removed int, err error)
}

// Options say what is tested, and how.
type Options struct {
	Image   v1.Image // whose config and layers are looked at
	ImageID string   // what the engine calls it: an id, so that all containers are of one image whatever its name becomes
	Engine  Engine

	Parallel  int            // containers at a time; 0: one for each processor
	Seed      uint64         // of the order; 0: a random one, which the report tells
	Run       *regexp.Regexp // only tests whose name it matches; nil: all
	Tags      []string       // only tests that have one of them; nil: all
	ReportDir string         // gets the logs of failed tests' containers, in logs/; "": they are not kept

	// Log gets our own lines: what was cleaned up. Nil: nobody.
	Log io.Writer
	// Clean is applied to each line that came out of the image before it is kept, to take secrets out. Nil: nothing is.
	Clean func(line string) string
	// Progress is told of each test when it has ended, one at a time, and how many of how many have. Nil: nobody.
	Progress func(r *Result, done, total int)
}

// Run runs a suite's tests, and reports them in the suite's order. That tests fail is no error: an error is that they could not be run, or
// that ctx ended, and then the report tells how far it came. All containers are removed when it returns.
func Run(ctx context.Context, s *Suite, o Options) (*Report, error) {
	r, err := newRun(s, o)
	if err != nil {
		return nil, err
	}
	if o.Engine != nil {
		switch removed, err := o.Engine.Reap(ctx); {
		case err != nil && removed == 0: // the engine does not even list them
			return nil, err
		case err != nil:
			fmt.Fprintf(r.log, "%v\n", err)
		case removed > 0:
			fmt.Fprintf(r.log, "removed %d containers that an earlier run left\n", removed)
		}
	}
	var layers errgroup.Group // needs a processor, and no container
	layers.Go(func() error { return r.inspect(ctx) })
	var containers errgroup.Group
	containers.SetLimit(r.parallel)
	for _, u := range r.units {
		containers.Go(func() error { return r.unit(ctx, u) })
	}
	err = errors.Join(containers.Wait(), layers.Wait())
	r.finish(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("the tests were not all run: %w", cause)
	}
	return r.report, err
}

// run is one run of a suite.
type run struct {
	Options
	dir      string // of the suite's file
	log      io.Writer
	parallel int
	config   *v1.ConfigFile
	units    [][]*Result // tests in containers, in the order in which they start; of one unit one after another
	static   []*Result   // tests that need none
	tests    map[*Result]*Test
	report   *Report

	mutex sync.Mutex // guards what results of different units share
	done  int
}

func newRun(s *Suite, o Options) (*run, error) {
	r := &run{Options: o, dir: s.dir, log: o.Log, parallel: o.Parallel, tests: map[*Result]*Test{}}
	if r.log == nil {
		r.log = io.Discard
	}
	if r.parallel <= 0 {
		r.parallel = runtime.NumCPU()
	}
	var err error
	if r.config, err = o.Image.ConfigFile(); err != nil {
		return nil, fmt.Errorf("read the image's config: %w", err)
	}
	seed := o.Seed
	for seed == 0 {
		seed = rand.Uint64()
	}
	r.report = &Report{Suite: s.Name, File: s.File, Image: o.ImageID, Seed: seed, Started: time.Now()}
	sessions := map[string]int{}
	for _, t := range s.Tests {
		if !r.chosen(t) {
			continue
		}
		result := &Result{Name: t.Name, File: s.File, Line: t.Line, Tags: t.Tags}
		r.report.Tests = append(r.report.Tests, result)
		r.tests[result] = t
		at, shared := sessions[t.Session]
		switch {
		case t.Skip != "":
			result.Status, result.Reason = Skipped, t.Skip
		case t.Image != nil || t.Files != nil:
			r.static = append(r.static, result)
		case o.Engine == nil:
			return nil, fmt.Errorf("test %q starts a container, and there is no Docker Engine: start one, or choose tests of files and metadata", t.Name)
		case t.Session != "" && shared:
			r.units[at] = append(r.units[at], result)
		default:
			if t.Session != "" {
				sessions[t.Session] = len(r.units)
			}
			r.units = append(r.units, []*Result{result})
		}
	}
	if len(r.report.Tests) == 0 {
		return nil, fmt.Errorf("no test of %s is chosen by the pattern and tags that were given: there are %d", s.File, len(s.Tests))
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.New(rand.NewChaCha8(key)).Shuffle(len(r.units), func(i, j int) { r.units[i], r.units[j] = r.units[j], r.units[i] })
	for _, result := range r.report.Tests {
		if result.Status == Skipped {
			r.ended(result)
		}
	}
	return r, nil
}

func (r *run) chosen(t *Test) bool {
	if r.Run != nil && !r.Run.MatchString(t.Name) {
		return false
	}
	return r.Tags == nil || slices.ContainsFunc(r.Tags, func(tag string) bool { return slices.Contains(t.Tags, tag) })
}

// inspect runs the tests of metadata and files. Each layer is read once for all headers, and once more for contents.
func (r *run) inspect(ctx context.Context) error {
	var tree *Tree
	var treeErr error
	read := func() (*Tree, error) {
		if tree == nil && treeErr == nil {
			tree, treeErr = ReadTree(ctx, r.Image)
		}
		return tree, treeErr
	}
	layers, err := r.Image.Layers()
	if err != nil {
		return fmt.Errorf("read the image's layers: %w", err)
	}
	looks := map[*Result][]*look{}
	var wanted []File
	began := map[*Result]time.Time{}
	for _, result := range r.static {
		t := r.tests[result]
		began[result] = time.Now()
		if ctx.Err() != nil {
			return nil
		}
		if t.Image != nil {
			result.Failures = t.Image.check(r.config, len(layers), func() (int64, error) {
				tree, err := read()
				if err != nil {
					return 0, err
				}
				return tree.Size, nil
			})
			continue
		}
		tree, err := read()
		if err != nil {
			result.Failures = []Failure{{Line: t.Line, Message: err.Error()}}
			continue
		}
		for i := range t.Files {
			l := lookFor(tree, &t.Files[i])
			looks[result] = append(looks[result], l)
			wanted = append(wanted, l.content...)
		}
		result.Duration = time.Since(began[result])
	}
	var contents [][]byte
	var contentsErr error
	if len(wanted) > 0 {
		contents, contentsErr = tree.Contents(wanted)
	}
	for _, result := range r.static {
		for _, l := range looks[result] {
			for _, message := range l.wrong {
				result.Failures = append(result.Failures, Failure{Line: l.check.Line, Message: message})
			}
			for _, f := range l.content {
				if contentsErr != nil {
					result.Failures = append(result.Failures, Failure{Line: l.check.Line, Message: contentsErr.Error()})
					break
				}
				result.Failures = append(result.Failures, l.check.Content.check(f.Path, string(contents[0]), r.dir)...)
				contents = contents[1:]
			}
		}
		result.Attempts = 1
		if err := r.judge(result, nil); err != nil {
			return err
		}
	}
	return nil
}

// unit runs the tests that share a container, or one that has its own. Once ctx has ended none is begun.
func (r *run) unit(ctx context.Context, results []*Result) error {
	var shared *box
	defer func() { r.remove(ctx, shared) }()
	for _, result := range results {
		t := r.tests[result]
		var log []byte
		began := time.Now()
		for result.Attempts <= t.Retries && ctx.Err() == nil {
			result.Attempts++
			var failures []Failure
			failures, log = r.attempt(ctx, t, &shared)
			if ctx.Err() != nil {
				return nil // it says nothing about the test
			}
			if len(failures) == 0 {
				if result.Attempts > 1 {
					result.Status = Flaky
				}
				break
			}
			result.Failures = failures
			if result.Attempts <= t.Retries {
				r.remove(ctx, shared) // the next try begins anew
				shared = nil
			}
		}
		if result.Attempts == 0 {
			return nil
		}
		result.Duration = time.Since(began)
		if result.Status != Flaky && result.Attempts > 0 && len(result.Failures) == 0 {
			log = nil
		}
		if err := r.judge(result, log); err != nil {
			return err
		}
	}
	return nil
}

// attempt runs a test in a container once. What it answers beside the failures is all that the container printed.
func (r *run) attempt(ctx context.Context, t *Test, shared **box) (failures []Failure, log []byte) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(t.Timeout), &tooSlow{time.Duration(t.Timeout)})
	defer cancel()
	switch {
	case t.Service != nil:
		return r.service(ctx, t)
	case t.Session != "" || len(t.Setup) > 0:
		return r.session(ctx, t, shared)
	}
	return r.command(ctx, t)
}

// tooSlow is the end of a test's time.
type tooSlow struct{ limit time.Duration }

func (e *tooSlow) Error() string {
	return fmt.Sprintf("it did not end within %s, and was killed", e.limit)
}

// judge decides what a test's failures mean, keeps its log, and tells of it.
func (r *run) judge(result *Result, log []byte) error {
	if result.Status == "" {
		result.Status = Passed
		if len(result.Failures) > 0 {
			result.Status = Failed
		}
	}
	for i := range result.Failures {
		f := &result.Failures[i]
		f.Message, f.Detail = r.clean(f.Message), r.clean(f.Detail)
	}
	var err error
	if len(log) > 0 && r.ReportDir != "" {
		result.Log, err = r.keep(result, log)
	}
	r.ended(result)
	return err
}

func (r *run) clean(text string) string { return cleanLines(text, r.Clean) }

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

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// keep writes a container's log into the report's folder and answers where.
func (r *run) keep(result *Result, log []byte) (string, error) {
	// The line, too: two names may differ in nothing else than what a file's name can not hold.
	number := slices.Index(r.report.Tests, result) + 1
	name := strings.Trim(notInNames.ReplaceAllString(shorten(result.Name, 80), "-"), "-")
	file := filepath.Join("logs", fmt.Sprintf("%03d-%s.log", number, name))
	if err := WriteBelow(r.ReportDir, file, []byte(r.clean(string(log)))); err != nil {
		return "", fmt.Errorf("keep the log of test %q: %w", result.Name, err)
	}
	return filepath.Join(r.ReportDir, file), nil
}

// WriteBelow writes a file of a report below dir, and makes the folders that it needs. A link there that leads out of dir is refused: the
// repository that is tested may have it, to have us write over another file of the machine.
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

func (r *run) ended(result *Result) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.done++
	if r.Progress != nil {
		r.Progress(result, r.done, len(r.report.Tests))
	}
}

// finish counts, and says of what was never run why.
func (r *run) finish(ctx context.Context) {
	for _, result := range r.report.Tests {
		if result.Status == "" {
			result.Status, result.Reason = Skipped, "not run"
			if cause := context.Cause(ctx); cause != nil {
				result.Reason += ": " + cause.Error()
			}
		}
	}
	r.report.Duration = time.Since(r.report.Started)
	r.report.count()
}
