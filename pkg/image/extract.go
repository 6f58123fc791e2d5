package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/buildkit/client"
)

// extractOutputs replaces the outputs of type local unless the process has the rights of root.
func (r Request) extractOutputs() Request {
	if os.Geteuid() == 0 {
		return r
	}
	r.Outputs = slices.Clone(r.Outputs)
	for i, output := range r.Outputs {
		if output.Type == client.ExporterLocal {
			r.Outputs[i] = extractLocal(splitByPlatform(output, r.Platform))
		}
	}
	return r
}

// extractLocal returns an output of type local as an archive that this package extracts. BuildKit's client writes
// directories with their final mode first, so that a user without root's rights cannot add files to a read-only
// directory (tonistiigi/fsutil a72de9d, rootdiskwriter.go).
func extractLocal(output client.ExportEntry) client.ExportEntry {
	directory := output.OutputDir
	output.Type, output.OutputDir = client.ExporterTar, ""
	output.Output = func(map[string]string) (io.WriteCloser, error) { return newExtractor(directory) }
	return output
}

// extractor extracts the archive that is written to it.
type extractor struct {
	*io.PipeWriter
	done chan error
}

func newExtractor(directory string) (*extractor, error) {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	e := &extractor{writer, make(chan error, 1)}
	go func() {
		err := extractArchive(root, reader)
		if err == nil {
			_, err = io.Copy(io.Discard, reader) // the end of the last block
		}
		err = errors.Join(err, root.Close())
		reader.CloseWithError(err)
		e.done <- err
	}()
	return e, nil
}

// Close waits until everything is extracted.
func (e *extractor) Close() error {
	return errors.Join(e.PipeWriter.Close(), <-e.done)
}

// extractArchive writes the files of an archive below root, with their modes and times. Existing files are replaced.
func extractArchive(root *os.Root, r io.Reader) error {
	var directories []*tar.Header
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		header.Name = filepath.Clean(header.Name)
		if header.Typeflag == tar.TypeDir {
			directories = append(directories, header)
		}
		if err := extractFile(root, header, archive); err != nil {
			return err
		}
	}
	for _, header := range slices.Backward(directories) { // files below them have been added
		if err := setMetadata(root, header); err != nil {
			return err
		}
	}
	return nil
}

func extractFile(root *os.Root, header *tar.Header, content io.Reader) error {
	name := header.Name
	const writable = 0o700
	switch info, err := root.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.IsDir() && header.Typeflag == tar.TypeDir:
		return root.Chmod(name, info.Mode()|writable)
	default:
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return root.Mkdir(name, writable)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		return root.Link(header.Linkname, name)
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		return setMetadata(root, header)
	}
	return fmt.Errorf("write %s: only root can create devices and pipes (use type=tar)", name)
}

func setMetadata(root *os.Root, header *tar.Header) error {
	return errors.Join(
		root.Chtimes(header.Name, header.ModTime, header.ModTime),
		root.Chmod(header.Name, header.FileInfo().Mode()),
	)
}
