package proxy_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// pair is a token endpoint's answer: access token "next1", and so on.
func pair(n int64) string {
	return reply(200, fmt.Sprintf(`{"access_token":"next%d","token_type":"bearer","expires_in":3600,"refresh_token":"next-refresh%d"}`, n, n),
		"Content-Type: application/json")
}

// denied is FreeAgent's answer to a dead token.
var denied = reply(401, `{"errors":{"error":{"message":"Access token not recognised"}}}`, "Content-Type: application/json")

func isTokenCall(q *received) bool { return strings.HasPrefix(q.target, "/v2/token_endpoint") }

// A request whose 401 comes late reads a token that another one renewed meanwhile. If that
// one is dead by now too, the resource is not to blame: it is renewed again.
func TestRereadIsNoRenewal(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := make(chan struct{}, 1)
	var refreshes atomic.Int64
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		token := q.header.Get("Authorization")
		switch {
		case isTokenCall(q):
			return q.write(pair(refreshes.Add(1)))
		case q.target == "/v2/fast" && token == "Bearer next1":
			return q.write(reply(200, fine))
		case q.target == "/v2/slow" && token == "Bearer "+accessToken:
			slow <- struct{}{}
			q.wait(release)
			return q.write(denied)
		case token == "Bearer next2":
			return q.write(reply(200, fine))
		default:
			return q.write(denied)
		}
	})
	status := make(chan int)
	go func() { status <- r.get("/v2/slow").status }()
	<-slow
	equal(t, "fast", r.get("/v2/fast").status, 200)
	time.Sleep(5 * time.Second) // as old as a token must be
	close(release)              // and next1 is revoked
	equal(t, "slow", <-status, 200)
	equal(t, "the next one", r.get("/v2/slow").status, 200)
	equal(t, "refreshes", refreshes.Load(), 2)
}

// A request renews, then waits so long for its permit that the new token was revoked meanwhile.
func TestRevokedWhileTheReplayWaits(t *testing.T) {
	t.Parallel()
	var refreshes atomic.Int64
	few := []limiter.Window{{Requests: 2, Per: 12 * time.Second}}
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		switch {
		case isTokenCall(q):
			return q.write(pair(refreshes.Add(1)))
		case q.header.Get("Authorization") == "Bearer next2":
			return q.write(reply(200, fine))
		default:
			return q.write(denied) // next1 was good for less than the wait
		}
	}, api(few...))
	letGo := r.hold(proxy.Anonymous, few)
	c := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	r.oneWaits()                // with next1
	time.Sleep(5 * time.Second) // as old as a token must be
	letGo()
	equal(t, "status", c.answer("POST").status, 200)
	equal(t, "refreshes", refreshes.Load(), 2)
}

// FreeAgent may end the old access token as soon as it is asked for a new one. Who meets with that, although
// its one 401 was cured already, waits for the answer.
func TestRejectedWhileTheRefreshIsOnItsWay(t *testing.T) {
	t.Parallel()
	var refreshes atomic.Int64
	late, second := make(chan struct{}), make(chan struct{})
	sent := make(chan struct{}, 1)
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		token := q.header.Get("Authorization")
		switch {
		case isTokenCall(q):
			n := refreshes.Add(1)
			if n == 2 {
				close(second)
				time.Sleep(300 * time.Millisecond)
			}
			return q.write(pair(n))
		case q.target == "/v2/slow" && token == "Bearer "+accessToken:
			sent <- struct{}{}
			q.wait(late)
			return q.write(denied)
		case q.target == "/v2/other" && token != "Bearer next2", token != fmt.Sprint("Bearer next", refreshes.Load()):
			return q.write(denied)
		default:
			return q.write(reply(200, fine))
		}
	})
	status := make(chan int, 2)
	go func() { status <- r.get("/v2/slow").status }()
	<-sent
	equal(t, "the first renewal", r.get("/v2/company").status, 200)
	time.Sleep(5 * time.Second)
	go func() { status <- r.get("/v2/other").status }() // renews
	<-second
	close(late)
	equal(t, "status", <-status, 200)
	equal(t, "status", <-status, 200)
	equal(t, "refreshes", refreshes.Load(), 2)
}

// However often its tokens are rejected, a request ends.
func TestRejectedWithoutEnd(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		if isTokenCall(q) {
			return q.write(pair(1))
		}
		return q.write(denied)
	}, api(limiter.Window{Requests: 1, Per: 5 * time.Second}))
	equal(t, "status", r.get("/v2/company").status, 401)
	if n := len(u.all()); n > 7 {
		t.Errorf("%d requests upstream for one", n)
	}
}
