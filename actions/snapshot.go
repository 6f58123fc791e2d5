package actions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/docker/go-units"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/shlex"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
	"golang.org/x/sync/errgroup"
)

// SnapshotInputs are the inputs of the snapshot action: those of build, and what becomes of the image.
type SnapshotInputs struct {
	BuildInputs
	Image         string `short:"i" help:"Take this image instead of building: a name in the local engine, a registry reference, or the folder of an OCI layout (./FOLDER)."`
	Name          string `short:"n" help:"Name of the snapshot. Empty: PREFIX-DATE-SHA-USER."`
	NamePrefix    string `help:"Begins the name, and says which snapshots belong together." default:"iterate-sandbox"`
	CPU           string `name:"cpu" short:"c" help:"Cores of a sandbox." default:"2"`
	Memory        string `short:"m" help:"Memory of a sandbox, in GB." default:"4"`
	Disk          string `short:"d" help:"Disk of a sandbox, in GB." default:"10"`
	Entrypoint    string `help:"Entry point instead of the image's, as words of a shell."`
	Region        string `help:"Daytona region, its ID or its name. Empty: the organization's default."`
	IfExists      string `help:"When there is such a snapshot: reuse (holds only for the same digest), replace or fail." default:"reuse"`
	Keep          int    `help:"After success, delete older snapshots of this prefix beyond the newest N; 0: keep all. Never one that Doppler names." default:"0"`
	UpdateDoppler bool   `help:"Set DAYTONA_SNAPSHOT_NAME, and VITE_DAYTONA_SNAPSHOT_NAME as a reference to it." default:"true" negatable:""`
	DaytonaInputs
	DryRun bool `prompt:"" help:"With keep: only say which snapshots would be deleted."`
}

// DaytonaInputs say how Daytona is entered.
type DaytonaInputs struct {
	DaytonaAPIKey         string `name:"daytona-api-key" help:"Daytona key. Else DAYTONA_API_KEY of Doppler, else of the environment." secret:""`
	DaytonaOrganizationID string `name:"daytona-organization-id" help:"Daytona organization. Else DAYTONA_ORG_ID of Doppler, else of the environment."`
	DaytonaAPIURL         string `name:"daytona-api-url" help:"Daytona's API. Else DAYTONA_API_URL of Doppler, else of the environment, else the public one."`
}

func (*SnapshotInputs) vars() kong.Vars { return kong.Vars{"doppler_config": "dev", "load": "false"} }

func (*SnapshotInputs) atPrompt() map[string]string {
	return map[string]string{"image": "iterate-sandbox:local"}
}

// SnapshotResult is what a snapshot publishes: the build's, and its own.
type SnapshotResult struct {
	BuildResult
	SnapshotName   string  `output:"snapshot_name" help:"Name of the snapshot, which is active."`
	SnapshotID     string  `output:"snapshot_id" help:"Daytona's ID of it."`
	SnapshotState  string  `output:"snapshot_state" help:"Its state: active."`
	SnapshotSizeGB float64 `output:"snapshot_size_gb" help:"Its size as Daytona measured it."`
	Reused         bool    `output:"reused" help:"Whether there was such a snapshot already: nothing was pushed."`
	DopplerUpdated bool    `output:"doppler_updated" help:"Whether Doppler named another one before."`
}

// Snapshot makes a Daytona snapshot of an image, and has Doppler name it. The image is built, and pushed from the builder, or taken from
// where it is. Nothing names a snapshot before it is active; one that does not become active is removed.
//
// An error is one sentence: what failed, why, and what to do.
func (p *Program) Snapshot(ctx context.Context, in *SnapshotInputs) error {
	b, err := p.newBuild(&in.BuildInputs)
	if err != nil {
		return err
	}
	s := &snapshot{build: b, in: in}
	if err := s.check(); err != nil {
		return err
	}
	return s.within(ctx, s.run, s.publish)
}

