package simulator_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
)

// FuzzRequests: whatever a client sends, an answer below 500 comes back.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{
		`{"invoice":{"contact":1e999999999,"invoice_items":[null,{"price":"1e9"}]}}`, `{"contacts":[1]}`, `[[[`, `{"a":{"a":{}}}`, `"`, "\x00", `<a type="array"><b/>x</a>`,
		`<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, `{"attachment":{"data":1}}`, `{"statement":[{"amount":{}}]}`, `{"expense":{"user":"/"}}`,
	} {
		for _, path := range []string{"contacts", "invoices", "bank_transactions/statement?bank_account=1", "categories", "expenses", "x", "users/me", "%2e%2e/%zz"} {
			f.Add("POST", path, body)
			f.Add("PUT", path, body)
		}
	}
	f.Add("GET", "contacts?page=99999999999999999999&per_page=9223372036854775807&sort=-&updated_since=x&contact=%00", "")
	s := simulator.New(simulator.Config{Enforcement: simulator.EnforceOff})
	token := s.AccessToken("")
	f.Fuzz(func(t *testing.T, method, path, body string) {
		path, query, _ := strings.Cut(path, "?")
		r := &http.Request{
			Method: method, URL: &url.URL{Path: "/v2/" + path, RawQuery: query}, Header: http.Header{"Authorization": {"Bearer " + token}},
			Body: io.NopCloser(strings.NewReader(body)), ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:1",
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %s %q: %d", method, path, body, w.Code)
		}
	})
}
