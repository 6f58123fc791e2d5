package inputs

import (
	"regexp"
	"strings"
)

// DopplerRecord is where the name of a snapshot is recorded in Doppler.
type DopplerRecord struct {
	Required     bool // a run without a Doppler token fails
	Secret       string
	Mirror       string // another secret, which becomes a reference to Secret
	CreateMirror bool   // create Mirror where it does not exist
	History      string // another secret, which contains the last names; "" for none
	Configs      []DopplerConfigName
}

// names returns the secrets of the record, which are not sensitive.
func (r DopplerRecord) names() []string { return []string{r.Secret, r.Mirror, HistorySecret(r.Secret)} }

// DopplerConfigName names a config. Without a project, it is in the project of the config that is read.
type DopplerConfigName struct{ Project, Config string }

// defaultMirrorPrefix begins the name of the mirror for Vite, which exposes only variables with this prefix.
const defaultMirrorPrefix = "VITE_"

var (
	secretNamePattern = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)
	configNamePattern = regexp.MustCompile(`^(?:([A-Za-z0-9_-]+)\.)?([A-Za-z0-9_-]+)$`)
)

// HistorySecret returns the secret that contains the history of another one.
func HistorySecret(secret string) string { return secret + "_HISTORY" }

// record returns where the inputs record the name of the snapshot.
func (in Snapshot) record() (DopplerRecord, error) {
	record, err := newRecord(in.SnapshotSecret, in.DopplerMirror, in.DopplerHistory, "doppler_configs", in.DopplerConfigs)
	if err != nil {
		return DopplerRecord{}, err
	}
	record.Required = in.UpdateDoppler != nil && *in.UpdateDoppler || in.UpdateDoppler == nil &&
		in.DopplerConfig+in.DopplerProject+in.DopplerIdentity != "" || len(record.Configs) > 0
	if len(record.Configs) > 0 && !in.updatesDoppler() {
		return DopplerRecord{}, &Error{Input: "doppler_configs", Reason: "needs update_doppler: true"}
	}
	return record, nil
}

// newRecord validates the names of secrets and of the configs in the input configsInput.
func newRecord(
	secret SnapshotSecret, mirror string, history bool, configsInput string, configs List,
) (DopplerRecord, error) {
	record := DopplerRecord{Secret: secret.DopplerSecret, Mirror: mirror, CreateMirror: mirror != ""}
	if err := checkSecretName("doppler_secret", record.Secret); err != nil {
		return DopplerRecord{}, err
	}
	if record.Mirror == "" {
		record.Mirror = defaultMirrorPrefix + record.Secret
	} else if err := checkSecretName("doppler_mirror", record.Mirror); err != nil {
		return DopplerRecord{}, err
	}
	if history {
		record.History = HistorySecret(record.Secret)
	}
	if record.Mirror == record.Secret || record.Mirror == record.History {
		return DopplerRecord{}, Errorf("doppler_mirror", record.Mirror, "must differ from doppler_secret and its history")
	}
	for _, item := range configs {
		match := configNamePattern.FindStringSubmatch(item.Text)
		if match == nil {
			return DopplerRecord{}, itemErrorf(configsInput, item, "is not a valid name; write CONFIG or PROJECT.CONFIG")
		}
		record.Configs = append(record.Configs, DopplerConfigName{match[1], match[2]})
	}
	return record, nil
}

// updatesDoppler reports whether the name is recorded in Doppler. By default, it is if there is a Doppler token.
func (in Snapshot) updatesDoppler() bool { return in.UpdateDoppler == nil || *in.UpdateDoppler }

func checkSecretName(input, name string) error {
	switch {
	case !secretNamePattern.MatchString(name):
		return Errorf(input, name, "is not a valid secret name; write upper-case letters, digits and underscores")
	case strings.HasPrefix(name, "DOPPLER_"):
		return Errorf(input, name, "is reserved by Doppler; write another name")
	}
	return nil
}
