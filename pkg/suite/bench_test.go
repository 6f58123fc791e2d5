package suite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// BenchmarkFortyCommands runs 40 commands in separate containers, in sequence or in parallel, in one session, and in
// four parallel sessions.
func BenchmarkFortyCommands(b *testing.B) {
	suite := func(sessions int) *Suite {
		var text strings.Builder
		text.WriteString("tests:\n")
		for i := range 40 {
			session := ""
			if sessions > 0 {
				session = fmt.Sprintf(", session: s%d", i%sessions)
			}
			const test = "  - {name: command %d, run: [/service, print, hello], stdout: hello%s}\n"
			fmt.Fprintf(&text, test, i, session)
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
			sessions int
			parallel int
		}{
			{"sequence", 0, 1}, {"parallel-4", 0, 4}, {"parallel-8", 0, 8}, {"session", 1, 1}, {"sessions-4", 4, 4},
		} {
			s := suite(bench.sessions)
			o := Options{Image: debian, ImageID: m.debian, Target: m.target(), Parallel: bench.parallel}
			b.Run(kind+"/"+bench.name, func(b *testing.B) {
				for b.Loop() {
					r, err := Run(b.Context(), s, o)
					if err != nil || r.Passed != 40 {
						b.Fatal(r, err)
					}
				}
			})
		}
	}
}
