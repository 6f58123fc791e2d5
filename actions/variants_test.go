package actions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// twoVariants are variants in one region.
const twoVariants = "small: cpu=1,memory=2,disk=5\nlarge: cpu=4,memory=8,disk=10"

// variantRun is the result of a run with variants.
type variantRun struct {
	created []createdSnapshot
	update  dopplerUpdate
	deleted []string
	log     string
	err     error
}

// withVariants returns the cloud with the spec of a run with variants.
func (c cloud) withVariants(t *testing.T, variants string, args ...string) cloud {
	t.Helper()
	args = append([]string{"--image=layout", "--name-prefix=agent", "--verify=off", "--variants=" + variants}, args...)
	c.spec = snapshotSpec(t, args...)
	return c
}

// run runs the flow of [Snapshot] with the cloud's client and an existing image.
func (c cloud) run(ctx context.Context, t *testing.T, img v1.Image, config credentials.Doppler) (r variantRun) {
	t.Helper()
	job, _, stderr := testJob(t, nil)
	defer func() { r.log = stderr.String() }()
	var targets []snapshotTarget
	for _, spec := range c.spec.Each() {
		target := snapshotTarget{Client: c.client}
		var err error
		if target.Doppler, err = checkDoppler(t.Context(), job, spec, config); err != nil {
			return variantRun{err: err}
		}
		if target.Region, err = checkRegion(t.Context(), c.client, spec); err != nil {
			return variantRun{err: err}
		}
		if target.Limits, err = readLimits(t.Context(), c.client, spec, target.Region); err != nil {
			return variantRun{err: err}
		}
		targets = append(targets, target)
	}
	session := snapshotSession{session: session{Doppler: config}, Image: existingImage{Image: img}}
	if r.created, r.err = ensureSnapshots(ctx, job, c.spec, session, targets); r.err != nil {
		return r
	}
	if r.update, r.err = writeNames(ctx, job, namings(ctx, job, r.created)); r.err != nil {
		return r
	}
	r.deleted = pruneSnapshots(ctx, job, c.spec, config, r.created)
	return r
}

// uploaded returns the number of bytes of layers and configs that clients sent to each repository.
func (c cloud) uploaded() map[string]int64 {
	bytes := map[string]int64{}
	for _, r := range c.Requests() {
		repository, _, isBlob := strings.Cut(r.Path, "/blobs/uploads/")
		if r.Registry && isBlob {
			bytes[repository] += r.Bytes
		}
	}
	return bytes
}

