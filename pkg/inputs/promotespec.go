package inputs

import (
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// PromoteSpec is a validated [Promote].
type PromoteSpec struct {
	Name            string // empty for the one that the config that is read names
	Record          DopplerRecord
	RequireVerified bool
	Image           string // reference to copy from; empty for the one in the history
	Region          string // ID or name that the snapshot must be in; empty accepts any
	Environment     string // GitHub environment of the deployment; empty records none
	Doppler         Doppler
	ToToken         string // writes Record.Configs; empty for the token that reads the config
	Daytona         Daytona
	GitHubToken     string
	Timeout         time.Duration
}

// Spec validates the inputs without using the network. An error is an [*Error].
func (in Promote) Spec() (PromoteSpec, error) {
	record, err := newRecord(in.SnapshotSecret, in.DopplerMirror, in.DopplerHistory, "to", in.To)
	if err != nil {
		return PromoteSpec{}, err
	}
	spec := PromoteSpec{
		Name: in.Name, Record: record, RequireVerified: in.RequireVerified, Image: in.Image, Region: in.Region,
		Environment: in.Environment, Doppler: in.Doppler, ToToken: in.ToToken, Daytona: in.Daytona,
		GitHubToken: in.GithubToken, Timeout: in.Timeout,
	}
	spec.Doppler.Default, spec.Doppler.Public = DefaultDopplerConfig, record.names()
	switch {
	case in.Argument != "" && in.Name != "" && in.Argument != in.Name:
		return PromoteSpec{}, Errorf("name", in.Name, "differs from the argument %q; write only one of them", in.Argument)
	case in.Argument != "":
		spec.Name = in.Argument
	}
	if spec.Name != "" {
		if err := daytona.CheckName(spec.Name); err != nil {
			return PromoteSpec{}, Wrap("name", err)
		}
	}
	if len(record.Configs) == 0 {
		return PromoteSpec{}, &Error{Input: "to", Reason: "is missing; write the Doppler config that names the snapshot, " +
			"for example prd"}
	}
	return spec, checkTimeout(in.Timeout)
}

// Spec validates the inputs like [Promote.Spec]. The result names the previous snapshot in the config that is read.
func (in Rollback) Spec() (PromoteSpec, error) {
	record, err := newRecord(in.SnapshotSecret, in.DopplerMirror, true, "", nil)
	if err != nil {
		return PromoteSpec{}, err
	}
	spec := PromoteSpec{
		Record: record, Environment: in.Environment, Doppler: in.Doppler, Daytona: in.Daytona, GitHubToken: in.GithubToken,
		Timeout: in.Timeout,
	}
	spec.Doppler.Default, spec.Doppler.Public = DefaultDopplerConfig, record.names()
	return spec, checkTimeout(in.Timeout)
}
