package main

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"golang.org/x/oauth2"

	"freeagent-proxy/internal/redistest"
)

// ownOAuth is a program's own, by a stock library, as it was set up for FreeAgent: its base URL alone is another.
func ownOAuth(base, id, secret string, style oauth2.AuthStyle) *oauth2.Config {
	return &oauth2.Config{ClientID: id, ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: base + "/v2//token_endpoint", AuthStyle: style}}
}

// refresh gets a token as that program does.
func refresh(t *testing.T, c *oauth2.Config) *oauth2.Token {
	t.Helper()
	token, err := c.TokenSource(context.Background(), &oauth2.Token{RefreshToken: "from FreeAgent, long ago"}).Token()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A program that does its own OAuth goes on working, through a restart of the proxy, too. FreeAgent sees neither its
// token requests nor its token.
func TestOwnOAuth(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	key := mark + "/+ key=="
	w.configure(w.simURL, fmt.Sprintf("listen: 127.0.0.1:0\nstore: {file: store}\nclients: {billing: {key_sha256: %s}}\n%s", hexDigest(key), noLimits))
	w.authorise(w.sim.Authorize("owner"))
	refreshed := w.sim.Stats().Tokens.RefreshRequests
	p, url := w.serve()
	client := w.client(false)
	var held []*oauth2.Token
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams, oauth2.AuthStyleAutoDetect} {
		held = append(held, refresh(t, ownOAuth(url, "billing", key, style)))
		code, err := ownOAuth(url, "billing", key, style).Exchange(context.Background(), "a-code")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, code)
	}
	if _, err := ownOAuth(url, "billing", "wrong", oauth2.AuthStyleInHeader).Exchange(context.Background(), "a-code"); err == nil {
		t.Error("a wrong key got a token")
	}
	works := func(url string) {
		t.Helper()
		for _, token := range held {
			status, body := call(t, client, http.MethodGet, url+"/v2/company", "Authorization: Bearer "+token.AccessToken)
			if status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
		}
	}
	works(url)
	if code, err := p.stop(syscall.SIGTERM); err != nil || code != exitOK {
		t.Fatalf("%d, %v", code, err)
	}
	_, url = w.serve()
	works(url)
	if got := w.sim.Stats().Tokens.RefreshRequests; got != refreshed {
		t.Errorf("%d refreshes at FreeAgent, want the %d before", got, refreshed)
	}
	for _, r := range w.arrivals() {
		if r.Target != "/v2/company" {
			t.Errorf("FreeAgent saw %s", r.Target)
		}
	}
}

// A token of one replica is good at the other.
func TestOwnOAuthAtReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key := mark + "-key"
	f := newFleet(t, 2, simNoLimits, "redis://"+server.Addr(), fmt.Sprintf("clients: {billing: {key_sha256: %s}}\n%s", hexDigest(key), noLimits))
	for i, one := range f.members {
		token := refresh(t, ownOAuth(one.url, "billing", key, oauth2.AuthStyleInHeader))
		other := f.members[1-i]
		if status, body := call(t, f.world.client(false), http.MethodGet, other.url+"/v2/company", "Authorization: Bearer "+token.AccessToken); status != http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
	}
}