// snapshot is one snapshot on its way.
type snapshot struct {
	*build
	in         *SnapshotInputs
	resources  daytona.Resources
	entrypoint []string

	client  daytona.Client
	region  string           // ID; "" for the default
	same    daytona.Snapshot // that has the name which was asked for; zero when it is free
	named   string           // what Doppler named when we began
	digest  v1.Hash          // of the image
	starts  []string         // the entry point of a sandbox: the one that was asked for, or the image's
	access  func() (daytona.PushAccess, error)
	pushed  daytona.PushAccess
	ready   daytona.Snapshot // active, ours or one that was there
	reused  bool
	updated bool
	removed []string

	replaced []daytona.Snapshot // of the same image, under other names
}

// The secrets that Doppler holds of it.
const (
	nameSecret   = "DAYTONA_SNAPSHOT_NAME"
	mirrorSecret = "VITE_DAYTONA_SNAPSHOT_NAME"
	mirrorValue  = "${" + nameSecret + "}"
)

// check refuses what can not be right. It asks nobody.
func (s *snapshot) check() (err error) {
	in := s.in
	if !slices.Equal(s.plan.platforms, []string{"linux/amd64"}) {
		return refuse("platform", strings.Join(s.plan.platforms, ","), "is no platform of Daytona's: write linux/amd64, and nothing else")
	}
	if in.Load {
		return refuse("load", "true", "is not for a snapshot, which never comes to the runner: leave it out")
	}
	if in.Name != "" {
		if err := daytona.CheckName(in.Name); err != nil {
			return fmt.Errorf("input name: %w", err)
		}
	}
	if err := daytona.CheckName(in.NamePrefix); err != nil {
		return fmt.Errorf("input name_prefix: %w", err)
	}
	if s.resources, err = daytona.ParseResources(in.CPU, in.Memory, in.Disk); err != nil {
		return err
	}
	if s.entrypoint, err = shlex.Split(in.Entrypoint); err != nil {
		return refuse("entrypoint", in.Entrypoint, "can not be split into words ("+err.Error()+"): close what is quoted")
	}
	if !slices.Contains([]string{"reuse", "replace", "fail"}, in.IfExists) {
		return refuse("if_exists", in.IfExists, "is unknown: write reuse, replace or fail")
	}
	if in.Keep < 0 {
		return refuse("keep", fmt.Sprint(in.Keep), "is no number of snapshots: write 0 to keep all, or how many to keep")
	}
	if in.DryRun && in.Keep == 0 {
		return errors.New("--dry-run says what --keep N would delete: give it, too")
	}
	if s.withoutSecrets() && in.DaytonaAPIKey == "" && s.Getenv("DAYTONA_API_KEY") == "" && in.DopplerToken == "" && s.Getenv("DOPPLER_TOKEN") == "" {
		return fmt.Errorf("a snapshot needs Daytona's key: this run is of %s, which GitHub gives neither secrets nor an OIDC token: make the snapshot when the pull request is merged", pullRequest(s.event))
	}
	s.withoutDoppler = !in.UpdateDoppler && (in.DaytonaAPIKey != "" || s.Getenv("DAYTONA_API_KEY") != "")
	return nil
}

// run is the story.
func (s *snapshot) run(ctx context.Context) error {
	if s.in.Image != "" {
		if err := s.enterDoppler(ctx); err != nil {
			return err
		}
		taken, err := s.take(ctx, s.in.Image, "linux/amd64")
		if err != nil {
			return err
		}
		if err := s.ask(ctx); err != nil {
			return err
		}
		if err := s.offer(ctx, taken.Image, func(reference string, auth image.Auth) error { return s.send(ctx, reference, taken.Image, auth) }); err != nil {
			return err
		}
	} else {
		if err := s.prepare(ctx); err != nil {
			return err
		}
		if err := s.ask(ctx); err != nil {
			return err
		}
		if err := s.make(ctx, s.pushBuilt); err != nil {
			return err
		}
	}
	if s.ready.ID == "" {
		if err := s.create(ctx); err != nil {
			return err
		}
	}
	if err := s.tellDoppler(ctx); err != nil {
		return err
	}
	s.clean(ctx)
	return nil
}

