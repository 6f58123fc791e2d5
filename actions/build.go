package actions

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
	"golang.org/x/sync/errgroup"
)

// BuildResult is what a build publishes, field by field, as outputs of the step.
type BuildResult struct {
	Digest      string `output:"digest" help:"Digest of what was built: of the manifest, or of the index when there are several platforms or attestations. An image that is only loaded has its layers compressed otherwise, and so another digest, than one that is pushed or saved; image_id is the same."`
	ImageID     string `output:"image_id" help:"Digest of the image's config (of the loaded platform's, when there are several)."`
	ImageRef    string `output:"image_ref" help:"What a later step or job should use: the first pushed reference, else the one in Depot's registry, both with the digest; else the local name."`
	ImageName   string `output:"image_name" help:"Name in the local engine; empty when it was not loaded."`
	Platforms   string `output:"platforms" help:"Platforms that were built, by comma."`
	GitSHA      string `output:"git_sha" help:"Commit that was built."`
	GitRef      string `output:"git_ref" help:"Ref that was built, in full; empty when a SHA was given."`
	BuildID     string `output:"build_id" help:"Depot's id of the build."`
	BuildURL    string `output:"build_url" help:"The build's page at Depot."`
	ProjectID   string `output:"project_id" help:"Depot project."`
	CachedSteps int    `output:"cached_steps" help:"Steps of the Dockerfile that were taken from the cache."`
	TotalSteps  int    `output:"total_steps" help:"Steps of the Dockerfile, without FROM, of all platforms."`
	Metadata    string `output:"metadata" help:"What BuildKit's exporter answered, as JSON; by platform when there are several."`
}

// Build builds an image from a ref and, as the inputs say, loads it, pushes it and keeps it. Outputs and summary are written only
// when all of that is done.
//
// An error is one sentence: what failed, why, and what to do.
func (p *Program) Build(ctx context.Context, in *BuildInputs) error {
	b, err := p.newBuild(in)
	if err != nil {
		return err
	}
	return b.within(ctx, func(ctx context.Context) error {
		if err := b.prepare(ctx); err != nil {
			return err
		}
		return b.make(ctx, b.load)
	}, b.publish)
}

// build is one build under way.
type build struct {
	*Program
	in      *BuildInputs
	event   runner.Event
	plan    *plan
	phases  phases
	scratch string
	began   time.Time

	withoutDoppler bool // goes as well, where no token is given
	needsEngine    bool // to load is no choice
	credentials    credentials
	tree           source.Tree
	commit         source.Commit
	engine         *dockerengine.Engine // nil without load
	loads          string               // the platform that is loaded
	work           *builder.Build
	solved         []*image.Result // in the order of the platforms
	stats          image.Stats
	index          v1.ImageIndex // nil for one platform
	result         BuildResult
}

// newBuild checks the inputs, and hides the build secrets that they name, before anything is done.
func (p *Program) newBuild(in *BuildInputs) (*build, error) {
	plan, err := check(in, p.Getenv, p.Dir)
	if err != nil {
		return nil, err
	}
	for _, read := range plan.request.Secrets {
		if secret, err := read(); err == nil {
			p.Runner.Mask(string(secret))
		}
	}
	return &build{Program: p, in: in, event: runner.ReadEvent(p.Getenv), plan: plan, began: time.Now()}, nil
}

// within runs a story with its deadline and its temporary folder, and publishes when it went well.
func (b *build) within(ctx context.Context, story func(context.Context) error, publish func() error) (err error) {
	ctx, stop := b.phases.deadline(ctx, b.in.Timeout)
	defer stop()
	if b.scratch, err = os.MkdirTemp(b.Getenv("RUNNER_TEMP"), "sandbox-"); err != nil {
		return fmt.Errorf("make a temporary folder: %w: free some space, or set RUNNER_TEMP to a folder that can be written", err)
	}
	defer os.RemoveAll(b.scratch)
	if err = b.afford(ctx); err == nil {
		err = story(ctx)
	}
	if err != nil {
		// What is said beside the cause is kept, but nothing that was being done is to blame for an end by signal or by timeout.
		if cause := context.Cause(ctx); cause != nil {
			said := err.Error()
			doing := strings.HasPrefix(said, "input ") || strings.HasSuffix(said, cause.Error()) && !strings.Contains(said, "\n")
			if doing || !errors.Is(err, cause) {
				return cause
			}
		}
		return err
	}
	return publish()
}

