package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// This file contains the shell scripts that run in sandboxes. They need a POSIX shell, and cat, env, id, mkdir, rm,
// sleep and wc of coreutils or BusyBox.
//
// A process has a directory with the files out and err (its output), exit (its exit code), pid, and failed (why it was
// not started). Its script starts the process in the foreground, because a shell lets background processes ignore
// SIGINT. Sent again, for example after a lost connection, the script only waits for the end of the process.

// Reasons why a process was not started.
const (
	failedUser        = "user"         // another user than the sandbox's, which is not root
	failedUnknownUser = "unknown-user" // not in /etc/passwd
	failedSetpriv     = "setpriv"      // not in the image
	failedDir         = "dir"          // working directory does not exist
	failedMissing     = "127"          // program does not exist
	failedMode        = "126"          // program is not executable
)

// Time limits of requests to a sandbox.
const (
	maxRequest   = 25 * time.Second // then the script is sent again: proxies end long requests
	maxInSandbox = 24 * time.Hour   // of a process, whose test ends earlier
)

// errStillRunning means that a script did not end within maxRequest.
var errStillRunning = errors.New("the script is still running")

// processReport is what a script reports.
type processReport struct {
	failure string // one of the constants above; "": started
	running bool
	exit    int
	sizes   [2]int64 // of out and err
	output  string   // the rest of the report: out and err, if they are short
}

// run runs a script in the sandbox and returns its report.
func (i *sandboxInstance) run(ctx context.Context, script string) (processReport, error) {
	limited, cancel := context.WithTimeoutCause(ctx, maxRequest, errStillRunning)
	defer cancel()
	result, err := i.execute(limited, script)
	if err != nil {
		return processReport{}, err
	}
	return parseReport(i.token, result.Output)
}

func (i *sandboxInstance) execute(ctx context.Context, script string) (daytona.CommandResult, error) {
	return i.target.client.Execute(ctx, i.box, daytona.Command{
		// The toolbox pipes the line into zsh, bash or sh.
		Line: "exec /bin/sh -c " + shellQuote(script) + " </dev/null", Timeout: maxInSandbox, Idempotent: true,
	})
}

// parseReport parses the output of a script: TOKEN failed REASON, or TOKEN EXIT SIZE SIZE and the output. EXIT is
// running while the process runs. A shell may print other text first.
func parseReport(token, output string) (r processReport, err error) {
	unexpected := fmt.Errorf("unexpected output of the shell in the sandbox: %q", truncate(output, 200))
	_, report, ok := strings.Cut(output, token+" ")
	switch {
	case output == "":
		return r, errors.New("the shell that runs it was killed (the command may have sent a signal to all processes)")
	case !ok:
		return r, unexpected
	}
	line, rest, _ := strings.Cut(report, "\n")
	fields := strings.Fields(line)
	if len(fields) == 2 && fields[0] == "failed" {
		r.failure = fields[1]
		return r, nil
	}
	if len(fields) != 3 {
		return r, unexpected
	}
	r.output = rest
	if r.running = fields[0] == "running"; !r.running {
		r.exit, err = strconv.Atoi(fields[0])
	}
	for n := range r.sizes {
		var sizeErr error
		r.sizes[n], sizeErr = strconv.ParseInt(fields[n+1], 10, 64)
		err = cmp.Or(err, sizeErr)
	}
	if err != nil {
		return processReport{}, unexpected
	}
	return r, nil
}

// shellQuote quotes a word for a POSIX shell.
func shellQuote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func shellQuoteAll(words []string) string {
	var quoted []string
	for _, word := range words {
		quoted = append(quoted, shellQuote(word))
	}
	return strings.Join(quoted, " ")
}

// prepare creates the directory of the scripts' files, preferably in memory.
func (i *sandboxInstance) prepare(ctx context.Context) error {
	result, err := i.execute(ctx, `for d in /dev/shm /tmp /var/tmp "$HOME"; do
	mkdir -p -m 711 "$d/.`+i.token+`" 2>/dev/null && echo "`+i.token+` $d/.`+i.token+`" && exit
done`)
	if err != nil {
		return err
	}
	_, report, _ := strings.Cut(result.Output, i.token+" ")
	i.dir, _, _ = strings.Cut(report, "\n")
	if i.dir == "" {
		return fmt.Errorf("prepare %s: no writable directory for temporary files (the image needs /tmp): %s", i.name(),
			truncate(result.Output, 200))
	}
	return nil
}

