package dockerengine

import (
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/humanize"
)

// meter adds up the progress of the layers of a load. Its methods are safe for concurrent use; a nil meter ignores
// them.
type meter struct {
	report  func(humanize.Transfer) // never called concurrently
	started time.Time

	mu    sync.Mutex
	total int64             // bytes of sizes
	sizes map[v1.Hash]int64 // of the layers to send
	sent  map[v1.Hash]int64 // bytes sent so far
}

// newMeter returns a meter of a load of these layers. It is nil if report is nil.
func newMeter(layers []file, report func(humanize.Transfer)) *meter {
	if report == nil {
		return nil
	}
	m := &meter{report: report, started: time.Now(), sizes: map[v1.Hash]int64{}, sent: map[v1.Hash]int64{}}
	for _, f := range layers {
		m.expect(f)
	}
	return m
}

func (m *meter) expect(f file) {
	if _, ok := m.sizes[f.hash]; !ok {
		m.sizes[f.hash] = f.size
		m.total += f.size
	}
}

// update reports that sent bytes of a layer were sent.
func (m *meter) update(layer file, sent int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expect(layer) // the engine can also request a layer that it was expected to have
	m.sent[layer.hash] = sent
	done, complete := int64(0), 0
	for hash, bytes := range m.sent {
		done += bytes
		if bytes == m.sizes[hash] {
			complete++
		}
	}
	m.report(humanize.Transfer{
		Layer: layer.hash.String(), Number: min(complete+1, len(m.sizes)), Layers: len(m.sizes),
		Done: done, Total: m.total, Elapsed: time.Since(m.started),
	})
}
