package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// credentials are what Doppler supplied; empty without it.
type credentials struct {
	doppler *doppler.Client
	secrets map[string]string
}

// over is an environment in which the secrets come first.
func (c credentials) over(getenv func(string) string) func(string) string {
	return func(name string) string { return first(c.secrets[name], getenv(name)) }
}

// findCredentials reads the Doppler config, if one is named, and masks all that it holds. repository is whose workflow enters with OIDC;
// without any token it is an error, or, if optional, nothing.
func (p *Program) findCredentials(ctx context.Context, in DopplerInputs, repository string, optional bool) (credentials, error) {
	if in == (DopplerInputs{}) {
		return credentials{}, nil
	}
	client := doppler.Client{Host: p.Getenv("DOPPLER_API_HOST"), Token: in.DopplerToken, Project: in.DopplerProject, Config: in.DopplerConfig}
	if client.Token == "" && in.DopplerIdentity == "" {
		client.Token = p.Getenv("DOPPLER_TOKEN")
	}
	if client.Token == "" && in.DopplerIdentity == "" && !p.Runner.InActions() {
		client.Token = p.dopplerCLI(ctx, "token")
		if client.Project == "" && client.Token != "" {
			client.Project = p.dopplerCLI(ctx, "project")
		}
	}
	switch {
	case client.Token != "":
		p.Runner.Mask(client.Token)
	case in.DopplerIdentity == "" && optional:
		return credentials{}, nil
	case in.DopplerIdentity == "":
		return credentials{}, fmt.Errorf("input doppler_config: %q can not be read without a token: give doppler_token (a service token), set DOPPLER_TOKEN, or give doppler_identity to enter with GitHub OIDC", in.DopplerConfig)
	default:
		client.Renew = func(ctx context.Context) (string, error) { return p.dopplerLogin(ctx, in.DopplerIdentity, repository) }
		var err error
		if client.Token, err = client.Renew(ctx); err != nil {
			return credentials{}, err
		}
	}
	secrets, err := client.Secrets(ctx)
	if err != nil {
		return credentials{}, err
	}
	for name, value := range secrets {
		if !public(name, value) {
			p.Runner.Mask(value)
		}
	}
	return credentials{&client, secrets}, nil
}

// public says what of a config is no secret: names and places that we show ourselves, and what would hide half of every log.
func public(name, value string) bool {
	switch name {
	case nameSecret, mirrorSecret, "DEPOT_PROJECT_ID", "DAYTONA_API_URL", "DAYTONA_ORG_ID", "DAYTONA_ORGANIZATION_ID",
		"DOPPLER_PROJECT", "DOPPLER_ENVIRONMENT", "DOPPLER_CONFIG":
		return true
	}
	_, err := strconv.ParseBool(value)
	return err == nil
}

// dopplerLogin enters Doppler with the job's identity.
func (p *Program) dopplerLogin(ctx context.Context, identity, repository string) (string, error) {
	owner, _, _ := strings.Cut(repository, "/")
	id, err := p.Runner.IDToken(ctx, "https://github.com/"+owner)
	if errors.Is(err, runner.ErrNoIDToken) {
		return "", fmt.Errorf("input doppler_identity: %w", builder.ErrNoIDToken)
	}
	if err != nil {
		return "", err
	}
	token, err := doppler.Client{Host: p.Getenv("DOPPLER_API_HOST")}.Login(ctx, identity, id)
	if err == nil {
		p.Runner.Mask(token)
	}
	return token, err
}

// dopplerCLI is a setting that a developer has made with `doppler login` and `doppler setup`; "" where there is none.
func (p *Program) dopplerCLI(ctx context.Context, setting string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "doppler", "configure", "get", setting, "--plain", "--no-check-version")
	command.Dir = p.Dir
	out, err := command.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// getenv is the environment, where Doppler has not said otherwise.
func (b *build) getenv(name string) string {
	return b.credentials.over(b.Getenv)(name)
}

// first is the first value that is there.
func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

// repositoryName is owner/name: the workflow's repository, else that of the checkout's remote.
func (b *build) repositoryName() string {
	if name := b.Getenv("GITHUB_REPOSITORY"); name != "" {
		return name
	}
	return b.tree.Repository
}