// prepare finds out, all at once, what can be wrong before a build: the engine, the credentials, the ref.
func (b *build) prepare(ctx context.Context) error {
	var first errgroup.Group
	first.Go(func() error { return b.openEngine(ctx) })
	first.Go(func() error { return b.enterDoppler(ctx) })
	if err := first.Wait(); err != nil {
		return err
	}
	return b.resolve(ctx)
}

func (b *build) enterDoppler(ctx context.Context) (err error) {
	defer b.phases.begin("Doppler")()
	b.credentials, err = b.findCredentials(ctx, b.in.DopplerInputs, b.repositoryName(), b.withoutDoppler)
	return err
}

// make builds every platform, pushes what is to be pushed, and lets use have the images as long as the builder is there.
func (b *build) make(ctx context.Context, use func(context.Context) error) (err error) {
	// The tree is fetched while the builder gets ready, unless only the tree knows the builder's project.
	start, err := b.builder()
	if errors.Is(err, builder.ErrNoProject) && b.commit.SHA != "" {
		if err = b.fetch(ctx); err == nil {
			start, err = b.builder()
		}
	}
	if err != nil {
		return err
	}
	// Whatever fails first, the others need not be waited for.
	waiting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var second errgroup.Group
	begin := func(what string, do func() error) {
		done := b.phases.begin("%s", what)
		second.Go(func() error {
			defer done()
			err := do()
			if err != nil {
				giveUp(err)
			}
			return err
		})
	}
	begin("the commit", func() error { return b.fetch(waiting) })
	begin("the builder", func() error {
		work, err := start.Start(waiting, b.builderRequest())
		if err != nil {
			return err
		}
		b.work = work
		context.AfterFunc(ctx, func() { work.Finish(context.Canceled) })
		for _, platform := range b.plan.platforms { // acquired side by side; Machine is asked again by solve
			begin("a machine for "+platform, func() error {
				_, err := work.Machine(waiting, platform)
				return err
			})
		}
		return nil
	})
	if err = second.Wait(); err != nil && context.Cause(waiting) != nil {
		err = context.Cause(waiting)
	}
	if b.work != nil {
		defer func() { b.work.Finish(b.outcome(ctx, err)) }()
	}
	if err != nil {
		return err
	}
	if b.work.URL != "" {
		b.Runner.Infof("Depot build %s: %s", b.work.ID, b.work.URL)
	}
	if err = b.solve(ctx); err != nil {
		return err
	}
	if err = b.push(ctx); err != nil {
		return err
	}
	return use(ctx)
}

// outcome is what the builder is told of the end.
func (b *build) outcome(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Canceled
	case err != nil:
		return errors.New(b.Runner.Redact(err.Error()))
	}
	return nil
}

// openEngine finds the Docker Engine before anything is spent on an image that it could not take.
func (b *build) openEngine(ctx context.Context) (err error) {
	if !b.in.Load {
		return nil
	}
	defer b.phases.begin("the Docker Engine")()
	if b.engine, err = dockerengine.Open(ctx, b.Getenv); err != nil {
		if b.needsEngine {
			return err
		}
		return fmt.Errorf("input load: %w, or set load: false", err)
	}
	platform, err := b.engine.Platform(ctx)
	if err != nil {
		return err
	}
	b.loads = b.plan.platforms[0]
	if len(b.plan.platforms) == 1 {
		if b.loads != platform {
			b.Runner.Infof("The image is for %s and the Docker Engine is %s: it is loaded all the same, and runs there only by emulation", b.loads, platform)
		}
		return nil
	}
	for _, built := range b.plan.platforms {
		if built == platform {
			b.loads = platform
			b.Runner.Infof("Of the platforms %s is loaded: it is the Docker Engine's", platform)
			return nil
		}
	}
	return refuse("platform", strings.Join(b.plan.platforms, ","), "does not hold the Docker Engine's own, "+platform+": add it, or set load: false")
}

