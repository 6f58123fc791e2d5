package builder

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzForkOf: only an event that names another repository as the pull request's source is one of a fork.
func FuzzForkOf(f *testing.F) {
	for _, seed := range []string{
		`{"repository":{"full_name":"o/r","private":false},"pull_request":{"head":{"repo":{"full_name":"c/r"}}}}`, `{"repository":{"full_name":"o/r","private":true},"pull_request":{"head":{"repo":{"full_name":"o/r"}}}}`,
		`{"pull_request":{"head":{"repo":null}}}`, `{}`, `[]`, ``, `{"repository":7}`,
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "event.json")
	source := TokenSource{Getenv: environment(map[string]string{"GITHUB_EVENT_NAME": "pull_request", "GITHUB_RUN_ID": "1", "GITHUB_EVENT_PATH": file})}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		name, private := source.forkOf()
		var event struct {
			PullRequest struct {
				Head struct {
					Repo struct {
						FullName string `json:"full_name"`
					}
				}
			} `json:"pull_request"`
		}
		head := ""
		if json.Unmarshal(data, &event) == nil {
			head = event.PullRequest.Head.Repo.FullName
		}
		if (name != "" || private) && (head == "" || name == head) {
			t.Errorf("%q, %t: the head is of %q", name, private, head)
		}
	})
}