// resolve finds out what is built: the checkout as it is, or the commit that the ref means now.
func (b *build) resolve(ctx context.Context) error {
	defer b.phases.begin("GitHub to resolve the ref")()
	ref := b.in.Ref
	checkout, err := source.OpenCheckout(ctx, b.Dir)
	if err != nil && ref == "" {
		return err
	}
	b.tree = checkout
	if ref == "" {
		_, missing := os.Stat(b.plan.dockerfile(b.Dir))
		sha := b.Getenv("GITHUB_SHA")
		if checkout.SHA == "" && missing != nil && b.Runner.InActions() && sha != "" {
			ref = sha
		} else {
			b.say()
			if b.in.GitContext != "" && b.tree.SHA == "" {
				return refuse("git_context", b.in.GitContext, "needs a commit, and what is built is no git repository: give a ref, or build from a clone")
			}
			if err := b.trust(ctx); err != nil {
				return err
			}
			return b.plan.locate(b.tree.Dir)
		}
	}
	repository, err := b.repository()
	if err != nil {
		return err
	}
	if b.commit, err = repository.Resolve(ctx, ref); err != nil {
		return err
	}
	if b.in.Ref == "" {
		b.commit.Ref = b.Getenv("GITHUB_REF")
	}
	b.tree = source.Tree{SHA: b.commit.SHA, Ref: b.commit.Ref, Repository: b.tree.Repository}
	b.say()
	return b.trust(ctx)
}

func (b *build) say() {
	switch {
	case b.tree.SHA == "":
		b.Runner.Infof("Building %s, which is no git repository", b.tree.Dir)
	case b.tree.Dirty:
		b.Runner.Infof("Building the checkout as it is: %s-dirty %s", b.tree.SHA, b.tree.Ref)
	default:
		b.Runner.Infof("Building %s %s", b.tree.SHA, b.tree.Ref)
	}
}

// repository is where a ref is looked up and fetched.
func (b *build) repository() (source.Repository, error) {
	owner, name, ok := strings.Cut(b.repositoryName(), "/")
	if !ok {
		return source.Repository{}, fmt.Errorf("input ref: %q is of no known repository: set GITHUB_REPOSITORY to owner/name, or run in a clone that has a GitHub remote", b.in.Ref)
	}
	token := b.in.GithubToken
	if token == "" {
		token = b.getenv("GITHUB_TOKEN")
	}
	if token != "" {
		b.Runner.Mask(token)
	}
	return source.Repository{
		Owner: owner, Name: name, Token: token,
		APIURL: b.Getenv("GITHUB_API_URL"), ServerURL: b.Getenv("GITHUB_SERVER_URL"),
	}, nil
}

// fetchTree gets the commit's files, unless the checkout itself is used, or they are there.
func (b *build) fetchTree(ctx context.Context) error {
	if b.commit.SHA == "" || b.tree.Dir != "" {
		return nil
	}
	defer b.phases.begin("git to fetch %s", b.commit.SHA)()
	repository, err := b.repository()
	if err != nil {
		return err
	}
	name := b.tree.Repository
	b.tree, err = repository.Fetch(ctx, b.commit, filepath.Join(b.scratch, "source"))
	b.tree.Repository = name
	return err
}

// fetch gets what is built: the commit's files, and what the context needs beside them.
func (b *build) fetch(ctx context.Context) error {
	if err := b.fetchTree(ctx); err != nil {
		return err
	}
	if err := b.plan.locate(b.tree.Dir); err != nil {
		return err
	}
	if b.in.GitContext == "" || b.plan.request.Contexts[b.in.GitContext] != "" {
		return nil
	}
	dir := filepath.Join(b.scratch, "git")
	if err := b.tree.WriteGitDir(ctx, dir); err != nil {
		return fmt.Errorf("input git_context: %w", err)
	}
	b.plan.request.Contexts[b.in.GitContext] = dir
	return nil
}

// starter is where a BuildKit comes from.
type starter interface {
	Start(context.Context, builder.Request) (*builder.Build, error)
}

func (b *build) builder() (starter, error) {
	if b.in.Builder != "depot" {
		return builder.Address{Addr: b.in.Builder, Getenv: b.Getenv}, nil
	}
	project := b.in.DepotProject
	if project == "" {
		dir := b.Dir
		if b.tree.Dir != "" {
			dir = b.tree.Dir
		}
		var err error
		if project, err = builder.FindProject(dir, b.getenv); err != nil {
			return nil, err
		}
	}
	return b.depot(project), nil
}

// depot is Depot, entered as the inputs and the job allow.
func (b *build) depot(project string) builder.Depot {
	token := builder.TokenSource{Input: b.in.DepotToken, Getenv: b.getenv, IDToken: b.Runner.IDToken, Log: b.Runner.Infof}
	return builder.Depot{Project: project, Token: token.Token, Log: b.Runner.Infof, Mask: b.Runner.Mask}
}

func (b *build) builderRequest() builder.Request {
	return builder.Request{
		Platforms: b.plan.platforms,
		Tags:      b.plan.push,
		Push:      len(b.plan.push) > 0,
		Load:      b.in.Load,
		Save:      b.in.Save,
	}
}