// header defines what the other scripts use. $d is the directory of a process.
func (i *sandboxInstance) header(files string) string {
	return "token=" + i.token + " d=" + shellQuote(files) + `
nap() { sleep 0.05 2>/dev/null || sleep 1; }
await() {
	n=0
	until [ -s "$d/$1" ] || [ -s "$d/exit" ] || [ -s "$d/failed" ] || [ $n -ge 300 ]; do nap; n=$((n+1)); done
}
fail() { echo "$1" >"$d/failed"; exit 1; }
found() (
	set -f
	case $1 in
	*/*) [ -e "$1" ] || exit 127; [ -f "$1" ] && [ -x "$1" ] || exit 126 ;;
	*) IFS=:; for p in $PATH; do [ -f "$p/$1" ] && [ -x "$p/$1" ] && exit 0; done; exit 127 ;;
	esac
)
report() {
	if [ -s "$d/failed" ]; then read -r reason <"$d/failed"; echo "$token failed $reason"; return; fi
	code=running
	if [ -s "$d/exit" ]; then read -r code <"$d/exit"; fi
	set -- $(wc -c <"$d/out") $(wc -c <"$d/err")
	echo "$token $code $1 $2"
	if [ $code != running ] && [ $(($1 + $2)) -le 65536 ]; then cat "$d/out" "$d/err"; fi
}
`
}

// processScript returns the script that runs a process and reports its end.
func (i *sandboxInstance) processScript(files string, p Process, makeDir bool) string {
	previous := fmt.Sprintf("%s/%d", i.dir, i.number-1)
	return i.header(files) + "rm -rf " + shellQuote(previous) + `
if mkdir "$d" 2>/dev/null; then
` + i.start(p, makeDir, "") + `
else
	await exit
fi
report`
}

// start returns the part of a script that runs a process in the foreground. launcher is a program that runs its
// arguments as a program, or "".
func (i *sandboxInstance) start(p Process, makeDir bool, launcher string) string {
	dir := i.workDir(p)
	change := "cd " + shellQuote(dir) + " 2>/dev/null || fail " + failedDir
	if makeDir {
		change = "mkdir -p " + shellQuote(dir) + " 2>/dev/null; " + change
	}
	path := ""
	for _, variable := range p.Env {
		if strings.HasPrefix(variable, "PATH=") {
			path = "PATH=" + shellQuote(variable[len("PATH="):]) + "; "
		}
	}
	return `	(
		exec </dev/null >"$d/out" 2>"$d/err"
		` + change + `
		privileges=
` + i.userPart(p.User) + i.privilegesPart() + `
		if [ "$privileges" ]; then found setpriv || fail ` + failedSetpriv + `; privileges="setpriv $privileges"; fi
		(` + path + `found ` + shellQuote(p.Args[0]) + `); found=$?
		if [ $found != 0 ]; then fail $found; fi
		exec ` + launcher + ` $privileges env ` + shellQuoteAll(p.Env) + ` ` + shellQuoteAll(p.Args) + `
	)
	code=$?
	echo $code >"$d/exit"`
}

// userPart returns the part of a script that adds options of setpriv for another user than the sandbox's to
// $privileges, and sets HOME. It follows Docker: a user without an entry in /etc/passwd has the
// home directory / and the group 0, and no other groups; a group excludes the user's other groups.
func (i *sandboxInstance) userPart(user string) string {
	if user = cmp.Or(user, i.spec.User); user == "" || user == i.target.config.User {
		return ""
	}
	name, group, hasGroup := strings.Cut(user, ":")
	groups := `gid=$(id -g "$user" 2>/dev/null) && groups=--init-groups || gid=0 groups=--clear-groups`
	if hasGroup {
		groups = "gid=" + shellQuote(group) + ` groups=--clear-groups
		case $gid in *[!0-9]*) gid=$(while IFS=: read -r n _ g _; do [ "$n" = "$gid" ] && echo "$g"; done </etc/group);; esac`
	}
	return `		user=` + shellQuote(name) + `
		case $user in *[!0-9]*) uid=$(id -u "$user" 2>/dev/null) || fail ` + failedUnknownUser + ` ;; *) uid=$user ;; esac
		` + groups + `
		[ "$gid" ] || fail ` + failedUnknownUser + `
		if [ "$uid" != "$(id -u)" ] || [ "$gid" != "$(id -g)" ]; then
			[ "$(id -u)" = 0 ] || fail ` + failedUser + `
			privileges="--reuid=$uid --regid=$gid $groups"
			export HOME=/
			while IFS=: read -r _ _ u _ _ h _; do if [ "$u" = "$uid" ]; then HOME=$h; break; fi; done </etc/passwd
		fi
`
}

// privilegesPart returns the part of a script that adds options of setpriv for privileges: none to $privileges. Only
// root can and must drop capabilities.
func (i *sandboxInstance) privilegesPart() string {
	if i.spec.Privileges != "none" {
		return ""
	}
	return `		if [ "$(id -u)" = 0 ]; then privileges="$privileges --bounding-set=-all --inh-caps=-all"; fi
		privileges="--nnp $privileges"`
}
