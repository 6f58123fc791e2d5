package suite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// BenchmarkFortyCommands is what 40 commands take: a container each one after the other, a container each several at a time, and one that all share.
func BenchmarkFortyCommands(b *testing.B) {
	suite := func(session string) *Suite {
		var text strings.Builder
		text.WriteString("tests:\n")
		for i := range 40 {
			fmt.Fprintf(&text, "  - {name: %d, run: [/service, print, hello], stdout: hello%s}\n", i, session)
		}
		s, err := Parse("tests.yaml", []byte(text.String()))
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	for _, kind := range []string{engine.Current, engine.Oldest} {
		m := fleet(b)[kind]
		for _, bench := range []struct {
			name     string
			session  string
			parallel int
		}{{"sequence", "", 1}, {"parallel-4", "", 4}, {"parallel-8", "", 8}, {"session", ", session: s", 1}} {
			s := suite(bench.session)
			b.Run(kind+"/"+bench.name, func(b *testing.B) {
				for b.Loop() {
					r, err := Run(b.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: bench.parallel})
					if err != nil || r.Passed != 40 {
						b.Fatal(r, err)
					}
				}
			})
		}
	}
}