// ask finds out what can be wrong at Daytona and Doppler before anything is spent.
func (s *snapshot) ask(ctx context.Context) error {
	defer s.phases.begin("Daytona and Doppler to answer")()
	in := s.in
	var err error
	if s.client, err = s.enterDaytona(in.DaytonaInputs, in.DopplerConfig, s.getenv); err != nil {
		return err
	}
	me, err := s.client.CurrentKey(ctx) // a wrong key is said once, not by every call
	if err != nil {
		return err
	}
	needs := []string{daytona.WriteSnapshots}
	if in.Keep > 0 || in.IfExists == "replace" {
		needs = append(needs, daytona.DeleteSnapshots)
	}
	if missing := me.Missing(needs...); len(missing) > 0 {
		return fmt.Errorf("the Daytona key %q has not the permission %s: make a key that has, at https://app.daytona.io/dashboard/keys", me.Name, strings.Join(missing, " and "))
	}
	var calls errgroup.Group
	calls.Go(func() error {
		if in.Region != "" {
			region, err := s.client.Region(ctx, in.Region)
			if err != nil {
				return fmt.Errorf("input region: %w", err)
			}
			s.region = region.ID
		}
		limits, err := s.client.Limits(ctx, s.region)
		if err != nil {
			return err
		}
		return limits.Check(s.resources)
	})
	if in.Name != "" {
		calls.Go(func() error { return s.lookAtName(ctx) })
	}
	if in.UpdateDoppler && s.credentials.doppler == nil {
		return refuse("update_doppler", "true", "needs a Doppler config: give doppler_config and a token, or set update_doppler: false")
	}
	if in.UpdateDoppler {
		calls.Go(func() error {
			if err := s.credentials.doppler.CheckWrite(ctx, nameSecret, mirrorSecret); err != nil {
				return fmt.Errorf("input update_doppler: %w", err)
			}
			now, err := s.credentials.doppler.Raw(ctx, nameSecret)
			s.named = now[nameSecret]
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		return err
	}
	s.askAccess(ctx)
	return nil
}

// enterDaytona makes a client of what the inputs say, or else the environment, Doppler's before our own.
func (p *Program) enterDaytona(in DaytonaInputs, config string, getenv func(string) string) (daytona.Client, error) {
	client := daytona.Client{
		URL: first(in.DaytonaAPIURL, getenv("DAYTONA_API_URL")), Key: first(in.DaytonaAPIKey, getenv("DAYTONA_API_KEY")),
		Organization: first(in.DaytonaOrganizationID, getenv("DAYTONA_ORG_ID"), getenv("DAYTONA_ORGANIZATION_ID")), Mask: p.Runner.Mask,
	}
	if client.Key == "" {
		return client, fmt.Errorf("no Daytona key: put DAYTONA_API_KEY into the Doppler config %q, or give the input daytona_api_key", config)
	}
	p.Runner.Mask(client.Key)
	return client, nil
}

// lookAtName finds the snapshot that has the name already. What it is good for is known when the image is.
func (s *snapshot) lookAtName(ctx context.Context) error {
	same, found, err := s.client.Find(ctx, s.in.Name)
	if err != nil || !found {
		return err
	}
	s.same = same
	if s.in.IfExists == "fail" && !broken(same) {
		return refuse("name", s.in.Name, fmt.Sprintf("is taken by a snapshot that is %s, and if_exists is fail: write another name, or if_exists: reuse or replace", same.State))
	}
	return nil
}

// broken says that a snapshot will never be active.
func broken(s daytona.Snapshot) bool {
	return s.State == daytona.Failed || s.State == daytona.BuildFailed
}

// pushBuilt offers the image that was built, as long as the builder is there.
func (s *snapshot) pushBuilt(ctx context.Context) error {
	built := s.solved[0]
	machine, err := s.work.Machine(ctx, built.Platform)
	if err != nil {
		return err
	}
	request, err := s.request(built.Platform)
	if err != nil {
		return err
	}
	return s.offer(ctx, built.Image, func(reference string, auth image.Auth) error {
		auth.Credentials = append(auth.Credentials, s.auth().Credentials...)
		return image.PushFromBuilder(ctx, machine, request, built, auth, reference)
	})
}

// offer brings the image to Daytona's registry, unless a snapshot of it is there.
func (s *snapshot) offer(ctx context.Context, built v1.Image, push func(reference string, auth image.Auth) error) (err error) {
	config, err := built.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the image's config: %w", err)
	}
	if platform := config.OS + "/" + config.Architecture; platform != "linux/amd64" {
		return fmt.Errorf("the image is for %s, and Daytona runs linux/amd64 only: build it for that", platform)
	}
	if s.starts = s.entrypoint; len(s.starts) == 0 {
		s.starts = config.Config.Entrypoint
	}
	if s.digest, err = built.Digest(); err != nil {
		return fmt.Errorf("read the image's manifest: %w", err)
	}
	if done, err := s.reuse(ctx); done || err != nil {
		return err
	}
	defer s.phases.begin("the push to Daytona")()
	s.Runner.Group("Push to Daytona")
	defer s.Runner.EndGroup()
	began := time.Now()
	for try := 1; ; try++ {
		if s.pushed, err = s.access(); err != nil {
			return err
		}
		// The tag follows from the digest, so that the same image is pushed to the same place.
		target := s.target()
		auth := image.Auth{Credentials: []image.Credential{{Host: s.pushed.Registry, Username: s.pushed.User, Password: s.pushed.Secret}}, Mask: s.Runner.Mask}
		err = push(target+":"+s.digest.Algorithm+"-"+s.digest.Hex, auth)
		if errors.Is(err, image.ErrUnauthorized) && try < maxAccesses {
			s.Runner.Infof("Access to Daytona's registry is over: asking for new access, and going on")
			s.askAccess(ctx)
			continue
		}
		if err != nil {
			return err
		}
		found, err := s.client.WaitForImage(ctx, s.pushed, target+"@"+s.digest.String())
		if err != nil {
			return err
		}
		if found != s.digest.String() {
			return fmt.Errorf("push to Daytona: its registry shows %s where %s was pushed: run it again, and report it to Daytona if it stays", found, s.digest)
		}
		s.Runner.Infof("Pushed %s@%s in %s", target, s.digest, time.Since(began).Round(100*time.Millisecond))
		return nil
	}
}

// askAccess asks for access to Daytona's registry while something else is done; access has the answer.
func (s *snapshot) askAccess(ctx context.Context) {
	answered := make(chan struct{})
	var access daytona.PushAccess
	var err error
	go func() { // ends with ctx at the latest
		defer close(answered)
		access, err = s.client.PushAccess(ctx, s.region)
	}()
	s.access = func() (daytona.PushAccess, error) {
		<-answered
		return access, err
	}
}

// maxAccesses bounds how often new access to the registry is asked for during one push.
const maxAccesses = 4

// target is the repository in Daytona's registry that holds the images of a prefix.
func (s *snapshot) target() string {
	name := strings.Trim(notInRepository.ReplaceAllString(strings.ToLower(s.in.NamePrefix), "-"), "-")
	return s.pushed.Registry + "/" + s.pushed.Project + "/" + first(name, "snapshot")
}

var notInRepository = regexp.MustCompile(`[^a-z0-9]+`)

// send streams an image that nobody built here.
func (s *snapshot) send(ctx context.Context, reference string, taken v1.Image, auth authn.Keychain) error {
	said := time.Now()
	return image.PushImage(ctx, reference, taken, auth, func(done, total int64) {
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			s.Runner.Infof("%s of %s are there", units.HumanSize(float64(done)), units.HumanSize(float64(total)))
		}
	})
}

