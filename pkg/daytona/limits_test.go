package daytona

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"usual", "iterate-sandbox-20260102-030405-abcdef0-jane", ""},
		{"all that is legal", "Team/app_1.2:v3", ""},
		{"a digest", "app@sha256:" + strings.Repeat("a", 64), ""},
		{"empty", "", "the snapshot's name is empty"},
		{"long", strings.Repeat("a", 300), "is 300 characters long: give one of at most 255"},
		{"as long as can be", strings.Repeat("a", 255), ""},
		{"a space", "a b", `the snapshot's name "a b" is not one that Daytona takes`},
		{"unicode", "größe", `the snapshot's name "größe" is not one`},
		{"a new line", "a\nb", `the snapshot's name "a\nb" is not one`},
		{"a slash at the end", "a/", "is not one that Daytona takes"},
		{"two slashes", "a//b", "is not one that Daytona takes"},
		{"half a digest", "a@sha256:12", "is not one that Daytona takes"},
		{"latest", "latest", `the snapshot's name "latest" would not say which one it is`},
		{"a tag latest", "app:latest", "would not say which one it is"},
	} {
		t.Run(test.name, func(t *testing.T) { says(t, CheckName(test.text), test.want) })
	}
}

func TestParseResources(t *testing.T) {
	for _, test := range []struct {
		name, cpu, memory, disk string
		want                    string
	}{
		{"the default", "2", "4", "10", ""},
		{"a fraction", "1.5", "4", "10", `cpu is "1.5": give a whole number of cores, such as 2`},
		{"zero", "2", "0", "10", "memory is 0: give a positive number of GB, such as 2"},
		{"negative", "2", "4", "-1", "disk is -1: give a positive number of GB"},
		{"a unit", "2", "4GB", "10", `memory is "4GB": give a whole number of GB`},
		{"empty", "", "4", "10", `cpu is "": give a whole number of cores`},
		{"huge", "2", "4", "99999999999", "disk is 99999999999: give a positive number"},
		{"beyond all", "2", "4", "99999999999999999999999", `disk is "99999999999999999999999": give a whole number`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := ParseResources(test.cpu, test.memory, test.disk)
			says(t, err, test.want)
			if err == nil && r != (Resources{2, 4, 10}) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestLimitsCheck(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		asked  Resources
		want   string
	}{
		{"as much as there is", Limits{Sandbox: Resources{4, 8, 10}}, Resources{4, 8, 10}, ""},
		{"not known", Limits{}, Resources{99, 99, 99}, ""},
		{"too much of one", Limits{Sandbox: Resources{4, 8, 10}}, Resources{8, 8, 10}, "cpu is 8 and the most for one sandbox is 4 cores: ask for less"},
		{"of two", Limits{Sandbox: Resources{4, 8, 10}}, Resources{8, 8, 20}, "cpu is 8 and the most for one sandbox is 4 cores; disk is 20 and the most for one sandbox is 10 GB: ask for less"},
		{"one snapshot more", Limits{Snapshots: 3, Used: 2}, Resources{1, 1, 1}, ""},
		{"no snapshot more", Limits{Snapshots: 3, Used: 3}, Resources{1, 1, 1}, "the organization has 3 of at most 3 snapshots: delete one"},
	} {
		t.Run(test.name, func(t *testing.T) { says(t, test.limits.Check(test.asked), test.want) })
	}
}
