//go:build !linux

package builders

import (
	"errors"
	"syscall"
)

// BuildKit's daemon runs on Linux only: these exist so that packages which import this one compile elsewhere.

func processAttributes() *syscall.SysProcAttr { return nil }

func unmount(string) error { return errors.ErrUnsupported }