// solve builds every platform on its own machine, at the same time, and shows it.
func (b *build) solve(ctx context.Context) error {
	defer b.phases.begin("the build")()
	var requests []image.Request
	for _, platform := range b.plan.platforms {
		request, err := b.request(platform)
		if err != nil {
			return err
		}
		requests = append(requests, request)
	}
	// On success it lasts as long as ctx: the images are read later.
	solving, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, func() { cancel(nil) })
	b.solved = make([]*image.Result, len(requests))
	machines := make([]image.PlatformStatus, len(requests))
	var solves errgroup.Group
	for i, request := range requests {
		machines[i] = image.PlatformStatus{Platform: request.Platform, Status: make(chan *client.SolveStatus)}
		solves.Go(func() error {
			machine, err := b.work.Machine(ctx, request.Platform) // connected by now
			if err != nil {
				close(machines[i].Status)
			} else {
				b.solved[i], err = image.Solve(solving, machine, request, machines[i].Status)
			}
			if err != nil {
				cancel(err) // the other platforms need not be built to their ends
			}
			return err
		})
	}
	done := make(chan error, 1)
	go func() {
		stats, shown := image.Progress(ctx, machines, b.Runner.Clean, b.display())
		err := solves.Wait()
		b.stats = stats
		if err == nil && shown != nil {
			b.Runner.Infof("The progress could not be shown: %v", shown)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if cause := context.Cause(solving); err != nil && cause != nil {
			err = cause
		}
		b.annotate(err)
		return err
	case <-ctx.Done():
		select { // the builder is told at once; its last words are waited for only shortly
		case <-done:
		case <-time.After(2 * time.Second):
		}
		return context.Cause(ctx)
	}
}

// request is everything about one platform's solve.
func (b *build) request(platform string) (image.Request, error) {
	r, err := b.plan.forPlatform(platform, b.Dir)
	if err != nil {
		return r, err
	}
	r.Push = append(b.savedTags(), b.plan.push...)
	if len(b.plan.platforms) > 1 {
		r.PushByDigest = true
		for i, reference := range r.Push {
			r.Push[i] = repository(reference)
		}
	}
	r.Auth = b.auth()
	for name, value := range b.credentials.secrets {
		if r.Secrets[name] == nil && !slices.Contains(ours, name) {
			r.Secrets[name] = func() ([]byte, error) { return []byte(value), nil }
		}
	}
	if epoch := b.Getenv("SOURCE_DATE_EPOCH"); epoch != "" && r.BuildArgs["SOURCE_DATE_EPOCH"] == "" {
		r.BuildArgs["SOURCE_DATE_EPOCH"] = epoch
	}
	r.Compression = b.compression()
	if b.in.Load && platform == b.loads {
		r.LayerDir = filepath.Join(b.scratch, "layers")
		if err := os.MkdirAll(r.LayerDir, 0o700); err != nil {
			return r, fmt.Errorf("make a temporary folder: %w", err)
		}
	}
	r.SharedKey = b.sharedKey(platform)
	return r, nil
}

// ours are credentials for services that we speak to, and no step of a Dockerfile does: of Doppler's secrets they are no build secrets.
var ours = []string{"DEPOT_TOKEN", "DAYTONA_API_KEY"}

// compression decides how layers are compressed, which is much of the time of a cold build. What others will name by its digest is as every
// registry has it, whatever was built before; what only our engine gets is as fast as can be.
func (b *build) compression() image.Compression {
	switch {
	case b.engine == nil || len(b.plan.push) > 0 || b.in.Save || len(b.plan.outputs) > 0 || len(b.plan.platforms) > 1:
		return image.Gzip
	case !b.engine.ReadsZstd():
		return image.GzipFast
	case builder.Near(b.in.Builder):
		return image.Uncompressed
	}
	return image.ZstdFast
}

// sharedKey lets the builder keep what it was sent. A fetched tree has times made from its content, so all machines share one key;
// a checkout's files are known by their times only on the machine that they are on.
func (b *build) sharedKey(platform string) string {
	place := b.repositoryName()
	if b.commit.SHA == "" {
		host, _ := os.Hostname()
		place = host + "\n" + b.tree.Dir
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(place+"\n"+b.in.Context+"\n"+platform)))
}

func (b *build) auth() image.Auth {
	auth := image.Auth{Mask: b.Runner.Mask}
	for _, c := range b.work.Credentials {
		auth.Credentials = append(auth.Credentials, image.Credential(c))
	}
	return auth
}