// dopplerOf returns the config dev of the project app, for which the token has all permissions.
func dopplerOf(t *testing.T, url string) credentials.Doppler {
	t.Helper()
	job, _, _ := testJob(t, map[string]string{"DOPPLER_API_HOST": url, "DOPPLER_TOKEN": everything})
	config, err := readDoppler(t.Context(), job.Env, inputs.Doppler{DopplerProject: "app", Default: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// The layers are sent once, each variant becomes a snapshot of the same image, and Doppler gets all names in one write.
// A second run reuses all.
func TestVariants(t *testing.T) {
	const variants = twoVariants + "\neurope: region=EU,doppler_secret=EUROPE"
	c, server, img := startDaytona(t, nil).withVariants(t, variants, "--region=us"), startDoppler(t), testImage(t)
	config := dopplerOf(t, server.URL())
	r := c.run(t.Context(), t, img, config)
	if r.err != nil {
		t.Fatalf("%v\n%s", r.err, r.log)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	want := []daytona.Resources{{CPU: 1, Memory: 2, Disk: 5}, {CPU: 4, Memory: 8, Disk: 10}, {CPU: 2, Memory: 4, Disk: 10}}
	for i, region := range []string{"us", "us", "eu"} {
		s, variant := r.created[i].Snapshot, []string{"small", "large", "europe"}[i]
		if s.State != daytona.Active || s.Digest != digest.String() || s.Resources != want[i] || s.Regions[0] != region ||
			!strings.HasPrefix(s.Name, "agent-"+variant+"-2") {
			t.Errorf("%s: %+v", variant, s)
		}
	}
	var full int
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		total += size
	}
	for _, bytes := range c.uploaded() {
		if bytes >= total {
			full++
		}
	}
	if full != 1 || len(c.uploaded()) != 3 {
		t.Errorf("sent %v to the repositories, the layers have %d bytes", c.uploaded(), total)
	}
	names := map[string]string{}
	for i, secret := range []string{nameSecret + "_SMALL", nameSecret + "_LARGE", "EUROPE"} {
		names[secret] = r.created[i].Snapshot.Name
	}
	writes := server.Writes()
	for secret, name := range names {
		if len(writes) != 1 || writes[0].Set[secret] != name || writes[0].Set[inputs.HistorySecret(secret)] == "" {
			t.Errorf("wrote %v, want once %s=%s and its history", writes, secret, name)
		}
	}
	again := c.run(t.Context(), t, img, config)
	for i, created := range again.created {
		if !created.Upload.isReused() || created.Snapshot.ID != r.created[i].Snapshot.ID {
			t.Errorf("second run: %s is not %s", created.Snapshot.Name, r.created[i].Snapshot.Name)
		}
	}
	if again.err != nil || len(c.repositories()) != 3 || len(server.Writes()) != 1 {
		t.Errorf("second run: %v; pushed %q, wrote %v", again.err, c.repositories(), server.Writes())
	}
}

// If the registry does not serve the image for a copy, it is pushed again.
func TestPushOnceWithoutCopy(t *testing.T) {
	c := startDaytona(t, nil)
	job, _, log := testJob(t, nil)
	var pushed []string
	push := pushOnce(job, func(_ context.Context, reference string, _ image.Auth) error {
		pushed = append(pushed, reference)
		return nil
	})
	access, err := c.client.PushAccess(t.Context(), "us")
	if err != nil {
		t.Fatal(err)
	}
	login := image.Credential{Host: access.Registry, Username: access.User, Password: access.Secret}
	project := access.Registry + "/" + access.Project
	want := []string{project + "/a:1", project + "/b:1"}
	for _, reference := range want {
		if err := push(t.Context(), reference, image.Auth{Credentials: []image.Credential{login}}); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(pushed, want) || !strings.Contains(log.String(), "pushing the image again") {
		t.Errorf("pushed %q, want %q\n%s", pushed, want, log)
	}
}

// If one variant fails, the others are kept, Doppler is not updated, and the next run reuses them.
func TestVariantsOneFails(t *testing.T) {
	c, server, img := startDaytona(t, nil), startDoppler(t), testImage(t)
	config := dopplerOf(t, server.URL())
	r := c.withVariants(t, twoVariants+"\nhuge: cpu=64").run(t.Context(), t, img, config)
	left := (*daytona.LeftoverError)(nil)
	if !errors.As(r.err, &left) || len(left.Leftovers) != 1 || !strings.Contains(r.err.Error(), "variant huge: ") ||
		!strings.Contains(left.Leftovers[0], ", agent-large-") || strings.Contains(r.err.Error(), "variant small") {
		t.Fatalf("%v\n%s", r.err, r.log)
	}
	if names := c.names(t); len(names) != 2 || len(server.Writes()) > 0 {
		t.Errorf("left %q, wrote %v", names, server.Writes())
	}
	again := c.withVariants(t, twoVariants+"\nhuge: cpu=3").run(t.Context(), t, img, config)
	if again.err != nil || !again.created[0].Upload.isReused() || !again.created[1].Upload.isReused() ||
		again.created[2].Upload.isReused() || len(c.names(t)) != 3 || len(server.Writes()) != 1 {
		t.Errorf("%v; left %q, wrote %v\n%s", again.err, c.names(t), server.Writes(), again.log)
	}
}

// A variant does not reuse the snapshot of another one with a longer name.
func TestVariantsWithSimilarNames(t *testing.T) {
	c, img := startDaytona(t, nil), testImage(t)
	for _, variant := range []string{"v10", "v1"} {
		r := c.withVariants(t, variant+": cpu=1").run(t.Context(), t, img, credentials.Doppler{})
		if r.err != nil || !strings.HasPrefix(r.created[0].Snapshot.Name, "agent-"+variant+"-") {
			t.Errorf("%s: %v, %+v", variant, r.err, r.created)
		}
	}
}

// If one variant cannot be verified, Doppler is not updated, and the next run verifies and records all.
func TestVariantsOneUnverified(t *testing.T) {
	c, server, img := startVerifying(t, nil).withVariants(t, twoVariants, "--verify=boot"), startDoppler(t), testImage(t)
	c.client.HTTP.Clock = shortClock{}
	config := dopplerOf(t, server.URL())
	c.Fail(cloudaytona.Fault{
		Method: "POST", Path: "/sandbox", Status: 400, Message: "Total CPU limit exceeded. Maximum allowed: 10.", Times: 1,
	})
	r := c.run(t.Context(), t, img, config)
	if r.err == nil || strings.Count(r.err.Error(), "variant ") != 1 || len(server.Writes()) > 0 || len(c.names(t)) != 2 {
		t.Errorf("%v; wrote %v, left %q\n%s", r.err, server.Writes(), c.names(t), r.log)
	}
	again := c.run(t.Context(), t, img, config)
	if again.err != nil || len(server.Writes()) != 1 || len(c.names(t)) != 2 {
		t.Fatalf("%v; wrote %v, left %q\n%s", again.err, server.Writes(), c.names(t), again.log)
	}
	for _, created := range again.created {
		if !created.Upload.isReused() || created.Verified.How != inputs.VerifyBoot {
			t.Errorf("%s: reused %t, verified %q", created.Snapshot.Name, created.Upload.isReused(), created.Verified.How)
		}
	}
}

// A canceled run removes the snapshots of all variants.
func TestVariantsCanceled(t *testing.T) {
	c := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 5 }).withVariants(t, twoVariants)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan variantRun, 1)
	img := testImage(t)
	go func() { done <- c.run(ctx, t, img, credentials.Doppler{}) }()
	for len(c.names(t)) < 2 {
		if t.Context().Err() != nil {
			t.Fatal("no snapshots")
		}
	}
	cancel()
	r := <-done
	if names := c.names(t); !errors.Is(r.err, context.Canceled) || len(names) > 0 {
		t.Errorf("%v; left %q\n%s", r.err, names, r.log)
	}
}

// Where another run has recorded a newer snapshot of one variant, Doppler keeps the names of all.
func TestVariantsNewer(t *testing.T) {
	c, server, img := startDaytona(t, nil).withVariants(t, twoVariants), startDoppler(t), testImage(t)
	config := dopplerOf(t, server.URL())
	first := c.run(t.Context(), t, img, config)
	if first.err != nil {
		t.Fatal(first.err)
	}
	job, _, log := testJob(t, nil)
	var configs [][]dopplerConfig
	for _, spec := range c.spec.Each() {
		read, err := checkDoppler(t.Context(), job, spec, config)
		if err != nil {
			t.Fatal(err)
		}
		configs = append(configs, read)
	}
	newer := c.Put(cloudaytona.Snapshot{
		Organization: organization, Name: "agent-large-newer", Created: time.Now().Add(time.Hour),
	})
	server.SetSecret("app", "dev", nameSecret+"_LARGE", "agent-large-newer")
	for i := range first.created {
		first.created[i].Target.Doppler = configs[i]
		first.created[i].Snapshot.Name += "-x"
	}
	update, err := writeNames(t.Context(), job, namings(t.Context(), job, first.created))
	if err != nil || len(update.Written) > 0 || server.Secret("app", "dev", nameSecret+"_LARGE") != "agent-large-newer" ||
		!strings.Contains(log.String(), "another run has created agent-large-newer") {
		t.Errorf("%s: %v, %v\n%s", newer, update, err, log)
	}
}

// A user's token can read the quota, so that a run with too many variants fails before the push.
func TestVariantsWithinQuota(t *testing.T) {
	c, img := startDaytona(t, func(o *cloudaytona.Options) { o.Organizations[0].Snapshots = 2 }), testImage(t)
	c.client.Key, c.client.Organization = userToken, organization
	r := c.withVariants(t, twoVariants+"\nthird: cpu=2").run(t.Context(), t, img, credentials.Doppler{})
	if r.err == nil || !strings.Contains(r.err.Error(), "0 of 2 snapshots, and 3 more are needed (delete 1") ||
		len(c.repositories()) > 0 {
		t.Errorf("%v; pushed %q", r.err, c.repositories())
	}
	if r := c.withVariants(t, twoVariants).run(t.Context(), t, img, credentials.Doppler{}); r.err != nil {
		t.Errorf("two variants: %v", r.err)
	}
}

// make_room deletes as many of the least recently used snapshots as needed, and none that keep would keep or that
// something uses.
func TestMakeRoom(t *testing.T) {
	const large, family = "large: cpu=4", "agent-large-20260102-030405-abcdef0-"
	for _, test := range []struct {
		name, variants string
		args           []string
		quota          int
		deleted        []string
		err            string
	}{
		{name: "one snapshot", variants: large, args: []string{"--make-room"}, quota: 8, deleted: []string{"oldest"}},
		{
			name: "two variants", variants: twoVariants, args: []string{"--make-room"}, quota: 8,
			deleted: []string{"oldest", "old"},
		},
		{
			name: "lowered quota", variants: large, args: []string{"--make-room"}, quota: 7,
			deleted: []string{"oldest", "old"},
		},
		{name: "off", variants: large, quota: 8, err: "Daytona holds 8 of 8 snapshots: delete one (`action-snapshot list`"},
		{name: "newest kept", variants: large, args: []string{"--make-room", "--keep=5"}, quota: 8, deleted: []string{"old"}},
		{
			name: "all kept", variants: large, args: []string{"--make-room", "--keep=7"}, quota: 8,
			err: "make_room found no unused snapshot to delete with the prefix agent or agent-large",
		},
		{name: "no room needed", variants: large, args: []string{"--make-room"}, quota: 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startDaytona(t, func(o *cloudaytona.Options) { o.Organizations[0].Snapshots = test.quota })
			server := startDoppler(t)
			hours := func(n int) time.Time { return time.Now().Add(-time.Duration(n) * time.Hour) }
			for i, s := range []cloudaytona.Snapshot{
				{Name: family + "oldest", Used: hours(100)}, // not the first that was created
				{Name: family + "recent", Used: hours(1)}, {Name: family + "named"}, {Name: family + "sibling"},
				{Name: family + "sandbox"}, {Name: family + "old", Used: hours(50)}, {Name: "by-hand"},
				{Name: "agent-other-20260102-030405-abcdef0-x"}, // of another prefix
				{Name: family + "failed", State: "error"},       // does not count toward the quota
			} {
				s.Organization, s.Created = organization, hours(200+i)
				c.Put(s)
			}
			c.PutSandbox(cloudaytona.Sandbox{Organization: organization, Snapshot: family + "sandbox", State: "stopped"})
			server.SetSecret("app", "prd", nameSecret, family+"named")
			server.SetSecret("app", "prd", nameSecret+"_LARGE", family+"sibling")
			before := c.names(t)
			r := c.withVariants(t, test.variants, test.args...).run(t.Context(), t, testImage(t), dopplerOf(t, server.URL()))
			if (r.err == nil) != (test.err == "") || r.err != nil && !strings.Contains(r.err.Error(), test.err) {
				t.Errorf("%v, want %q\n%s", r.err, test.err, r.log)
			}
			var deleted []string
			for _, name := range before {
				if !slices.Contains(c.names(t), name) && !strings.HasSuffix(name, "failed error") {
					deleted = append(deleted, strings.TrimSuffix(strings.TrimPrefix(name, family), " active"))
				}
			}
			if slices.Sort(test.deleted); !slices.Equal(deleted, test.deleted) {
				t.Errorf("deleted %q, want %q\n%s", deleted, test.deleted, r.log)
			}
		})
	}
}

