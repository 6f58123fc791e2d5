package runrecord

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// HashBuildArgs returns the hash of each build argument for [Source].BuildArgs, or "" if redact removes a secret from
// the value. A short value can be guessed from its hash, also from one with a key that the next run can read. Other
// values are in the inputs of the record.
func HashBuildArgs(args map[string]string, redact func(string) string) map[string]string {
	hashes := make(map[string]string, len(args))
	for name, value := range args {
		hashes[name] = ""
		if redact(value) == value {
			hashes[name] = shortHash([]byte(value))
		}
	}
	return hashes
}

// FoldFiles returns the files with one entry for each directory at the top, such as "src/", instead of its files. Such
// an entry is "", for unknown, if a file is.
func FoldFiles(files map[string]string) map[string]string {
	folded := map[string]string{}
	content := map[string]*strings.Builder{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		directory, rest, isBelow := strings.Cut(path, "/")
		directory += "/"
		switch _, isUnknown := folded[directory]; {
		case !isBelow || rest == "": // rest is empty for a directory that is folded already
			folded[path] = files[path]
		case isUnknown:
		case files[path] == "":
			folded[directory] = ""
			delete(content, directory)
		default:
			if content[directory] == nil {
				content[directory] = &strings.Builder{}
			}
			content[directory].WriteString(path + "\x00" + files[path] + "\n")
		}
	}
	for directory, list := range content {
		folded[directory] = shortHash([]byte(list.String()))
	}
	return folded
}

func isFolded(path string) bool { return strings.HasSuffix(path, "/") }

func shortHash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// changedFiles returns the files of the context that were added, changed or removed, sorted. Files whose content a
// record does not show are not among them.
func changedFiles(before, after map[string]string) []string {
	if before == nil || after == nil {
		return nil
	}
	folded := func(files map[string]string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(files)), isFolded)
	}
	if folded(before) != folded(after) {
		before, after = FoldFiles(before), FoldFiles(after)
	}
	return changedKeys(before, after)
}

// changedKeys returns the keys with different values, sorted. "" stands for an unknown value.
func changedKeys(before, after map[string]string) (changed []string) {
	for key, value := range after {
		old, exists := before[key]
		isKnown := value != "" && (old != "" || !exists)
		if isKnown && value != old {
			changed = append(changed, key)
		}
	}
	for key, value := range before {
		if _, exists := after[key]; !exists && value != "" {
			changed = append(changed, key)
		}
	}
	slices.Sort(changed)
	return changed
}
