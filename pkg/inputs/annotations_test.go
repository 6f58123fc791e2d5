package inputs

import (
	"reflect"
	"testing"
)

func TestAnnotations(t *testing.T) {
	const text = "INPUT_ANNOTATIONS=a=1\nindex:b=2\nmanifest[linux/arm64/v8]:c=3\nmanifest-descriptor:d=4\n" +
		"manifest,index:e=x:y=z\nmanifest:urn:f[0]=5"
	for _, test := range []struct {
		platforms string
		image     map[string]string // of linux/amd64
		index     map[string]string
	}{
		{
			"linux/amd64,linux/arm64", map[string]string{
				"annotation.a": "1", "annotation-manifest-descriptor.d": "4", "annotation.e": "x:y=z",
				"annotation.urn:f[0]": "5",
			}, map[string]string{"b": "2", "e": "x:y=z"},
		},
		{
			"linux/arm64", map[string]string{
				"annotation.a": "1", "annotation-index.b": "2", "annotation-manifest-descriptor.d": "4",
				"annotation.e": "x:y=z", "annotation-index.e": "x:y=z", "annotation.urn:f[0]": "5",
			}, map[string]string{"b": "2", "e": "x:y=z"},
		},
	} {
		spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()}, text, "INPUT_PROVENANCE=true",
			"INPUT_PLATFORM="+test.platforms)
		if err != nil {
			t.Fatal(err)
		}
		if got := spec.Annotations("linux/amd64"); !reflect.DeepEqual(got, test.image) {
			t.Errorf("%s: image annotations %v, want %v", test.platforms, got, test.image)
		}
		if got := spec.IndexAnnotations(); !reflect.DeepEqual(got, test.index) {
			t.Errorf("%s: index annotations %v, want %v", test.platforms, got, test.index)
		}
	}
}

// BuildKit fails late, or drops annotations silently, where the image has no place for them.
func TestAnnotationsWithoutAPlace(t *testing.T) {
	const several = "INPUT_PLATFORM=linux/amd64,linux/arm64"
	const push, unattested = "INPUT_PUSH=ghcr.io/a/b:1", "INPUT_PROVENANCE=false"
	for _, test := range []struct {
		annotation string
		variables  []string
		reason     string // empty: accepted
	}{
		{"index:a=b", []string{push}, ""},
		{"index:a=b", []string{push, unattested}, "has only with an attestation"},
		{"index-descriptor:a=b", []string{push, unattested}, "has only with an attestation"},
		{"index:a=b", []string{push, several, unattested}, ""},
		{"index-descriptor:a=b", []string{push}, ""},
		{"manifest,index-descriptor:a=b", []string{push, several}, "needs an OCI layout"},
		{"manifest-descriptor:a=b", []string{push, unattested}, ""},
		{"manifest-descriptor:a=b", []string{push, several}, ""},
		{"manifest-descriptor:a=b", []string{push, several, unattested}, "BuildKit writes the descriptor"},
	} {
		_, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()},
			append(test.variables, "INPUT_ANNOTATIONS="+test.annotation)...)
		if test.reason != "" {
			assertInvalid(t, err, "annotations", 1, test.annotation, test.reason)
		} else if err != nil {
			t.Errorf("%s with %q: %v", test.annotation, test.variables, err)
		}
	}
	spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()}, "INPUT_ANNOTATIONS=manifest,index:a=b")
	want := map[string]string{"annotation.a": "b"}
	if got := spec.Annotations("linux/amd64"); err != nil || !reflect.DeepEqual(got, want) || len(spec.Warnings) != 1 {
		t.Errorf("an image that is only loaded: %v, warnings %q, %v; want %v and a warning", got, spec.Warnings, err, want)
	}
}
