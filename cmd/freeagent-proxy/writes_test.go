package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// raced lets creates of invoices meet at FreeAgent, which then gives them the same reference.
var raced = simulator.Config{
	Enforcement:    simulator.EnforceOff,
	NumberingDelay: simulator.Duration(2 * time.Millisecond), DuplicateReferences: true, UnknownReferences: true,
}

const allAtOnce = "writes: {one_at_a_time: []}\n"

// 200 invoices are created at once, through one process and through three: no reference comes twice, unless the setting is off.
func TestNumberingRace(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		for _, settings := range []string{"", allAtOnce} {
			server := redistest.Start(t)
			f := newFleet(t, size, raced, "redis://"+server.Addr(), noLimits+settings)
			f.invoice(200)
			stats := f.sim.Stats().Writes
			if stats.Acted != 200 || stats.Duplicates != 0 {
				t.Errorf("%d replicas, %q: %d invoices, %d of them twice; want 200 and none", size, settings, stats.Acted, stats.Duplicates)
			}
			if met := stats.DuplicateReferences > 0; met != (settings == allAtOnce) {
				t.Errorf("%d replicas, %q: %d duplicate references", size, settings, stats.DuplicateReferences)
			}
		}
	}
}

// With a folder as store, too.
func TestNumberingRaceWithoutRedis(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, raced, noLimits)
	w.authorise(w.sim.Authorize("owner"))
	f := &fleet{world: w, client: w.client(false)}
	f.join()
	f.invoice(200)
	if stats := w.sim.Stats().Writes; stats.Acted != 200 || stats.DuplicateReferences != 0 {
		t.Errorf("%d invoices, %d duplicate references; want 200 and none", stats.Acted, stats.DuplicateReferences)
	}
}

// A replica is killed in the middle of a create: the others go on within seconds, and nothing is written twice.
func TestReplicaDiesInItsTurn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := newFleet(t, 2, raced, "redis://"+server.Addr(), noLimits)
	if _, err := f.sim.Fault(simulator.Fault{
		Kind: simulator.FaultStall, After: true, Match: simulator.Match{Method: http.MethodPost, PathPrefix: "/v2/invoices", Nth: 1},
	}); err != nil {
		t.Fatal(err)
	}
	go f.create(f.members[0], 0)
	eventually(t, "the first create at FreeAgent", func() bool { return f.sim.Stats().Writes.Acted == 1 })
	second := make(chan int, 1)
	go func() {
		status, _ := f.create(f.members[1], 1)
		second <- status
	}()
	f.members[0].leave()
	began := time.Now()
	if status := <-second; status != http.StatusCreated {
		t.Errorf("the other replica's create: %d", status)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
	if stats := f.sim.Stats().Writes; stats.Acted != 2 || stats.DuplicateReferences != 0 {
		t.Errorf("%d invoices, %d duplicate references; want 2 and none", stats.Acted, stats.DuplicateReferences)
	}
}

// invoice creates so many invoices at once, through all replicas.
func (f *fleet) invoice(n int) {
	f.t.Helper()
	var creating sync.WaitGroup
	for i := range n {
		creating.Go(func() {
			if status, body := f.create(f.members[i%len(f.members)], i); status != http.StatusCreated {
				f.t.Errorf("invoice %d: %d %s", i, status, body)
			}
		})
	}
	creating.Wait()
}

func (f *fleet) create(r *replica, n int) (status int, body string) {
	invoice := fmt.Sprintf(`{"invoice":{"contact":"%s/v2/contacts/1","dated_on":"2026-01-01","payment_terms_in_days":%d}}`, r.url, n)
	resp, err := f.client.Post(r.url+"/v2/invoices", "application/json", strings.NewReader(invoice))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// What shutting down waits for is named in the log, and so is what it has to leave: here an upload that goes on and on.
func TestShutdownNamesWrites(t *testing.T) {
	t.Parallel()
	over, arrived := make(chan struct{}), make(chan struct{}, 10)
	slow := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		for buffer := make([]byte, 64<<10); ; {
			if _, err := io.ReadFull(r.Body, buffer); err != nil {
				return
			}
			select {
			case <-over:
				return
			case <-time.After(15 * time.Millisecond): // some 10 s in all; what buffers take between is no time without progress
			}
		}
	}))
	slow.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew { // a large buffer takes much at once, and then nothing for long
			_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
	}
	slow.Start()
	defer slow.Close()
	defer close(over)
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, "listen: 127.0.0.1:0\nstore: {file: store}\n"+noLimits)
	w.authorise(w.sim.Authorize("owner"))
	w.configure(slow.URL+", timeout: 2s", "listen: 127.0.0.1:0\nstore: {file: store}\n"+noLimits)
	p, url := w.serve()
	req, err := http.NewRequest(http.MethodPost, url+"/v2/attachments?not=logged", strings.NewReader(strings.Repeat("x", 48<<20)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "endless")
	answered := make(chan error, 1)
	go func() {
		resp, err := w.client(false).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	select {
	case <-arrived:
	case <-time.After(patience):
		t.Fatal("the write does not reach FreeAgent")
	}
	code, err := p.stop(syscall.SIGTERM)
	if err != nil || code != exitFailed {
		t.Errorf("exit code %d, %v; want %d", code, err, exitFailed)
	}
	<-answered
	for _, line := range []string{
		`"level":"info".*"msg":"a write is at FreeAgent; its answer is waited for"`,
		`"level":"error".*"msg":"a write is left without its answer; FreeAgent may have acted on it`,
	} {
		named := regexp.MustCompile(`(?m)^.*` + line + `.*"request_id":"endless","client":"anonymous","account":"acme","method":"POST","path":"/v2/attachments","sent":.*$`)
		if log := p.stderr.String(); !named.MatchString(log) {
			t.Errorf("the log has no %s: %s", named, log)
		}
	}
}
