package proxy_test

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/proxy"
)

// Whatever the request-target: what is passed on is below /v2/, without doubled slashes and dot segments, and
// otherwise what the client wrote.
func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{
		"/v2/company", "//v2//company?x=//y", "/accounts/acme/v2/invoices?", "/v2/%2e%2E/x", "/v2/a%2fb", "/v2/%zz", "/v2/..%5c", "/v2/?",
		"http://api.freeagent.com/v2/company?a=://b", "http:/v2/", "*", "", "/v2/a\x00b", "/accounts//v2/x", "//accounts/a//v2/./x", "?/v2/", "x://v2/", "/v2/#/../x",
	} {
		f.Add(seed)
	}
	doubled := regexp.MustCompile("/+")
	f.Fuzz(func(t *testing.T, requestURI string) {
		account, path, query, hasQuery, err := proxy.ParseTarget(requestURI)
		if err != nil {
			return
		}
		if !strings.HasPrefix(path, "/v2/") || strings.Contains(path, "//") || strings.ContainsAny(path, "?") {
			t.Errorf("path %q", path)
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			t.Errorf("path %q cannot be decoded", path)
		}
		for _, segment := range strings.FieldsFunc(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
			if slices.Contains([]string{".", ".."}, segment) {
				t.Errorf("path %q has a dot segment", path)
			}
		}
		written := path
		if account != "" {
			written = "/accounts/" + account + path
		}
		if hasQuery {
			written += "?" + query
		} else if query != "" {
			t.Errorf("query %q of a target that has none", query)
		}
		before, after, _ := strings.Cut(requestURI, "?")
		whole := doubled.ReplaceAllString(before, "/")
		if hasQuery {
			whole += "?" + after
		}
		if !strings.HasSuffix(whole, written) || strings.HasPrefix(requestURI, "/") && whole != written {
			t.Errorf("%q became %q", requestURI, written)
		}
	})
}

func FuzzPreferredWait(f *testing.F) {
	for _, seed := range []string{"wait=5", "respond-async, wait=0;x", `wait="7"`, "wait=-1", "wait", "", ",,wait=,wait=3", "WAIT = 2147483647"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		wait, ok := proxy.PreferredWait([]string{line})
		if wait < 0 || wait > 1<<31*time.Second || !ok && wait != 0 || ok && !strings.Contains(strings.ToLower(line), "wait") {
			t.Errorf("%q: %v, %v", line, wait, ok)
		}
		if again, _ := proxy.PreferredWait([]string{"return=minimal", line}); again != wait {
			t.Errorf("%q: %v, and %v behind another line", line, wait, again)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for _, seed := range []string{"60", "0", "-1", "", "1e9", "99999999999", date, "Fri, 31 Dec 9999 23:59:59 GMT", " 5 "} {
		f.Add(seed, "")
		f.Add(date, seed)
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		if got := proxy.RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}); got < time.Second || got > time.Hour {
			t.Errorf("%q at %q: %v", value, date, got)
		}
	})
}

func FuzzCanonicalHost(f *testing.F) {
	for _, seed := range []string{"localhost", "LOCALHOST:80", "[::1]:80", "[fe80::1%eth0]:80", "::1", "a.b.", "", ":", "[", "]", "%", "a:b:c", "x.:1"} {
		f.Add(seed)
	}
	name := regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$`)
	f.Fuzz(func(t *testing.T, host string) {
		got := proxy.CanonicalHost(host)
		if got != strings.ToLower(got) || strings.Contains(got, "%") {
			t.Errorf("%q: %q", host, got)
		}
		if !name.MatchString(host) {
			return
		}
		for _, form := range []string{strings.ToUpper(host), host + ".", host + ":8080", host + ".:8080", "[" + host + "]"} {
			if same := proxy.CanonicalHost(form); same != strings.ToLower(host) {
				t.Errorf("%q: %q, and %q: %q", host, got, form, same)
			}
		}
	})
}

// Whatever a client makes up in front of what the trusted proxy adds, the address is the one that this saw, or the connection's own.
func FuzzClientAddress(f *testing.F) {
	for _, seed := range []string{
		"10.1.2.3", "", "for=10.1.2.3", `for=10.1.2.3;x="`, `for="[2001:db8::1]:80"`, `for="`, `for=10.1.2.3;x="\"`, ",,;=", `for=10.1.2.3;x="a,b"`, "for=10.9.1.1",
	} {
		f.Add(seed, seed)
	}
	networks := prefixes("127.0.0.1/32", "10.9.0.0/16")
	f.Fuzz(func(t *testing.T, listed, named string) {
		for seen, plain := range map[string]string{"192.0.2.1": "192.0.2.1", `"[2001:db8::9]:4711"`: "2001:db8::9"} {
			header := http.Header{"Forwarded": {named + ", for=" + seen}}
			if listed != "" {
				header["X-Forwarded-For"] = []string{listed + ", " + plain}
			}
			got := proxy.ClientAddress(networks, "127.0.0.1:9", header).String()
			if got != "127.0.0.1" && got != plain {
				t.Errorf("%q: got %s", header, got)
			}
			delete(header, "Forwarded")
			if got := proxy.ClientAddress(networks, "127.0.0.1:9", header).String(); got != "127.0.0.1" && got != plain {
				t.Errorf("%q: got %s", header, got)
			}
		}
	})
}
