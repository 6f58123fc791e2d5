//go:build !linux

package builders

import (
	"errors"
	"syscall"
)

// buildkitd runs on Linux only. These functions let packages that import this one compile on other systems.

func processAttributes() *syscall.SysProcAttr { return nil }

func unmount(string) error { return errors.ErrUnsupported }
