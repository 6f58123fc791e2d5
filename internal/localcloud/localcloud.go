// Package localcloud runs stand-ins on loopback for the services that tests and the demo cannot reach: Depot, GitHub
// with its OIDC issuer, Doppler, Daytona, registries, and a Docker Engine. It combines real components (buildkitd
// behind mTLS, the distribution registry, git, dockerd) with API servers that validate requests like the real services.
//
// Only tests and the commands below this package import it. Programs use it through environment variables, see
// [Cloud.Env].
package localcloud

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"golang.org/x/sync/errgroup"
)

// Options configures a Cloud.
type Options struct {
	// Dir stores the builders' layers and the engines' images, which remain after Stop. Only one Cloud may use it at a
	// time.
	Dir string
	// Base is the path of the base image, see [registry.BaseImage].
	Base string
	// Engine is the kind of the two Docker Engines to start, [engine.Current] or [engine.Oldest]: one for the programs
	// and one as Daytona's runner. If it is "", Start starts none.
	Engine string
	// EngineHost is the DOCKER_HOST of a running engine for the programs to use instead of a new one. Stop leaves it
	// running.
	EngineHost string
	// Builders are running BuildKit daemons to use instead of new ones. Stop leaves them running.
	Builders *builders.Builders
	// Repositories lists the repositories on GitHub. OIDC tokens are for the first one, which Depot trusts.
	Repositories []github.Repository
	// Log receives the engines' logs; nil discards them.
	Log io.Writer
}

// Project is the name of the Depot project, of its repository in Depot's registry, and of the Doppler project.
const Project = "sandbox"

// DopplerIdentity is the service account identity for OIDC authentication of workflows of the first repository. It can
// read and write all configs.
const DopplerIdentity = "3f0c7a52-1d8e-4c6b-9a41-5e2b7d90c318"

// DaytonaOrganization is the ID of the organization that all Daytona keys belong to, except DaytonaOtherKey, which
// belongs to OtherOrganization.
const (
	DaytonaOrganization = "0c7e1d2a-6f4b-4b7e-9d53-8a1f2e3c4d5b"
	OtherOrganization   = "5d2f8e61-3b7a-4c09-8e14-f6a9d0b7c235"
)

// RegistryUser can push to and pull from every repository of the registry, with [Cloud.RegistryPassword].
const RegistryUser = "robot"

// Cloud is a running local cloud.
type Cloud struct {
	Depot    *depotapi.Server
	Doppler  *doppler.Server
	Daytona  *daytona.Server
	GitHub   *github.Server
	Registry *registry.Registry
	Builders *builders.Builders
	Engine   *engine.Engine // nil if Options requests no engine

	// DepotToken is valid for Project, and OrganizationToken for every project. GitHubToken can read every repository.
	// GitHubWriteToken also has `contents: write` and `attestations: write`.
	DepotToken, OrganizationToken, GitHubToken, GitHubWriteToken, RegistryPassword string

	// DopplerToken and DopplerTokenPRD are service tokens with read and write access to the configs dev and prd.
	DopplerToken, DopplerTokenPRD string
	// DaytonaKey can create and delete snapshots, and sandboxes if there is an engine; both Doppler configs contain it.
	// DaytonaReadKey has no permissions, DaytonaExpiredKey has expired, and DaytonaOtherKey is for another organization.
	DaytonaKey, DaytonaReadKey, DaytonaExpiredKey, DaytonaOtherKey string

	lock   *os.File
	mirror *registry.Mirror
	runner *engine.Engine // of Daytona
}

// Start starts a Cloud and returns when all services are ready. ctx bounds the start only.
func Start(ctx context.Context, o Options) (*Cloud, error) {
	if len(o.Repositories) == 0 {
		return nil, errors.New("localcloud: Options.Repositories is empty")
	}
	c := &Cloud{
		DepotToken: "depot_project_" + rand.Text(), OrganizationToken: "depot_org_" + rand.Text(),
		GitHubToken: "ghs_" + rand.Text(), GitHubWriteToken: "ghs_" + rand.Text(), RegistryPassword: rand.Text(),
		DopplerToken: "dp.st.dev." + rand.Text(), DopplerTokenPRD: "dp.st.prd." + rand.Text(),
		DaytonaKey: "dtn_" + rand.Text(), DaytonaReadKey: "dtn_" + rand.Text(),
		DaytonaExpiredKey: "dtn_" + rand.Text(), DaytonaOtherKey: "dtn_" + rand.Text(),
	}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("localcloud: %w", err), c.Stop())
	}
	return c, nil
}

