package dockerengine

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// writeUnpacked adds the content of a layer that is compressed with zstd to an archive. The content is written to a
// temporary file first, because its size precedes it in the archive. The file has no name, so that nothing remains of
// it even if this process is killed.
func (c *copier) writeUnpacked(ctx context.Context, out *tar.Writer, f file) error {
	unpacked, err := os.CreateTemp(c.tempDir, "layer-")
	if err != nil {
		return fmt.Errorf("create a temporary file: %w", err)
	}
	defer unpacked.Close()
	if err := os.Remove(unpacked.Name()); err != nil {
		return err
	}
	size, err := c.unpack(ctx, unpacked, f)
	if err != nil {
		return err
	}
	if _, err := unpacked.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return c.write(ctx, out, file{name: f.name, size: size, hash: f.diffID, unpacked: unpacked})
}

// unpack writes the content of a layer that is compressed with zstd to a file and returns its size.
func (c *copier) unpack(ctx context.Context, to *os.File, f file) (int64, error) {
	reader, writer := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		err := c.copy(ctx, writer, f)
		writer.CloseWithError(err)
		copied <- err
	}()
	size, err := decompress(to, reader)
	if err != nil {
		err = fmt.Errorf("unpack layer %s: %w", f.hash, err)
	}
	reader.CloseWithError(err) // interrupts a pending write, which then returns err
	return size, cmp.Or(<-copied, err)
}

func decompress(to io.Writer, from io.Reader) (int64, error) {
	decoder, err := zstd.NewReader(from)
	if err != nil {
		return 0, err
	}
	defer decoder.Close()
	return io.Copy(to, decoder)
}
