package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/proxy"
)

// refusedRequest is a request of a client's that we refused.
func refusedRequest(client, reason string) *proxy.Served {
	return &proxy.Served{Began: time.Now(), RequestID: "r", Client: client, Account: account, Method: "GET", Path: "/v2/company", Status: 429, Reason: reason}
}

func TestIncidentsAreWhatAnOperatorShouldKnow(t *testing.T) {
	t.Parallel()
	const lookFirst = "; FreeAgent may have acted on this write, so look before sending it again"
	for name, c := range map[string]struct {
		served proxy.Served
		want   string
	}{
		"fine":             {proxy.Served{Status: 200, Upstream: true}, ""},
		"created":          {proxy.Served{Status: 201, Upstream: true}, ""},
		"not found there":  {proxy.Served{Status: 404, Upstream: true}, ""},
		"invalid":          {proxy.Served{Status: 422, Upstream: true}, ""},
		"invalid again":    {proxy.Served{Status: 422, Tally: proxy.Tally{Kept: true}, Reason: "kept answer given again: idempotency key"}, ""},
		"client left":      {proxy.Served{Status: 499, Reason: "connection_terminated: client left while waiting"}, ""},
		"our own question": {proxy.Served{Status: 429, Client: proxy.Self, Reason: "http_request_denied: budget"}, ""},
		"cross-site page":  {proxy.Served{Status: 403, Reason: "http_request_denied: cross-site browser request"}, "http_request_denied: cross-site browser request"},
		"not a path":       {proxy.Served{Status: 404, Reason: "http_request_denied: path is not FreeAgent's API"}, "http_request_denied: path is not FreeAgent's API"},
		"over the limit":   {proxy.Served{Status: 429, Upstream: true}, "FreeAgent answered 429 Too Many Requests"},
		"gateway, reading": {proxy.Served{Status: 503, Upstream: true}, "FreeAgent answered 503 Service Unavailable"},
		"gateway, writing": {proxy.Served{Status: 502, Upstream: true, Tally: proxy.Tally{Doubtful: true}}, "FreeAgent answered 502 Bad Gateway" + lookFirst},
		"write, no answer": {proxy.Served{Status: 504, Tally: proxy.Tally{Doubtful: true}, Reason: "http_response_timeout: upstream: no progress in time"},
			"http_response_timeout: upstream: no progress in time" + lookFirst},
		"broken off": {proxy.Served{Status: 200, Upstream: true, Tally: proxy.Tally{Cut: true}, Reason: "upstream broke off its answer"}, "upstream broke off its answer"},
	} {
		var n incidents
		n.served(&c.served)
		got := ""
		for _, i := range n.list() {
			got += i.Reason
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// Whatever one program does in however many ways, what happened to others is still there.
func TestIncidentsSurviveFloods(t *testing.T) {
	t.Parallel()
	var n incidents
	n.served(refusedRequest("billing", "destination_unavailable: no grant stored"))
	log := n.keep(zap.NewNop())
	log.Error("the newest tokens could not be stored", zap.String("account", account), zap.Error(errors.New("disk full")))
	began := time.Now()
	for i := range 20_000 { // of one kind: what is quoted and what has digits makes no other
		n.served(refusedRequest("flood", fmt.Sprintf(`http_request_denied: budget "api/acme/subdomain/c%d" is used up for another %d.%ds`, i, i/100, i%100)))
	}
	perRequest := time.Since(began) / 20_000
	for i := range 500 { // of as many kinds
		n.served(refusedRequest("odd", "http_request_error: "+strings.Repeat("x", i)))
	}
	list := n.list()
	if len(list) != maxIncidents {
		t.Errorf("%d entries, want %d", len(list), maxIncidents)
	}
	seen := map[string]admin.Incident{}
	for _, i := range list {
		seen[i.Client] = i
	}
	if i := seen["billing"]; i.Count != 1 || i.Status != 429 || i.Path != "/v2/company" {
		t.Errorf("the first refusal is %+v", i)
	}
	if i := seen["flood"]; i.Count != 20_000 || !strings.Contains(i.Reason, "c19999") || time.Since(i.At) > time.Minute {
		t.Errorf("the flood is %+v, want 20000, with the newest reason and time", i)
	}
	if i := seen[""]; i.Reason != "the newest tokens could not be stored: disk full" || i.Account != account || i.Status != 0 {
		t.Errorf("the log's error is %+v", i)
	}
	if got, want := list[0].Reason, "http_request_error: "+strings.Repeat("x", maxReason-20)+"…"; got != want {
		t.Errorf("the newest is %q, want it first, and shortened: %q", got, want)
	}
	t.Logf("%s for each of a flood", perRequest)
}

// The log's warnings come in with what it says beside them, but for fields that are not known; and what fails in ourselves, of
// which the log tells before the request does, is one entry.
func TestIncidentsOfTheLog(t *testing.T) {
	t.Parallel()
	var n incidents
	whole, flush := newLogger(io.Discard, LogConfig{Level: "error", Format: "json"})
	defer flush()
	log := n.keep(whole.Logger).With(zap.String("account", account))
	log.Info("not this")
	log.Warn("no new token for now", zap.Error(errors.New("one\ntwo")), zap.String("token", mark), zap.Any("stack", mark), zap.Time("next_try", time.Now()))
	log.Warn("FreeAgent answered 429", zap.String("budget", "api/acme"), zap.Duration("pause", time.Second))
	log.Error("request failed in the proxy itself", zap.String("request_id", "r1"), zap.Error(errors.New("bug")))
	n.served(&proxy.Served{RequestID: "r1", Client: "a", Account: account, Status: 500, Reason: "proxy_internal_error: bug"})
	var got []string
	for _, i := range n.list() {
		got = append(got, fmt.Sprint(i.Account, " ", i.Status, " ", i.Count, " ", i.Reason))
	}
	want := []string{
		"acme 500 1 proxy_internal_error: bug",
		"acme 0 1 FreeAgent answered 429: api/acme",
		"acme 0 1 no new token for now: one; two",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A request that went well costs nothing to speak of, and no memory.
func TestIncidentsOfSuccessAreFree(t *testing.T) {
	var n incidents
	fine := &proxy.Served{Status: 200, Upstream: true, Client: "a"}
	if allocated := testing.AllocsPerRun(100, func() { n.served(fine) }); allocated > 0 {
		t.Errorf("%v allocations", allocated)
	}
}