// savedTags are the references in Depot's registry.
func (b *build) savedTags() []string {
	tags := append([]string(nil), b.work.Tags...)
	if len(tags) > 0 {
		for _, tag := range b.plan.saveTags {
			tags = append(tags, repository(tags[0])+":"+tag)
		}
	}
	return tags
}

// repository is a reference without its tag.
func repository(reference string) string {
	if i := strings.LastIndex(reference, ":"); i > strings.LastIndex(reference, "/") {
		return reference[:i]
	}
	return reference
}

// push gives several platforms one name: BuildKit has pushed each from its machine, and the index is ours.
func (b *build) push(ctx context.Context) (err error) {
	if len(b.solved) == 1 {
		b.result.Digest = b.solved[0].Digest.String()
		return nil
	}
	if b.index, err = image.JoinPlatforms(b.solved, b.plan.indexAnnotations()); err != nil {
		return fmt.Errorf("make the index of %s: %w", strings.Join(b.plan.platforms, " and "), err)
	}
	digest, err := b.index.Digest()
	if err != nil {
		return fmt.Errorf("make the index of %s: %w", strings.Join(b.plan.platforms, " and "), err)
	}
	b.result.Digest = digest.String()
	var pushes errgroup.Group
	for _, reference := range append(b.savedTags(), b.plan.push...) {
		pushes.Go(func() error {
			defer b.phases.begin("the push of %s", reference)()
			return image.PushIndex(ctx, reference, b.index, b.auth())
		})
	}
	return pushes.Wait()
}

// loaded is the result that goes to the engine, or the first one.
func (b *build) loaded() *image.Result {
	for _, r := range b.solved {
		if r.Platform == b.loads {
			return r
		}
	}
	return b.solved[0]
}

// load puts what was built into the engine, if it is to be there.
func (b *build) load(ctx context.Context) error {
	if !b.in.Load {
		return nil
	}
	return b.loadImage(ctx, b.loaded().Image)
}

func (b *build) loadImage(ctx context.Context, built v1.Image) error {
	defer b.phases.begin("the Docker Engine to load %s", b.in.ImageName)()
	b.Runner.Group("Load " + b.in.ImageName)
	defer b.Runner.EndGroup()
	began := time.Now()
	b.engine.Progress = func(l dockerengine.Layer) {
		if l.Sent == l.Size {
			b.Runner.Infof("%s", l)
		}
	}
	loaded, err := b.engine.Load(ctx, b.in.ImageName, built)
	if err != nil {
		return err
	}
	b.Runner.Infof("Loaded %s in %s: %s", b.in.ImageName, time.Since(began).Round(10*time.Millisecond), loaded)
	return nil
}

// annotate puts what BuildKit's checks found at the lines that it is about, and shows the lines that failed.
func (b *build) annotate(err error) {
	file := b.relative(b.plan.request.Dockerfile)
	for _, w := range b.stats.Warnings {
		message := w.Short
		if w.Detail != "" {
			message += ": " + w.Detail
		}
		if w.URL != "" {
			message += " (" + w.URL + ")"
		}
		b.Runner.Warning(runner.Annotation{Title: "Dockerfile check", File: file, Line: w.Line, EndLine: w.EndLine, Message: message})
	}
	if failed := new(image.BuildError); errors.As(err, &failed) && failed.Excerpt != "" {
		failed.File = file
		out := b.Runner.Untrusted()
		fmt.Fprint(out, failed.Excerpt)
		_ = out.Close() // to the log: there is nowhere to report to
	}
}

// relative is a path as the repository's readers know it.
func (b *build) relative(path string) string {
	for _, root := range []string{b.tree.Dir, b.Dir} {
		if relative, err := filepath.Rel(root, path); err == nil && root != "" && !strings.HasPrefix(relative, "..") {
			return relative
		}
	}
	return path
}

func (b *build) display() image.Display {
	switch {
	case b.Runner.InActions():
		return image.Groups(b.Runner)
	case b.Display != nil:
		return image.Terminal(b.Display)
	}
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		out := b.Runner.Untrusted()
		defer out.Close()
		return image.Plain(out)(ctx, status)
	}
}
