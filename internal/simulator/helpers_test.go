package simulator_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"freeagent-proxy/internal/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sim is a simulator on a listener, and a client with a token.
type sim struct {
	*simulator.Simulator
	t      *testing.T
	url    string
	token  string
	client *http.Client
}

// answer is a response whose body was read.
type answer struct {
	*http.Response
	body string
}

func start(t *testing.T, cfg simulator.Config) *sim {
	t.Helper()
	s := simulator.New(cfg)
	server, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &sim{Simulator: s, t: t, url: server.URL(), token: s.AccessToken(""), client: client}
}

// try sends a request with the token; header lines are "Name: value" and an empty value removes the name.
func (s *sim) try(method, path, body string, header ...string) (answer, error) {
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); value == "" {
			r.Header.Del(name)
		} else {
			r.Header.Set(name, value)
		}
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp, string(text)}, err
}

func (s *sim) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	a, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// must is do with a status that it must have.
func (s *sim) must(status int, method, path, body string, header ...string) answer {
	s.t.Helper()
	a := s.do(method, path, body, header...)
	if a.StatusCode != status {
		s.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.StatusCode, status, a.body)
	}
	return a
}

// arm arms a fault.
func (s *sim) arm(f simulator.Fault) {
	s.t.Helper()
	if _, err := s.Fault(f); err != nil {
		s.t.Fatal(err)
	}
}

// refresh asks the token endpoint with a refresh token, by HTTP Basic.
func (s *sim) refresh(token string) answer {
	s.t.Helper()
	return s.do("POST", "/v2/token_endpoint", "grant_type=refresh_token&refresh_token="+token,
		"Authorization: Basic aWQ6c2VjcmV0", "Content-Type: application/x-www-form-urlencoded")
}

// tokens of the token endpoint's answer.
type tokens struct {
	Access         string `json:"access_token"`
	Type           string `json:"token_type"`
	ExpiresIn      any    `json:"expires_in"`
	Refresh        string `json:"refresh_token"`
	RefreshExpires any    `json:"refresh_token_expires_in"`
}

func (a answer) tokens(t *testing.T) tokens {
	t.Helper()
	var out tokens
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return out
}

// record returns what is inside the root of a JSON answer.
func (a answer) record(t *testing.T) map[string]any {
	t.Helper()
	var root map[string]map[string]any
	if err := json.Unmarshal([]byte(a.body), &root); err != nil || len(root) != 1 {
		t.Fatalf("not one record (%v): %s", err, a.body)
	}
	for _, record := range root {
		return record
	}
	return nil
}

// list returns the records of a JSON list.
func (a answer) list(t *testing.T) []map[string]any {
	t.Helper()
	var root map[string][]map[string]any
	if err := json.Unmarshal([]byte(a.body), &root); err != nil || len(root) != 1 {
		t.Fatalf("not one list (%v): %s", err, a.body)
	}
	for _, list := range root {
		return list
	}
	return nil
}

// make creates a record and returns its path.
func (s *sim) make(family, body string) string {
	s.t.Helper()
	a := s.must(http.StatusCreated, "POST", "/v2/"+family, body)
	url, _ := a.record(s.t)["url"].(string)
	path, ok := strings.CutPrefix(url, s.url)
	if !ok {
		s.t.Fatalf("url %q is not below %s", url, s.url)
	}
	return path
}

// bare calls a simulator without a listener, for tests in which time is faked.
func bare(s *simulator.Simulator, method, path, token string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func tlsConfig(roots *x509.CertPool) *tls.Config { return &tls.Config{RootCAs: roots} }