// reuse looks for a snapshot that is what is asked for: the same image, resources, entry point and region.
func (s *snapshot) reuse(ctx context.Context) (bool, error) {
	defer s.phases.begin("Daytona's list of snapshots")()
	candidates := []daytona.Snapshot{s.same}
	if s.in.Name == "" {
		list, err := s.client.List(ctx, s.in.NamePrefix)
		if err != nil {
			return false, err
		}
		candidates = list
	}
	for _, c := range candidates {
		if c.ID == "" || broken(c) || c.State == daytona.Removing || !s.isSame(c) {
			continue
		}
		switch {
		case s.in.IfExists == "replace":
			s.replaced = append(s.replaced, c)
			continue
		case s.in.IfExists == "fail":
			return false, fmt.Errorf("the snapshot %s is of the same image, and if_exists is fail: use it, or write if_exists: reuse or replace", c.Name)
		}
		s.Runner.Infof("The snapshot %s is of the same image: it is used, and nothing is pushed", c.Name)
		if c.State == daytona.Inactive {
			if _, err := s.client.Activate(ctx, c.ID); err != nil {
				return false, err
			}
		}
		var err error
		if s.ready, err = s.wait(ctx, c); err != nil {
			return false, err
		}
		s.reused = true
		return true, nil
	}
	if s.same.ID != "" && !broken(s.same) && s.in.IfExists == "reuse" {
		return false, refuse("name", s.in.Name, "is taken by a snapshot of another image or of other resources, and if_exists is reuse: write another name, or if_exists: replace")
	}
	return false, nil
}

