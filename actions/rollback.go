package actions

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/trust"
)

// Rollback records the snapshot that a Doppler config named before the current one.
func Rollback(ctx context.Context, env Env, in inputs.Rollback) error {
	spec, err := in.Spec()
	if err != nil {
		return env.reject(err)
	}
	return env.runJob(ctx, spec.Timeout, inputs.Report{}, func(
		ctx context.Context, job job,
	) (run runrecord.Record, err error) {
		if err := trust.CheckNaming(job.Event); err != nil {
			return run, err
		}
		read, err := readDoppler(ctx, job.Env, spec.Doppler)
		if err != nil {
			return run, err
		}
		configs := configsToWrite(spec.Record, *read.Client)
		if err := checkConfigs(ctx, job, spec.Record, configs); err != nil {
			return run, err
		}
		config := configs[0]
		previous, found := rollbackTarget(config.Records, config.Previous)
		if !found {
			return run, fmt.Errorf(
				"%s has no name before %q in %s (name a snapshot with `action-snapshot promote NAME --to %s`)",
				config.Name(),
				config.Previous,
				spec.Record.History,
				config.Config,
			)
		}
		client, err := daytonaClient(job.Env, spec.Daytona, read)
		if err != nil {
			return run, err
		}
		snapshot, err := findPrevious(ctx, client, config, previous)
		if err != nil {
			return run, err
		}
		if err := ensureActive(ctx, job, client, snapshot, previous.Image); err != nil {
			return run, err
		}
		record := newRecord(ctx, job, actionRollback, snapshot)
		record.Commit, record.Image, record.Verified = commitOf(snapshot, previous), previous.Image, previous.Verified
		record.Replaced = config.Previous
		update, err := nameAndDeploy(ctx, job, spec, configs, record)
		addNaming(&run, snapshot, record, update, configs)
		if err != nil {
			return run, err
		}
		run.Outputs = outputList(promoteOutputs(job, snapshot, record, update, config.Previous))
		return run, nil
	})
}

// findPrevious returns the snapshot of a record. If it does not exist anymore, the error lists earlier ones that do.
func findPrevious(
	ctx context.Context, client daytona.Client, config dopplerConfig, record namingRecord,
) (daytona.Snapshot, error) {
	s, found, err := client.Find(ctx, record.Name)
	if err != nil || found && (record.Digest == "" || digestOf(s).String() == record.Digest) {
		return s, err
	}
	problem := "was deleted"
	if found {
		problem = "has another image now"
	}
	list, err := client.List(ctx, "")
	if err != nil {
		return daytona.Snapshot{}, err
	}
	var others []string
	for _, other := range list {
		earlier, isRecorded := recordOf(config.Records, other.Name)
		if isRecorded && other.Name != config.Previous && other.Name != record.Name && isUsable(other) &&
			(earlier.Digest == "" || earlier.Digest == digestOf(other).String()) {
			others = append(others, other.Name)
		}
	}
	remedy := "create another one with action-snapshot"
	if len(others) > 0 {
		remedy = fmt.Sprintf("earlier snapshots: %s; run `action-snapshot promote NAME --to %s`", strings.Join(others, ", "),
			config.Config)
	}
	err = fmt.Errorf("snapshot %s, which %s named before, %s (%s)", record.Name, config.Name(), problem, remedy)
	return daytona.Snapshot{}, err
}
