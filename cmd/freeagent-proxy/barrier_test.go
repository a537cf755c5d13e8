package main

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
)

// barrier stands before a world's FreeAgent. What it answers to requests for a path is held back until it is opened: so
// long as a test wants, and not so long as it thinks that it needs.
type barrier struct {
	sim  http.Handler
	path string

	mu   sync.Mutex
	open chan struct{} // closed when it is; made anew when it is not any more
}

// bar puts one before the FreeAgent of proxies that are started from now on.
func (w *world) bar(path string) *barrier {
	w.t.Helper()
	b := &barrier{sim: w.sim, path: path, open: make(chan struct{})}
	server := httptest.NewServer(b)
	w.t.Cleanup(server.Close)
	w.t.Cleanup(b.let)
	config := replaced(w.t, readText(w.t, filepath.Join(w.folder, "config.yaml")), map[string]string{w.simURL: server.URL})
	w.write("config.yaml", []byte(config))
	w.simURL = server.URL
	return b
}

// let lets the answers go, those that are still to come, too.
func (b *barrier) let() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.open:
	default:
		close(b.open)
	}
}

// shut holds back the answers from now on.
func (b *barrier) shut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = make(chan struct{})
}

func (b *barrier) opened() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *barrier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, b.path) {
		b.sim.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	b.sim.ServeHTTP(answer, r)
	select {
	case <-b.opened():
	case <-r.Context().Done(): // nobody wants it any more
		return
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // who asked may have gone
}
