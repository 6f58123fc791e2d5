package actions

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-github/v62/github"
	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// credentials are what Doppler supplied; empty without it.
type credentials struct {
	secrets map[string]string
}

// findCredentials reads the Doppler config, if one is named, and masks all that it holds.
func (b *build) findCredentials(ctx context.Context) error {
	in := b.in
	token := in.DopplerToken
	if in.DopplerConfig == "" && in.DopplerProject == "" && token == "" && in.DopplerIdentity == "" {
		return nil
	}
	defer b.phases.begin("Doppler")()
	if token == "" && in.DopplerIdentity == "" {
		token = b.Getenv("DOPPLER_TOKEN")
	}
	host := b.Getenv("DOPPLER_API_HOST")
	switch {
	case token != "":
		b.Runner.Mask(token)
	case in.DopplerIdentity == "":
		return fmt.Errorf("input doppler_config: %q can not be read without a token: give doppler_token (a service token), set DOPPLER_TOKEN, or give doppler_identity to enter with GitHub OIDC", in.DopplerConfig)
	default:
		owner, _, _ := strings.Cut(b.repositoryName(), "/")
		id, err := b.Runner.IDToken(ctx, "https://github.com/"+owner)
		if errors.Is(err, runner.ErrNoIDToken) {
			return fmt.Errorf("input doppler_identity: %w", builder.ErrNoIDToken)
		}
		if err != nil {
			return err
		}
		if token, err = doppler.Login(ctx, host, in.DopplerIdentity, id); err != nil {
			return err
		}
		b.Runner.Mask(token)
	}
	secrets, err := doppler.Client{Host: host, Token: token, Project: in.DopplerProject, Config: in.DopplerConfig}.Secrets(ctx)
	if err != nil {
		return err
	}
	for name, value := range secrets {
		if !strings.HasPrefix(name, "DOPPLER_") { // the names of project, environment and config are no secrets
			b.Runner.Mask(value)
		}
	}
	b.credentials.secrets = secrets
	return nil
}

// getenv is the environment, where Doppler has not said otherwise.
func (b *build) getenv(name string) string {
	if value := b.credentials.secrets[name]; value != "" {
		return value
	}
	return b.Getenv(name)
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
	checkout, err := source.Checkout(ctx, b.Dir)
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
	return nil
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
	r := source.Repository{Owner: owner, Name: name, Token: token, ServerURL: b.Getenv("GITHUB_SERVER_URL")}
	if r.ServerURL == "" {
		r.ServerURL = "https://github.com"
	}
	r.Client = github.NewClient(nil)
	if token != "" {
		r.Client = r.Client.WithAuthToken(token)
	}
	if api := b.Getenv("GITHUB_API_URL"); api != "" {
		base, err := url.Parse(strings.TrimSuffix(api, "/") + "/")
		if err != nil || base.Host == "" {
			return r, fmt.Errorf("GITHUB_API_URL: %q is no URL: unset it, or set it to your server's API, such as https://api.github.com", api)
		}
		r.Client.BaseURL = base
	}
	return r, nil
}

// fetch gets the commit's tree, unless the checkout itself is built, and what the context needs beside it.
func (b *build) fetch(ctx context.Context) error {
	if b.commit.SHA != "" && b.tree.Dir == "" {
		defer b.phases.begin("git to fetch %s", b.commit.SHA)()
		repository, err := b.repository()
		if err != nil {
			return err
		}
		name := b.tree.Repository
		if b.tree, err = repository.Fetch(ctx, b.commit, filepath.Join(b.scratch, "source")); err != nil {
			return err
		}
		b.tree.Repository = name
		if err := b.plan.locate(b.tree.Dir); err != nil {
			return err
		}
	}
	if b.in.GitContext == "" || b.plan.request.Contexts[b.in.GitContext] != "" {
		return nil
	}
	dir := filepath.Join(b.scratch, "git")
	if err := b.tree.GitDir(ctx, dir); err != nil {
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
	token := builder.TokenSource{Input: b.in.DepotToken, Getenv: b.getenv, IDToken: b.Runner.IDToken, Log: b.Runner.Infof}
	return builder.Depot{Project: project, Token: token.Token, Log: b.Runner.Infof, Mask: b.Runner.Mask}, nil
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
