package tokens_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/tokens"
)

// unreachable is an endpoint where nobody listens: a port that was free a moment ago may be taken by now.
func unreachable() *tokens.Endpoint { return endpointAt("http://127.0.0.1:1", 10*time.Second) }

func endpointAt(base string, timeout time.Duration) *tokens.Endpoint {
	u, err := url.Parse(base)
	if err != nil {
		panic(err)
	}
	return tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: u, Timeout: timeout, UserAgent: "tokens-test/1"})
}

// answering is an endpoint that answers so.
func answering(t *testing.T, h http.HandlerFunc) *tokens.Endpoint {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return endpointAt(server.URL, 5*time.Second)
}

func TestApproveURL(t *testing.T) {
	got, err := url.Parse(endpointAt("https://api.freeagent.com/", 0).ApproveURL(app, "http://localhost:8082/callback?x=1", "st&te"))
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"client_id": {app.ClientID}, "response_type": {"code"}, "redirect_uri": {"http://localhost:8082/callback?x=1"}, "state": {"st&te"}}
	if got.Scheme != "https" || got.Host != "api.freeagent.com" || got.Path != "/v2/approve_app" || got.Query().Encode() != want.Encode() {
		t.Errorf("ApproveURL = %s", got)
	}
}

// What goes over the wire, once.
func TestTokenRequests(t *testing.T) {
	var got []*http.Request
	endpoint := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		got = append(got, r)
		answer(200, "application/json", `{"access_token":"a","refresh_token":"r","token_type":"bearer","expires_in":3600}`)(w, r)
	})
	ctx := context.Background()
	if _, err := endpoint.Refresh(ctx, app, "old=/+&"); err != nil {
		t.Fatal(err)
	}
	if _, err := endpoint.Exchange(ctx, app, "the code", "http://localhost/cb"); err != nil {
		t.Fatal(err)
	}
	want := []url.Values{
		{"grant_type": {"refresh_token"}, "refresh_token": {"old=/+&"}},
		{"grant_type": {"authorization_code"}, "code": {"the code"}, "redirect_uri": {"http://localhost/cb"}},
	}
	if len(got) != len(want) {
		t.Fatalf("%d requests, want %d", len(got), len(want))
	}
	for i, r := range got {
		id, password, _ := r.BasicAuth()
		if r.Method != "POST" || r.URL.String() != "/v2/token_endpoint" || r.PostForm.Encode() != want[i].Encode() ||
			id != app.ClientID || password != app.ClientSecret || r.UserAgent() != "tokens-test/1" ||
			r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Accept") != "application/json" {
			t.Errorf("request %d: %s %s %v %v", i, r.Method, r.URL, r.PostForm, r.Header)
		}
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A transport that says nothing of its connections may have sent what it failed with, and
// cannot send it again by itself.
func TestTransportOfOnesOwn(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "api.freeagent.example"}
	client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		if r.GetBody != nil {
			t.Error("the request can be sent again")
		}
		return nil, errors.New(secret)
	})}
	_, err := tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Client: client}).Refresh(context.Background(), app, "old")
	if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || !trouble.Uncertain || strings.Contains(err.Error(), secret) {
		t.Errorf("%v, want trouble that may have spent the token", err)
	}
}

func TestExchangeNeedsARefreshToken(t *testing.T) {
	endpoint := answering(t, answer(200, "application/json", `{"access_token":"a"}`))
	if _, err := endpoint.Exchange(context.Background(), app, "code", "http://localhost"); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Exchange: %v, want trouble", err)
	}
	endpoint = answering(t, refuse)
	if _, err := endpoint.Exchange(context.Background(), app, "code", "http://localhost"); !errors.Is(err, tokens.ErrReauthorize) {
		t.Errorf("Exchange of a spent code: %v, want a refusal", err)
	}
}

// A redirect would carry the refresh token elsewhere.
func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed") }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		endpoint := answering(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, status) })
		_, err := endpoint.Refresh(context.Background(), app, "old")
		if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || trouble.Status != status || trouble.Uncertain {
			t.Errorf("%d: %v, want trouble", status, err)
		}
	}
}

// raw is an endpoint that writes these bytes to whoever connects, and counts them.
func raw(t *testing.T, reply string, read bool) (endpoint *tokens.Endpoint, connections func() int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := make(chan int, 1)
	go func() {
		count := 0
		defer func() { n <- count }()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			count++
			if read {
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
				}
			}
			_, _ = io.WriteString(conn, reply)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return endpointAt("http://"+listener.Addr().String(), 5*time.Second), func() int { _ = listener.Close(); return <-n }
}

// Connections that break: one request each, and nothing of what was received in the error.
func TestBrokenConnections(t *testing.T) {
	for name, reply := range map[string]string{
		"closed without an answer": "",
		"not HTTP":                 secret + " SSH-2.0\r\n\r\n",
		"broken header":            "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n",
		"broken length":            "HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, connections := raw(t, reply, true)
			_, err := endpoint.Refresh(context.Background(), app, secret)
			if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || !trouble.Uncertain || trouble.Status != 0 {
				t.Errorf("%v, want trouble that may have spent the token", err)
			}
			if strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("a secret in %v", err)
			}
			if n := connections(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
	t.Run("an answer cut off behind the tokens", func(t *testing.T) {
		endpoint, _ := raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+`{"access_token":"a","refresh_token":"b","ex`, true)
		if g, err := endpoint.Refresh(context.Background(), app, "old"); err != nil || g.AccessToken != "a" || g.RefreshToken != "b" {
			t.Errorf("Refresh = %v, %v; want the pair that came", g, err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		_, err := unreachable().Refresh(context.Background(), app, secret)
		if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || trouble.Uncertain {
			t.Errorf("%v, want trouble that spent nothing", err)
		}
		if !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v does not say why", err)
		}
	})
	t.Run("HTTPS expected", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		_, err := endpointAt(strings.Replace(server.URL, "http:", "https:", 1), 10*time.Second).Refresh(context.Background(), app, secret)
		if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || trouble.Uncertain {
			t.Errorf("%v, want trouble that spent nothing", err)
		}
	})
	t.Run("untrusted certificate", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		defer server.Close()
		_, err := endpointAt(server.URL, time.Second).Refresh(context.Background(), app, secret)
		if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || trouble.Uncertain || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v, want trouble that names the certificate", err)
		}
	})
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-release
	}))
	defer server.Close()
	defer close(release)
	began := time.Now() // there is time to connect and to send
	_, err := endpointAt(server.URL, 2*time.Second).Refresh(context.Background(), app, "old")
	if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || !trouble.Uncertain || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v, want trouble at the timeout", err, time.Since(began))
	}
}
