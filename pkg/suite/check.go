package suite

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
)

// checker checks the rules of a suite that the schema cannot express.
type checker struct {
	*parsedFile
	dir string // of the suite's file
}

// at adds a problem with the value at l.
func (c *checker) at(l location, format string, args ...any) {
	c.addf(c.line(l), l.String()+": "+format, args...)
}

func (c *checker) test(t *Test, l location) {
	if t.Run == nil {
		for _, key := range []struct {
			name string
			set  bool
		}{
			{"setup", t.Setup != nil}, {"session", t.Session != ""}, {"exit", t.Exit != 0}, {"stdout", t.Stdout != nil},
			{"stderr", t.Stderr != nil},
		} {
			if key.set {
				c.at(l.child(key.name), "requires a command; add run or remove %s", key.name)
			}
		}
	}
	if _, node := c.find(l); hasKey(node, "mounts") { // mounts of the defaults are checked separately, once
		c.settings(&t.Settings, l)
	}
	c.command(&t.CommandCheck, l)
	for i := range t.Files {
		c.file(&t.Files[i], l.child("files", strconv.Itoa(i)))
	}
	if t.Service != nil {
		c.service(t, l)
	}
}

func (c *checker) settings(s *Settings, l location) {
	for i, m := range s.Mounts {
		here := l.child("mounts", strconv.Itoa(i))
		if path.Clean(m.Target) == "/" {
			c.at(here, "target must not be /; use for example /fixtures")
			continue
		}
		c.localFile(m.Source, here.child("source"))
	}
}

// localFile checks that name is a file or directory in the suite's directory. A suite may come from an untrusted pull
// request, so its containers and reports must not expose other files of this machine.
func (c *checker) localFile(name string, l location) {
	if filepath.IsAbs(name) {
		c.at(l, "%q must be relative to the suite's file", name)
		return
	}
	root, err := os.OpenRoot(c.dir)
	if err == nil {
		_, err = root.Stat(name)
		_ = root.Close()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.at(l, "%q not found; paths are relative to the suite's file", name)
	case err != nil:
		c.at(l, "%q cannot be used (%v); it must be in the suite's directory and not link out of it", name, err)
	}
}

func (c *checker) command(check *CommandCheck, l location) {
	c.text(check.Stdout, l.child("stdout"))
	c.text(check.Stderr, l.child("stderr"))
}

func (c *checker) text(check *TextCheck, l location) {
	if check != nil && check.Golden != "" {
		c.localFile(check.Golden, l.child("golden"))
	}
}

func (c *checker) file(f *FileCheck, l location) {
	hasCheck := f.Type != "" || f.Mode != "" || f.Owner != "" || f.ExecutableBy != "" || f.Target != nil ||
		f.Size != nil || f.Count != nil || f.Content != nil
	if f.Absent && hasCheck {
		c.addf(f.Line, "%s: an absent file cannot have other checks; select files with having and except", l)
	}
	c.text(f.Content, l.child("content"))
}

func (c *checker) service(t *Test, test location) {
	s, l := t.Service, test.child("service")
	if s.Ready == nil && len(s.Steps) == 0 {
		c.at(l, "nothing is checked; add ready or steps")
	}
	if r := s.Ready; r != nil {
		listens := r.Healthy || r.Port != 0 || r.HTTP != nil
		switch {
		case !listens && r.Log == nil && r.Exit == nil:
			c.addf(r.Line, "%s: no condition is set; set healthy: true, port, http, log or exit", l.child("ready"))
		case listens && r.Exit != nil:
			c.at(l.child("ready", "exit"), "a service that has exited is neither healthy nor reachable; remove healthy, port "+
				"and http, or exit")
		}
		c.http(r.HTTP, l.child("ready", "http"))
	}
	stopped := 0 // line of the step that stops the service
	for i := range s.Steps {
		step, here := &s.Steps[i], l.child("steps", strconv.Itoa(i))
		switch exits := s.Ready != nil && s.Ready.Exit != nil; {
		case stopped > 0 && step.Logs == nil:
			c.addf(step.Line, "%s: service is already stopped on line %d; only logs can follow", here, stopped)
		case exits && step.Logs == nil && !step.Restart:
			c.addf(step.Line, "%s: service has exited when it is ready; only logs and restart can follow ready.exit", here)
		}
		if step.Stop != nil {
			stopped = step.Line
		}
		c.step(step, here)
	}
	if t.Network == "none" && len(t.ports()) > 0 {
		c.at(test.child("network"), "ports are unreachable without a network; use bridge or remove network")
	}
}

func (c *checker) step(s *Step, l location) {
	hasCommandKeys := s.Exit != 0 || s.Stdout != nil || s.Stderr != nil || s.User != "" || s.Env != nil || s.Workdir != ""
	if s.Run == nil && hasCommandKeys {
		c.addf(s.Line, "%s: exit, stdout, stderr, user, env and workdir require run", l)
	}
	if s.Within != 0 && (s.Restart || s.Stop != nil) {
		c.at(l.child("within"), "applies to run, http and logs only; set ready.within for a restart, or within of stop")
	}
	c.http(s.HTTP, l.child("http"))
	c.command(&s.CommandCheck, l)
	if s.Logs != nil {
		c.text(s.Logs.Stdout, l.child("logs", "stdout"))
		c.text(s.Logs.Stderr, l.child("logs", "stderr"))
	}
}

func (c *checker) http(check *HTTPCheck, l location) {
	if check != nil {
		c.text(check.Body, l.child("body"))
	}
}