func (s *snapshot) isSame(c daytona.Snapshot) bool {
	return (c.Digest == s.digest.String() || strings.HasSuffix(c.Image, "@"+s.digest.String())) && c.Resources == s.resources &&
		(slices.Equal(c.Entrypoint, s.starts) || slices.Equal(c.Entrypoint, s.entrypoint)) && (s.region == "" || slices.Contains(c.Regions, s.region))
}

// create makes the snapshot, and waits until it is active.
func (s *snapshot) create(ctx context.Context) (err error) {
	name := s.in.Name
	if name == "" {
		name = s.makeName(ctx)
	}
	request := daytona.Request{
		Name: name, Resources: s.resources, Entrypoint: s.entrypoint, Region: s.region,
		Image: s.target() + "@" + s.digest.String(),
	}
	if s.same.ID != "" {
		if err := s.makeRoom(ctx); err != nil {
			return err
		}
	}
	ended := s.phases.begin("Daytona to take the snapshot %s", name)
	made, err := s.client.Create(ctx, request)
	ended()
	if err == nil {
		s.ready, err = s.wait(ctx, made)
	}
	if err != nil {
		return s.undo(ctx, made, err)
	}
	return nil
}

// makeRoom frees the name for a new snapshot: names are taken by snapshots that failed, and by those that are to be replaced.
func (s *snapshot) makeRoom(ctx context.Context) error {
	defer s.phases.begin("Daytona to remove the old snapshot %s", s.same.Name)()
	if broken(s.same) {
		s.Runner.Infof("Removing the snapshot %s, which an earlier run left in the state %s", s.same.Name, s.same.State)
	} else {
		s.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("Replacing the snapshot %s: it is gone before the new one is active, and should that fail no sandbox starts from this name", s.same.Name)})
	}
	if err := s.client.Delete(ctx, s.same.ID); err != nil {
		return err
	}
	return s.client.WaitUntilRemoved(ctx, s.same.ID)
}

