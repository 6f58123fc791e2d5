package terminal

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/pkg/humanize"
)

// emulator shows what a terminal of a width shows: it understands the control sequences of BuildKit's display.
type emulator struct {
	width       int
	rows        [][]rune
	row, column int
	longest     int // line that was written, in characters
}

var (
	control  = regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`)
	ignored  = regexp.MustCompile(`^\x1b\[[?0-9;]*[hlm]`) // the cursor's look, and colors
	duration = regexp.MustCompile(` +\d+\.\ds`)
)

func (e *emulator) write(text string) {
	for text != "" {
		if skipped := ignored.FindString(text); skipped != "" {
			text = text[len(skipped):]
			continue
		}
		if m := control.FindStringSubmatch(text); m != nil {
			n := 1
			_, _ = fmt.Sscan(m[1], &n)
			switch m[2] {
			case "A":
				e.row = max(0, e.row-n)
			case "B":
				e.row += n
			case "G":
				e.column = max(0, n-1)
			case "K":
				if e.row < len(e.rows) && e.column < len(e.rows[e.row]) {
					e.rows[e.row] = e.rows[e.row][:e.column]
				}
			}
			text = text[len(m[0]):]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch r {
		case '\n':
			e.row++
		case '\r':
			e.column = 0
		default:
			e.put(r)
		}
	}
}

func (e *emulator) put(r rune) {
	if e.column >= e.width { // a terminal wraps before the next character
		e.column = 0
		e.row++
	}
	for len(e.rows) <= e.row {
		e.rows = append(e.rows, nil)
	}
	for len(e.rows[e.row]) <= e.column {
		e.rows[e.row] = append(e.rows[e.row], ' ')
	}
	e.rows[e.row][e.column] = r
	e.column++
	e.longest = max(e.longest, e.column)
}

// String returns the screen without durations and without spaces at the ends of lines.
func (e *emulator) String() string {
	var lines []string
	for _, row := range e.rows {
		lines = append(lines, strings.TrimRight(duration.ReplaceAllString(string(row), " TIME"), " "))
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// shownBy returns what a terminal shows at the end of show.
func shownBy(t *testing.T, columns int, isUnicode bool, show func(s *Screen, resize func(columns int))) *emulator {
	t.Helper()
	t.Setenv("TTY_DISPLAY_RATE", "1") // milliseconds between updates of the display
	master, file, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	resize := func(columns int) {
		if err := pty.Setsize(master, &pty.Winsize{Rows: 30, Cols: uint16(columns)}); err != nil {
			t.Error(err)
		}
	}
	resize(columns)
	var output strings.Builder
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&output, master) // fails when the terminal is closed
	}()
	show(NewScreen(file, isUnicode), resize)
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	<-read
	master.Close()
	e := &emulator{width: columns, row: 2} // below a prompt
	e.write(output.String())
	return e
}

func TestScreen(t *testing.T) {
	for _, test := range []struct {
		name      string
		columns   int
		isUnicode bool
		show      func(s *Screen, resize func(columns int))
		want      string
	}{
		{"load", 60, true, func(s *Screen, _ func(int)) {
			task := s.Start("Loading", "load sandbox:local", "unpack")
			task.Transfer(humanize.Transfer{Done: 1e6, Total: 3e6})
			task.Transfer(humanize.Transfer{Done: 3e6, Total: 3e6})
			task.End(nil)
		}, `
[+] Loading TIME (1/1) FINISHED
 => load sandbox:local TIME
 => => layers 3.00MB / 3.00MB TIME
 => => unpack TIME`},
		{"unknown size", 60, true, func(s *Screen, _ func(int)) {
			task := s.Start("Pushing", "push x", "")
			task.Transfer(humanize.Transfer{Done: 2e6})
			task.End(nil)
		}, `
[+] Pushing TIME (1/1) FINISHED
 => push x TIME
 => => layers 2.00MB TIME`},
		{"states", 60, true, func(s *Screen, _ func(int)) {
			task := s.Start("Creating the snapshot", "snapshot a", "")
			for _, state := range []string{"pending", "pulling", "pulling", "active"} {
				task.State(state)
			}
			task.End(nil)
		}, `
[+] Creating the snapshot TIME (1/1) FINISHED
 => snapshot a TIME
 => => pending TIME
 => => pulling TIME
 => => active TIME`},
		{"failure", 60, true, func(s *Screen, _ func(int)) {
			task := s.Start("Pushing", "push x", "")
			task.End(errors.New("refused"))
		}, `
[+] Pushing TIME (1/1) FINISHED
 => FAILED push x TIME`},
		{"text follows the display", 60, true, func(s *Screen, _ func(int)) {
			fmt.Fprintln(s, "before")
			task := s.Start("Pushing", "push x", "")
			fmt.Fprintln(s, "warning: meanwhile")
			task.State("half")
			task.End(nil)
			fmt.Fprintln(s, "after")
		}, `
before
[+] Pushing TIME (1/1) FINISHED
 => push x TIME
 => => half TIME
warning: meanwhile
after`},
		{"one display for parts at the same time", 60, true, func(s *Screen, _ func(int)) {
			a, b := s.Start("Pushing", "push a", ""), s.Start("Pushing", "push b", "")
			a.End(nil)
			b.State("half")
			b.End(nil)
			s.Start("Verifying", "verify a", "").End(nil)
		}, `
[+] Pushing TIME (2/2) FINISHED
 => push a TIME
 => push b TIME
 => => half TIME
[+] Verifying TIME (1/1) FINISHED
 => verify a TIME`},
		{"narrow", 30, true, func(s *Screen, _ func(int)) {
			task := s.Start("Loading", "load a-name-that-is-longer-than-the-line", "")
			task.Transfer(humanize.Transfer{Done: 3e6, Total: 3e6})
			task.End(nil)
		}, `
[+] Loading TIME (1/1) FINISHE
 => load a-name-that-is TIME`},
		{"narrower than a line", 12, true, func(s *Screen, _ func(int)) {
			s.Start("Loading", "load x", "").End(nil)
		}, "\n[+] Loading"},
		{"characters cut in the middle", 32, true, func(s *Screen, _ func(int)) {
			s.Start("Loading", "load x"+strings.Repeat("é", 30), "").End(nil)
		}, `
[+] Loading TIME (1/1) FINISHED
 => load xééééééé? TIME`},
		{"no UTF-8", 60, false, func(s *Screen, _ func(int)) {
			s.Start("Loading", "load größe", "").End(nil)
			fmt.Fprintln(s, "größe…")
		}, `
[+] Loading TIME (1/1) FINISHED
 => load gr??e TIME
gr??e?`},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := shownBy(t, test.columns, test.isUnicode, test.show)
			if got := e.String(); got != strings.TrimPrefix(test.want, "\n") {
				t.Errorf("got:\n%s\nwant:%s", got, test.want)
			}
			if e.longest > test.columns {
				t.Errorf("a line has %d characters, the terminal has %d columns", e.longest, test.columns)
			}
		})
	}
}

// Lines fit into a terminal that becomes narrower.
func TestScreenResize(t *testing.T) {
	e := shownBy(t, 80, true, func(s *Screen, resize func(int)) {
		task := s.Start("Creating the snapshot", "snapshot "+strings.Repeat("x", 100), "")
		task.State("pending")
		resize(40)
		task.State("active")
		task.End(nil)
	})
	lines := strings.Split(e.String(), "\n")
	for _, line := range lines[len(lines)-3:] {
		if len(line) > 40 {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
}

// A build and tasks share the display; the build's steps are shown until it ends.
func TestScreenShow(t *testing.T) {
	e := shownBy(t, 60, true, func(s *Screen, _ func(int)) {
		status := make(chan *client.SolveStatus)
		ended := make(chan error)
		go func() { ended <- s.Show("Building", status) }()
		now := time.Now()
		step := client.Vertex{Digest: "sha256:1", Name: "[1/1] RUN make", Started: &now}
		status <- &client.SolveStatus{Vertexes: []*client.Vertex{&step}}
		completed := step
		completed.Completed = &now
		status <- &client.SolveStatus{Vertexes: []*client.Vertex{&completed}}
		close(status)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	const want = "[+] Building TIME (1/1) FINISHED\n => [1/1] RUN make TIME"
	if e.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", e, want)
	}
}

// Without a terminal nothing is shown.
func TestNoScreen(t *testing.T) {
	var s *Screen
	task := s.Start("Pushing", "push x", "")
	task.Transfer(humanize.Transfer{Done: 1, Total: 1})
	task.State("half")
	task.End(nil)
}

// Many tasks and messages at the same time leave a whole screen, and nothing blocks.
func TestScreenConcurrency(t *testing.T) {
	const tasks = 8
	e := shownBy(t, 60, true, func(s *Screen, _ func(int)) {
		var group sync.WaitGroup
		for i := range tasks {
			group.Go(func() {
				task := s.Start("Pushing", fmt.Sprintf("push %d", i), "")
				for j := range 20 {
					fmt.Fprintf(s, "message %d of %d\n", j, i)
					task.Transfer(humanize.Transfer{Done: int64(j), Total: 19})
				}
				task.End(nil)
			})
		}
		group.Wait()
	})
	text := e.String()
	for i := range tasks {
		if strings.Count(text, fmt.Sprintf(" => push %d TIME", i)) != 1 ||
			strings.Count(text, fmt.Sprintf(" of %d\n", i))+strings.Count(text+"\n", fmt.Sprintf("message 19 of %d\n", i)) < 20 {
			t.Errorf("task %d is not shown once, with its messages:\n%s", i, text)
		}
	}
}

func TestUseUnicode(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"LANG": "en_US.UTF-8"}, true},
		{map[string]string{"LANG": "C.utf8"}, true},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "C"}, false},
		{map[string]string{"LANG": "C", "LC_CTYPE": "UTF-8"}, true},
		{map[string]string{"LC_ALL": "de_DE.ISO-8859-1"}, false},
	} {
		if got := UseUnicode(func(name string) string { return test.env[name] }); got != test.want {
			t.Errorf("%v: %t", test.env, got)
		}
	}
}

func TestUseColor(t *testing.T) {
	for _, test := range []struct {
		name       string
		env        map[string]string
		isTerminal bool
		want       bool
	}{
		{"terminal", map[string]string{"TERM": "xterm"}, true, true},
		{"no terminal", map[string]string{"TERM": "xterm"}, false, false},
		{"terminal without colors", map[string]string{"TERM": "dumb"}, true, false},
		{"NO_COLOR", map[string]string{"NO_COLOR": "1"}, true, false},
		{"NO_COLOR with any value", map[string]string{"NO_COLOR": "0"}, true, false},
		{"empty NO_COLOR", map[string]string{"NO_COLOR": ""}, true, true},
		{"NO_COLOR before CLICOLOR_FORCE", map[string]string{"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, true, false},
		{"CLICOLOR_FORCE", map[string]string{"CLICOLOR_FORCE": "1"}, false, true},
		{"CLICOLOR_FORCE=0", map[string]string{"CLICOLOR_FORCE": "0"}, false, false},
		{"CLICOLOR=0", map[string]string{"CLICOLOR": "0"}, true, false},
	} {
		if got := UseColor(func(name string) string { return test.env[name] }, test.isTerminal); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
	labels := Label("error", true) + Label("notice", true) + Label("warning", false)
	if labels != "\x1b[31merror:\x1b[0mnotice:warning:" {
		t.Errorf("labels %q", labels)
	}
}