// keep counts the snapshots of each variant.
func TestKeepVariants(t *testing.T) {
	c, server := startDaytona(t, nil).withVariants(t, twoVariants, "--keep=2"), startDoppler(t)
	var want []string
	for _, family := range []string{"agent-small-", "agent-large-", "agent-other-", "agent-"} {
		for i := range 3 {
			name := fmt.Sprintf("%s20260102-03040%d-abcdef0-x", family, i)
			c.Put(cloudaytona.Snapshot{
				Organization: organization, Name: name, Created: time.Now().Add(-time.Duration(10-i) * time.Hour),
			})
			if i < 2 && (family == "agent-small-" || family == "agent-large-") {
				want = append(want, name)
			}
		}
	}
	r := c.run(t.Context(), t, testImage(t), dopplerOf(t, server.URL()))
	slices.Sort(r.deleted)
	if slices.Sort(want); r.err != nil || !slices.Equal(r.deleted, want) {
		t.Errorf("%v; deleted %q, want %q\n%s", r.err, r.deleted, want, r.log)
	}
}

// A snapshot of a variant is protected from `delete` by that variant's secret.
func TestSecretsOf(t *testing.T) {
	for name, want := range map[string]string{
		"agent-gpu-large-20260102-030405-abcdef0-me-x": "N N_GPU_LARGE N_LARGE",
		"agent":             "N",
		"my.agent-1-eu":     "N N_1_EU N_EU",
		"agent/a-b.c-large": "N N_LARGE",
	} {
		if got := strings.Join(secretsOf("N", name), " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// All variants are checked before a build: the names, the regions and the limits.
func TestPreflightVariants(t *testing.T) {
	for _, test := range []struct {
		name, variants string
		args           []string
		want           string // in the error
	}{
		{name: "valid", variants: twoVariants + "\neurope: region=eu", args: []string{"--region=us"}},
		{
			name: "region", variants: twoVariants + "\nmars: region=mars",
			want: `variant mars: input region: unknown region "mars"`,
		},
		{
			name: "limit", variants: twoVariants + "\nhuge: cpu=64", args: []string{"--daytona-api-key=" + userToken},
			want: "variant huge: resources exceed the organization's limits: cpu 64",
		},
		{
			name: "name", variants: twoVariants, args: []string{"--name=agent", "--if-exists=fail"},
			want: `input name: "agent-large" already exists`,
		},
		{
			name: "permission", variants: twoVariants, args: []string{"--make-room", "--daytona-api-key=" + writeKey},
			want: "lacks the permission delete:snapshots",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startDaytona(t, nil)
			c.Put(cloudaytona.Snapshot{Organization: organization, Name: "agent-large"})
			args := append([]string{
				"--no-update-doppler", "--daytona-api-key=" + fullKey, "--daytona-api-url=" + c.URL(),
				"--daytona-organization-id=" + organization,
			}, test.args...)
			job, _, _ := testJob(t, nil)
			targets, err := preflight(t.Context(), job, c.withVariants(t, test.variants, args...).spec, credentials.Doppler{})
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if err == nil && (len(targets) != 3 || targets[0].Region != "us" || targets[2].Region != "eu") {
				t.Errorf("%+v", targets)
			}
			regions := 0
			for _, r := range c.Requests() {
				if strings.HasSuffix(r.Path, "/regions") {
					regions++
				}
			}
			if test.name == "valid" && regions != 2 { // us and eu
				t.Errorf("listed the regions %d times", regions)
			}
		})
	}
}

// The output snapshots has all variants, the other outputs the first one.
func TestVariantOutputs(t *testing.T) {
	c := startDaytona(t, nil).withVariants(t, twoVariants)
	img := testImage(t)
	r := c.run(t.Context(), t, img, credentials.Doppler{})
	if r.err != nil {
		t.Fatal(r.err)
	}
	outputs := snapshotOutputs(r.created, r.update)
	var list []map[string]any
	if err := json.Unmarshal([]byte(outputs.Snapshots.String()), &list); err != nil || len(list) != 2 {
		t.Fatalf("%v: %s", err, outputs.Snapshots)
	}
	second := r.created[1].Snapshot
	for field, want := range map[string]any{
		"variant": "large", "name": second.Name, "id": second.ID, "state": "active", "reused": false, "cpu": 4.0,
		"memory": 8.0, "disk": 10.0, "gpu": 0.0, "region": "us", "sandbox_class": "container",
		"doppler_secret": nameSecret + "_LARGE", "size_gb": second.SizeGB,
	} {
		if list[1][field] != want {
			t.Errorf("%s is %v, want %v", field, list[1][field], want)
		}
	}
	if outputs.SnapshotName != r.created[0].Snapshot.Name {
		t.Errorf("snapshot_name is %s", outputs.SnapshotName)
	}
}

// The record has the snapshots of all variants with the states that Daytona reported, also of those that failed.
func TestSnapshotRecords(t *testing.T) {
	for _, fault := range []cloudaytona.SnapshotFault{"", cloudaytona.FailsAfterActive} {
		c := startDaytona(t, nil).withVariants(t, twoVariants, "--attempts=1")
		c.Fail(cloudaytona.Fault{Snapshot: fault})
		times := &timeline{started: time.Now()}
		r := c.run(context.WithValue(t.Context(), timelineKey{}, times), t, testImage(t), credentials.Doppler{})
		job, _, _ := testJob(t, nil)
		var record runrecord.Record
		addSnapshots(&record, job, c.spec, snapshotSession{Image: existingImage{Image: testImage(t)}}, r.created)
		times.addTo(&record)
		want := "active"
		if fault != "" {
			want = "error"
		}
		if len(record.Snapshots) != 2 || (r.err == nil) != (fault == "") || !record.Image.Existing {
			t.Fatalf("%v: %+v", r.err, record)
		}
		for i, s := range record.Snapshots {
			last := s.States[len(s.States)-1]
			if s.Variant != []string{"small", "large"}[i] || s.State != want || last.Name != want || last.Offset <= 0 ||
				s.CPU != []int{1, 4}[i] || s.Digest == "" {
				t.Errorf("%q: %+v", fault, s)
			}
		}
		i := slices.IndexFunc(record.Phases, func(p runrecord.Phase) bool {
			return p.Name == "Create snapshot "+record.Snapshots[0].Name
		})
		if i < 0 || record.Phases[i].Failed != (fault != "") {
			t.Errorf("%q: phases %+v", fault, record.Phases)
		}
	}
}