func (c *Cloud) start(ctx context.Context, o Options) (err error) {
	if c.lock, err = lock(o.Dir); err != nil {
		return err
	}
	group, starting := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		c.mirror, err = registry.StartMirror(starting, o.Base)
		return err
	})
	group.Go(func() (err error) {
		account := registry.Account{User: RegistryUser, Password: c.RegistryPassword, Push: true}
		c.Registry, err = registry.Start(starting, filepath.Join(o.Dir, "registry"), account)
		return err
	})
	if o.EngineHost != "" {
		c.Engine = engine.Attach(o.EngineHost)
	} else if o.Engine != "" {
		group.Go(func() (err error) {
			c.Engine, err = engine.Start(starting, o.Engine, filepath.Join(o.Dir, "engine-"+o.Engine), o.Log)
			return err
		})
	}
	if o.Engine != "" {
		group.Go(func() (err error) {
			c.runner, err = engine.Start(starting, o.Engine, filepath.Join(o.Dir, "engine-runner-"+o.Engine), o.Log)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, start := range []func(context.Context, Options) error{c.startDaytona, c.startDepot, c.startDoppler} {
		if err := start(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// startDaytona starts Daytona. It must run before startDepot, because the builders' configuration contains the address
// of Daytona's registry.
func (c *Cloud) startDaytona(ctx context.Context, _ Options) (err error) {
	all := []string{daytona.WriteSnapshots, daytona.DeleteSnapshots}
	options := daytona.Options{
		Registry: c.Registry,
		Organizations: []daytona.Organization{{
			ID: OtherOrganization, Name: "another", Regions: []daytona.Region{{ID: "local", Name: "Local"}},
			Keys: []daytona.Key{{Name: "another's", Value: c.DaytonaOtherKey, Permissions: all}},
		}, {
			ID: DaytonaOrganization, Name: "local cloud", Regions: []daytona.Region{{ID: "local", Name: "Local"}},
			Keys: []daytona.Key{
				{Name: "local cloud", Value: c.DaytonaKey, Permissions: all},
				{Name: "reader", Value: c.DaytonaReadKey},
				{Name: "expired", Value: c.DaytonaExpiredKey, Permissions: all, Expires: time.Now().Add(-time.Hour)},
			},
		}},
	}
	if c.runner != nil {
		options.Engine = c.runner.Host
		key := &options.Organizations[1].Keys[0] // without an engine, sandboxes run nothing
		key.Permissions = append(key.Permissions, daytona.WriteSandboxes, daytona.DeleteSandboxes)
	}
	c.Daytona, err = daytona.Start(ctx, options)
	return err
}

// startDepot starts the builders, GitHub, which issues OIDC tokens for Depot, and Depot.
func (c *Cloud) startDepot(ctx context.Context, o Options) (err error) {
	if c.Builders = o.Builders; c.Builders == nil {
		c.Builders, err = builders.Start(ctx, builders.Options{
			Dir:      filepath.Join(o.Dir, "builders"),
			Mirrors:  map[string]string{"docker.io": c.mirror.Addr},
			Insecure: []string{c.Registry.Addr, c.Daytona.RegistryHost()},
		})
		if err != nil {
			return err
		}
	}
	first := o.Repositories[0].Owner + "/" + o.Repositories[0].Name
	c.GitHub, err = github.Start(ctx, github.Options{
		Repositories: o.Repositories, Tokens: []string{c.GitHubToken}, Claims: map[string]string{"repository": first},
		JobTokens: []github.Token{{
			Value:       c.GitHubWriteToken,
			Permissions: map[string]string{"contents": "write", "attestations": "write"},
		}},
	})
	if err != nil {
		return err
	}
	c.Depot, err = depotapi.Start(depotapi.Options{
		Projects: []depotapi.Project{
			{ID: Project, Tokens: []string{c.DepotToken}, Trust: []string{first}}, {ID: "other"},
		},
		OrganizationTokens: []string{c.OrganizationToken},
		Issuer:             c.GitHub.Issuer(), Machines: c.Builders,
		Registry: depotapi.Registry{Host: c.Registry.Addr, Credential: c.depotCredential},
	})
	return err
}

func (c *Cloud) startDoppler(ctx context.Context, o Options) (err error) {
	writeAccess := func(config string) []doppler.Access {
		return []doppler.Access{{Project: Project, Config: config, Write: true}}
	}
	secrets := map[string]string{"DAYTONA_API_KEY": c.DaytonaKey}
	first := o.Repositories[0]
	c.Doppler, err = doppler.Start(ctx, doppler.Options{
		Projects: []doppler.Project{{Name: Project, Configs: []doppler.Config{
			{Name: "dev", Secrets: secrets}, {Name: "prd", Secrets: secrets},
		}}},
		Tokens: []doppler.Token{
			{Value: c.DopplerToken, Access: writeAccess("dev")}, {Value: c.DopplerTokenPRD, Access: writeAccess("prd")},
		},
		Identities: []doppler.Identity{{
			ID: DopplerIdentity, Audience: "https://github.com/" + first.Owner, Access: writeAccess(""),
			Claims: map[string]string{"sub": "repo:" + first.Owner + "/" + first.Name + ":*"},
		}},
		Issuer: c.GitHub.Issuer(),
	})
	return err
}

// depotCredential returns a password for a project's repository. Like Depot's, it is valid for an hour.
func (c *Cloud) depotCredential(project string, push bool) (string, error) {
	password := rand.Text()
	c.Registry.AddAccount(registry.Account{
		User: "x-token", Password: password, Prefix: project, Push: push, Expires: time.Now().Add(time.Hour),
	})
	return password, nil
}

// Env returns the environment variables that make a program use the cloud.
func (c *Cloud) Env() map[string]string {
	env := map[string]string{
		"DEPOT_API_URL": c.Depot.URL(), "DEPOT_TOKEN": c.DepotToken, "DEPOT_PROJECT_ID": Project,
		"GITHUB_API_URL": c.GitHub.APIURL(), "GITHUB_SERVER_URL": c.GitHub.ServerURL(), "GITHUB_TOKEN": c.GitHubToken,
		"ACTIONS_ID_TOKEN_REQUEST_URL":   c.GitHub.IDTokenRequestURL(),
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": c.GitHub.IDTokenRequestToken(),
		"DOPPLER_API_HOST":               c.Doppler.URL(), "DOPPLER_TOKEN": c.DopplerToken,
		"DOPPLER_TOKEN_PRD": c.DopplerTokenPRD,
		"DAYTONA_API_URL":   c.Daytona.URL(), "DAYTONA_API_KEY": c.DaytonaKey,
		"LOCALCLOUD_REGISTRY": c.Registry.Addr, "LOCALCLOUD_REGISTRY_USERNAME": RegistryUser,
		"LOCALCLOUD_REGISTRY_PASSWORD": c.RegistryPassword,
	}
	if c.Engine != nil {
		env["DOCKER_HOST"] = c.Engine.Host
	}
	return env
}

// Stop stops all services that Start started. It stops each service before the services that it depends on.
func (c *Cloud) Stop() error {
	var errs []error
	stopIf := func(started bool, stop func() error) {
		if started {
			errs = append(errs, stop())
		}
	}
	stopIf(c.Engine != nil, func() error { return c.Engine.Stop() })
	stopIf(c.Daytona != nil, func() error { return c.Daytona.Close() })
	stopIf(c.runner != nil, func() error { return c.runner.Stop() })
	stopIf(c.Doppler != nil, func() error { return c.Doppler.Close() })
	stopIf(c.Depot != nil, func() error { return c.Depot.Close() })
	stopIf(c.Builders != nil, func() error { return c.Builders.Stop() })
	stopIf(c.GitHub != nil, func() error { return c.GitHub.Close() })
	stopIf(c.Registry != nil, func() error { return c.Registry.Stop() })
	stopIf(c.mirror != nil, func() error { return c.mirror.Stop() })
	stopIf(c.lock != nil, func() error { return c.lock.Close() }) // unlocks it
	return errors.Join(errs...)
}

// lock creates dir and locks it. It returns an error if another cloud uses dir. Closing the file or exiting the process
// releases the lock.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := io.ReadAll(file)
		err = fmt.Errorf("directory %s is in use by another local cloud, process %s (stop it or use another directory)",
			dir, strings.TrimSpace(string(owner)))
		return nil, errors.Join(err, file.Close())
	}
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if _, err := fmt.Fprintln(file, os.Getpid()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
