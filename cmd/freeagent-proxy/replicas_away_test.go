package main

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
)

// A token that ends while Redis is away cannot be renewed without its lock, unless nobody else is there.
func TestTokenEndsWithoutRedis(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	for replicas, want := range map[string]int{"auto": http.StatusServiceUnavailable, "1": http.StatusOK} {
		both.Go(func() {
			t.Run("replicas: "+replicas, func(t *testing.T) { endWithoutRedis(t, replicas, want) })
		})
	}
	both.Wait()
}

func endWithoutRedis(t *testing.T, replicas string, want int) {
	server := redistest.Start(t)
	f := newFleet(t, 1, simNoLimits, "redis://"+server.Addr(), noLimits+"  replicas: "+replicas+"\n")
	r := f.members[0]
	if status, body, err := f.get(r); status != http.StatusOK {
		t.Fatal(status, body, err)
	}
	time.Sleep(6 * time.Second) // a token is renewed when it is 5 s old
	server.Stop()
	f.sim.RevokeAccess("owner")
	req, err := http.NewRequest(http.MethodGet, r.url+"/v2/company", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Prefer", "wait=0")
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("status %d: %s; want %d", resp.StatusCode, body, want)
	}
	if want != http.StatusOK && (resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "no access token can be had now")) {
		t.Errorf("Retry-After %q, %s", resp.Header.Get("Retry-After"), body)
	}
	server.Cont()
	eventually(t, "served again", func() bool {
		status, _, err := f.get(r)
		return err == nil && status == http.StatusOK
	})
	if stats := f.sim.Stats().Tokens; stats.SpentTokens != 0 || stats.RefreshRequests != 2 {
		t.Errorf("%d refreshes, %d of spent tokens; want 2 and none", stats.RefreshRequests, stats.SpentTokens)
	}
}

// Started while Redis is away a proxy lives, is not ready, and becomes so by itself: from then on a request need not wait.
func TestStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Persistent())
	f := newFleet(t, 0, simNoLimits, "redis://"+server.Addr(), noLimits)
	server.Kill()
	p, url := f.serve()
	addresses, err := p.listening()
	if err != nil {
		t.Fatal(err)
	}
	admin := "http://" + addresses[len(addresses)-1]
	status := func(url string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Prefer", "wait=0")
		resp, err := f.client.Do(r)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := status(admin + "/healthz"); got != http.StatusOK {
		t.Errorf("/healthz: %d", got)
	}
	if got := status(admin + "/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d", got)
	}
	server.Restart()
	eventually(t, "ready", func() bool { return status(admin+"/readyz") == http.StatusOK })
	if got := status(url + "/v2/company"); got != http.StatusOK {
		t.Errorf("/v2/company: %d", got)
	}
}
