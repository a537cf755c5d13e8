package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The way to the token endpoint is looked at without a request.
func TestCheckEndpoint(t *testing.T) {
	seen := 0
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen++ })
	plain, secure := httptest.NewServer(count), httptest.NewUnstartedServer(count)
	defer plain.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for base, want := range map[string]string{
		plain.URL:              "",
		secure.URL:             "can be reached, but not trusted: ",
		"http://127.0.0.1:1":   "cannot be reached: ",
		"https://127.0.0.1:1":  "cannot be reached: ",
		"https://host.invalid": "cannot be reached: ",
	} {
		var out bytes.Buffer
		c := &command{stdout: &out}
		upstream, err := parseURL(base)
		if err != nil {
			t.Fatal(err)
		}
		err = c.checkEndpoint(context.Background(), Config{Upstream: UpstreamConfig{BaseURL: upstream}})
		switch {
		case want == "" && (err != nil || !strings.HasPrefix(out.String(), "token endpoint: "+upstream.Host+" can be reached (")):
			t.Errorf("%s: %v, %s", base, err, &out)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), "token endpoint: "+upstream.Host+" "+want) || !strings.Contains(err.Error(), "; see to ")):
			t.Errorf("%s: got %v, want %q and what to do", base, err, want)
		}
	}
	if seen != 0 {
		t.Errorf("%d requests, want none", seen)
	}
}

// All certificates that the configuration names are looked at for their ends.
func TestCertificatesThatEnd(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	ca := newAuthority(t, "redis")
	for name, life := range map[string]time.Duration{"long": 90 * 24 * time.Hour, "soon": time.Hour, "over": -time.Minute} {
		made := ca.issue(name, life)
		write(t, filepath.Join(folder, name+".pem"), string(made.cert))
		write(t, filepath.Join(folder, name+".key"), string(made.key))
	}
	config := "encryption: {keys: [{id: a, env: KEY}]}\ntls: {cert: long.pem, key: long.key, client_ca: soon.pem}\n" +
		"store: {redis: {url: 'rediss://localhost', tls: {ca: long.pem, cert: over.pem, key: over.key}}}" + minimalConfig
	c, err := fromFile(filepath.Join(folder, "config.yaml"), []byte(config), fakeEnv("KEY="+strings.Repeat("A", 43)+"="))
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(c.Notes, "\n")
	for _, want := range []string{"tls.client_ca: a certificate in it ends on ", "store.redis.tls.cert: the client certificate has ended, on "} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in %s", want, notes)
		}
	}
	if len(c.Notes) != 2 {
		t.Errorf("got %d notes, want those of the two that end: %s", len(c.Notes), notes)
	}
}
