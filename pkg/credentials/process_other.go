//go:build !linux

package credentials

// ProtectProcess does nothing: macOS shows the environment of a process to all processes of its user.
func ProtectProcess() error { return nil }
