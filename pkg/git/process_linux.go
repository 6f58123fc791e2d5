package git

import "syscall"

// processAttributes returns attributes that start git in a process group of its own, because it starts processes such
// as git-remote-https, and that kill git when this process is killed.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