// undo removes a snapshot that has not become active, which would keep its name and its place taken.
func (s *snapshot) undo(ctx context.Context, made daytona.Snapshot, failed error) error {
	if s.same.ID != "" && !broken(s.same) {
		// Daytona keeps no image that it could be made of again.
		failed = fmt.Errorf("%w; the snapshot %s, which it was to replace, is gone: make one of that name before a sandbox is to start from it", failed, s.same.Name)
	}
	if made.ID == "" {
		return failed
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
	defer cancel()
	if err := s.client.Delete(late, made.ID); err != nil {
		return fmt.Errorf("%w; it could not be removed (%s): delete %s at https://app.daytona.io/dashboard/snapshots", failed, s.Runner.Redact(err.Error()), made.Name)
	}
	return failed
}

// wait waits for active, and says what Daytona says when that changes, and now and then.
func (s *snapshot) wait(ctx context.Context, made daytona.Snapshot) (daytona.Snapshot, error) {
	defer s.phases.begin("the snapshot %s to be active (look at https://app.daytona.io/dashboard/snapshots)", made.Name)()
	var state daytona.State
	var said time.Time
	ready, err := s.client.WaitUntilActive(ctx, made.ID, func(now daytona.Snapshot, since time.Duration) {
		if now.State == state && time.Since(said) < 15*time.Second {
			return
		}
		if now.State == state {
			s.Runner.Infof("The snapshot %s is %s, for %s now", now.Name, now.State, since.Round(time.Second))
		} else {
			s.Runner.Infof("The snapshot %s is %s", now.Name, now.State)
		}
		state, said = now.State, time.Now()
	})
	if failed := new(daytona.SnapshotError); errors.As(err, &failed) && failed.Log != "" {
		out := s.Runner.Untrusted()
		fmt.Fprintln(out, failed.Log)
		_ = out.Close() // to the log: there is nowhere to report to
	}
	return ready, err
}

// makeName is the name where none was given. The moment is that of the run, in UTC: a name is then never taken by another image of the same
// commit (of newer packages, of other arguments), and what was made before of the same image is found by its digest, not by its name.
func (s *snapshot) makeName(ctx context.Context) string {
	sha := s.tree.SHA
	if s.in.Image != "" || sha == "" {
		sha = s.digest.Hex
	}
	return snapshotName(s.in.NamePrefix, s.began, sha, s.tree.Dirty && s.in.Image == "", s.person(ctx))
}

// person is who makes the snapshot.
func (s *snapshot) person(ctx context.Context) string {
	if name := first(s.Getenv("ITERATE_USER"), s.Getenv("GITHUB_ACTOR"), source.UserName(ctx, s.Dir)); name != "" {
		return name
	}
	if login, err := user.Current(); err == nil {
		return login.Username
	}
	return first(s.Getenv("USER"), "unknown")
}

var foreign = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// snapshotName is PREFIX-YYYYMMDD-HHMMSS-SHA[-dirty]-USER, in the characters that Daytona takes, and not longer than it takes.
func snapshotName(prefix string, at time.Time, sha string, dirty bool, person string) string {
	short := sha[:min(7, len(sha))]
	if dirty {
		short += "-dirty"
	}
	middle := at.UTC().Format("-20060102-150405-") + short + "-"
	person = strings.Trim(foreign.ReplaceAllString(person, "-"), "-.")
	if person == "" {
		person = "unknown"
	}
	person = person[:min(len(person), 39)] // as long as a GitHub login may be
	prefix = prefix[:min(len(prefix), maxName-len(middle)-len(person))]
	return prefix + middle + person
}

// maxName is how long a name may be that tools still show whole.
const maxName = 128

// tellDoppler has Doppler name the snapshot, unless it has come to name a newer one of ours meanwhile.
func (s *snapshot) tellDoppler(ctx context.Context) error {
	if !s.in.UpdateDoppler {
		return nil
	}
	defer s.phases.begin("Doppler")()
	var newer error
	want := map[string]string{nameSecret: s.ready.Name, mirrorSecret: mirrorValue}
	updated, err := s.credentials.doppler.Set(ctx, want, func(current map[string]string) error {
		now := current[nameSecret]
		if now == "" || now == s.named || now == s.ready.Name || !strings.HasPrefix(now, s.in.NamePrefix) {
			return nil
		}
		other, found, err := s.client.Find(ctx, now)
		if err != nil {
			return err
		}
		if found && other.Created.After(s.ready.Created) {
			newer = fmt.Errorf("another run has made %s meanwhile, which is newer", now)
		}
		return newer
	})
	switch {
	case newer != nil:
		s.Runner.Notice(runner.Annotation{Title: "Doppler is left alone", Message: newer.Error()})
		return nil
	case err != nil:
		return fmt.Errorf("the snapshot %s is active, but Doppler does not name it: %w; run it again, or set %s=%s in the config %q by hand", s.ready.Name, err, nameSecret, s.ready.Name, s.in.DopplerConfig)
	}
	s.updated = updated
	return nil
}

// clean deletes older snapshots of the prefix, but none that a Doppler config names, nor one that is in use. The snapshot is there whatever
// becomes of this.
func (s *snapshot) clean(ctx context.Context) {
	defer s.phases.begin("the removal of old snapshots")()
	warn := func(err error) {
		s.Runner.Warning(runner.Annotation{Title: "Old snapshots are left", Message: err.Error()})
	}
	old := slices.DeleteFunc(s.replaced, func(c daytona.Snapshot) bool { return c.ID == s.same.ID })
	if s.in.Keep > 0 {
		list, err := s.client.List(ctx, s.in.NamePrefix)
		if err != nil {
			warn(err)
			return
		}
		list = slices.DeleteFunc(list, func(c daytona.Snapshot) bool {
			return c.ID == s.ready.ID || slices.ContainsFunc(old, func(o daytona.Snapshot) bool { return o.ID == c.ID })
		})
		old = append(old, list[min(len(list), s.in.Keep-1):]...) // ours is one of those that stay
	}
	if len(old) == 0 {
		return
	}
	named := map[string]string{}
	if s.credentials.doppler != nil {
		configs, err := s.credentials.doppler.ValuesByConfig(ctx, nameSecret)
		if err != nil {
			warn(err)
			return
		}
		for config, name := range configs {
			named[name] = config
		}
	}
	for _, c := range old {
		switch config := named[c.Name]; {
		case config != "":
			s.Runner.Infof("Kept the snapshot %s: Doppler's %s names it", c.Name, config)
		case s.in.DryRun:
			s.Runner.Infof("Would delete the snapshot %s", c.Name)
		default:
			err := s.client.Delete(ctx, c.ID)
			if httpclient.Status(err) == http.StatusConflict {
				s.Runner.Infof("Kept the snapshot %s: it is in use", c.Name)
				continue
			}
			if err != nil {
				warn(err)
				return
			}
			s.removed = append(s.removed, c.Name)
			s.Runner.Infof("Deleted the snapshot %s", c.Name)
		}
	}
}

// publish writes the outputs and the summary.
func (s *snapshot) publish() error {
	if s.in.Image == "" {
		if err := s.describe(); err != nil {
			return err
		}
	} else {
		s.build.result = BuildResult{Digest: s.digest.String(), Platforms: "linux/amd64", ImageRef: s.in.Image}
	}
	result := SnapshotResult{
		BuildResult: s.build.result, SnapshotName: s.ready.Name, SnapshotID: s.ready.ID, SnapshotState: string(s.ready.State),
		SnapshotSizeGB: s.ready.SizeGB, Reused: s.reused, DopplerUpdated: s.updated,
	}
	if result.ImageRef == "" {
		result.ImageRef = s.ready.Image
	}
	t := table("Snapshot made")
	if s.reused {
		t = table("Snapshot reused")
	}
	t.row("Name", code(s.ready.Name))
	t.row("Digest", code(s.digest.String()))
	t.row("State", code(string(s.ready.State)))
	t.row("A sandbox has", fmt.Sprintf("%d cores, %d GB of memory, %d GB of disk", s.ready.Resources.CPU, s.ready.Resources.Memory, s.ready.Resources.Disk))
	if s.ready.SizeGB > 0 {
		t.row("Size", fmt.Sprintf("%.2f GB", s.ready.SizeGB))
	}
	switch {
	case !s.in.UpdateDoppler:
		t.row("Doppler", "left alone")
	case s.updated:
		t.row("Doppler", fmt.Sprintf("%s names it now, in %s", code(nameSecret), code(s.in.DopplerConfig)))
	default:
		t.row("Doppler", fmt.Sprintf("unchanged in %s", code(s.in.DopplerConfig)))
	}
	if len(s.removed) > 0 {
		t.row("Deleted", code(strings.Join(s.removed, ", ")))
	}
	t.row("Start one", code("daytona sandbox create --snapshot "+s.ready.Name))
	t.row("Time", time.Since(s.began).Round(100*time.Millisecond).String())
	if s.in.Image == "" {
		t.WriteString("\n" + s.summary())
	}
	return s.write(result, t.String())
}
