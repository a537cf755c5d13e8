package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// asClient is the header by which the policy tests' client is known.
const asClient = "Authorization: Bearer key"

// withPolicy is a rig whose one client has this policy.
func withPolicy(t *testing.T, policy proxy.Client, change ...func(*proxy.Config)) (*rig, *upstream) {
	t.Helper()
	policy.Name, policy.Keys = "reports", digestsOf("key")
	return withUpstream(t, well, append(change, clients(policy))...)
}

// alsoAccounts adds accounts beside the rig's own.
func alsoAccounts(named ...proxy.Account) func(*proxy.Config) {
	return func(c *proxy.Config) { c.Accounts = append(c.Accounts, named...) }
}

// grantTo gives another account a token of its own.
func (r *rig) grantTo(name string) {
	r.t.Helper()
	now := time.Now()
	err := r.tokens.Put(context.Background(), tokens.Grant{
		Account: name, AccessToken: accessToken + "-" + name, RefreshToken: refreshToken + "-" + name,
		ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshObtained: now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestMethodsOfAClient(t *testing.T) {
	for _, c := range []struct {
		policy  proxy.Client
		allowed string
		rule    string
	}{
		{proxy.Client{}, "GET HEAD POST PUT DELETE PATCH", ""},
		{proxy.Client{ReadOnly: true}, "GET HEAD", "(read_only)"},
		{proxy.Client{Methods: []string{"GET"}}, "GET HEAD", "(methods)"},
		{proxy.Client{Methods: []string{"HEAD"}}, "HEAD", "(methods)"},
		{proxy.Client{Methods: []string{"POST", "DELETE"}}, "POST DELETE", "(methods)"},
		{proxy.Client{ReadOnly: true, Methods: []string{"HEAD", "PUT"}}, "HEAD", ""},
	} {
		r, u := withPolicy(t, c.policy)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} {
			for _, target := range []string{"/v2/invoices", "http://api.freeagent.com/v2/invoices"} {
				got := r.do(method, target, "", asClient, "X-HTTP-Method-Override: GET")
				if strings.Contains(" "+c.allowed+" ", " "+method+" ") {
					equal(t, fmt.Sprintf("%s with %+v", method, c.policy), got.status, 200)
					continue
				}
				equal(t, method+" refused", got.status, 403)
				if method != "HEAD" {
					got.refused(t, 403, `client \"reports\" may`)
					got.refused(t, 403, c.rule)
				}
			}
		}
		equal(t, "upstream", len(u.all()), 2*len(strings.Fields(c.allowed)))
	}
}

// A path is judged as FreeAgent reads it: decoded, slashes folded.
func TestPathsOfAClient(t *testing.T) {
	r, u := withPolicy(t, proxy.Client{Paths: []string{"/v2/invoices", "/v2/estimates/*/pdf", "/v2/bank_*/1", "/v2/notes/"}})
	cases := map[string]bool{
		"/v2/invoices":                                 true,
		"/v2/invoices/":                                true,
		"/v2/invoices?page=2":                          true,
		"/v2/invoices?/v2/contacts":                    true,
		"/v2/invoices/1":                               true,
		"/v2/invoices/1/send_email":                    true,
		"//v2///invoices//1":                           true,
		"/v2/%69nvoices/1":                             true,
		"/v2/invoices%2F1":                             true,
		"/accounts/acme/v2/invoices":                   true,
		"http://api.freeagent.com/v2/invoices/1":       true,
		"/v2/estimates/1/pdf":                          true,
		"/v2/bank_accounts/1":                          true,
		"/v2/bank_transactions/1/x":                    true,
		"/v2/notes":                                    true,
		"/v2/notes/1":                                  true,
		"/v2/":                                         false,
		"/v2/contacts":                                 false,
		"/v2/invoices_x":                               false,
		"/v2/invoice":                                  false,
		"/v2/invoices.json":                            false,
		"/v2/Invoices":                                 false,
		"/v2/x/invoices":                               false,
		"/v2/contacts?/v2/invoices":                    false,
		"/v2/contacts/%2Fv2/invoices":                  false,
		"/v2/%63ontacts":                               false,
		"/v2/estimates":                                false,
		"/v2/estimates/1":                              false,
		"/v2/estimates/1/2/pdf":                        false,
		"/v2/estimates//pdf":                           false,
		"/v2/bank_accounts":                            false,
		"/v2/bank_/1":                                  true,
		"/v2/bank/1":                                   false,
		"/v2/invoices/%252e%252e/contacts":             false, // what a second decoding would make of it
		"/v2/invoices/%255c..%255ccontacts":            false,
		"/v2/invoices%5ccontacts":                      false,
		"/v2/invoices%00":                              false,
		"/v2/invoices%0d%0a":                           false,
		"http://api.freeagent.com/v2/contacts":         false,
		"http://api.freeagent.com//v2/contacts":        false,
		"/accounts/acme/v2/contacts":                   false,
		"http://api.freeagent.com/accounts/acme/v2/x":  false,
		"http://localhost/accounts/acme//v2/%63ontact": false,
	}
	passed := 0
	for target, allowed := range cases {
		got := r.get(target, asClient)
		if allowed {
			passed++
			equal(t, target, got.status, 200)
		} else if got.refused(t, 403, `client \"reports\" may not use this path (paths)`); t.Failed() {
			t.Fatal(target)
		}
	}
	equal(t, "upstream", len(u.all()), passed)
	for _, target := range []string{"/v2/invoices/../contacts", "/v2/invoices/%2e%2e/contacts", "/v2/invoices/%2E./contacts", `/v2/invoices/..\contacts`} {
		r.get(target, asClient).refused(t, 404, "") // for anybody
	}
	equal(t, "upstream", len(u.all()), passed)
}

// A client reaches its accounts alone, and cannot find out which others there are.
func TestAccountsOfAClient(t *testing.T) {
	others := alsoAccounts(proxy.Account{Name: "beta", API: ample}, proxy.Account{Name: "main", Default: true, API: ample})
	for _, c := range []struct {
		accounts []string
		unnamed  string // where a request goes that names no account; "": nowhere
	}{
		{nil, "main"}, {[]string{account}, account}, {[]string{"beta"}, "beta"}, {[]string{account, "main"}, "main"}, {[]string{account, "beta"}, ""},
	} {
		r, u := withPolicy(t, proxy.Client{Accounts: c.accounts}, others)
		r.grantTo("beta")
		r.grantTo("main")
		sent := 0
		expect := func(got *answer, want string) {
			t.Helper()
			if want == "" {
				got.refused(t, 403, `client \"reports\" may use no account of this name (accounts)`)
				return
			}
			sent++
			equal(t, "status", got.status, 200)
			token := "Bearer " + accessToken + "-" + want
			if want == account {
				token = "Bearer " + accessToken
			}
			equal(t, "token", u.all()[sent-1].header.Get("Authorization"), token)
		}
		if got := r.get("/v2/company", asClient); c.unnamed == "" {
			got.refused(t, 400, "X-FreeAgent-Account")
		} else {
			expect(got, c.unnamed)
		}
		for _, name := range []string{account, "beta", "main", "unknown"} {
			want := ""
			if name != "unknown" && (c.accounts == nil || strings.Contains(strings.Join(c.accounts, " "), name)) {
				want = name
			}
			expect(r.get("/v2/company", asClient, "X-FreeAgent-Account: "+name), want)
			expect(r.get("/accounts/"+name+"/v2/company", asClient), want)
			expect(r.get("/accounts/"+name+"/v2/company", asClient, "X-FreeAgent-Account: "+account), want)
			expect(r.get("http://api.freeagent.com/accounts/"+name+"/v2/company", asClient), want)
		}
		equal(t, "upstream", len(u.all()), sent)
	}
}

// A fixed subdomain goes upstream whatever the client does about it.
func TestSubdomainOfAClient(t *testing.T) {
	for _, practice := range []bool{true, false} {
		r, u := withPolicy(t, proxy.Client{Subdomain: "Client-One"}, func(c *proxy.Config) { c.Accounts[0].Practice = practice })
		for i, headers := range [][]string{
			nil, {"X-Subdomain: client-one"}, {"X-Subdomain: CLIENT-one"}, {"X-Subdomain: client-one", "X-Subdomain: client-one"},
			{"Connection: X-Subdomain"}, {"Connection: close, X-Subdomain", "X-Subdomain: client-one"}, {"X_Subdomain: other"},
		} {
			r.get("/v2/company", append(headers, asClient)...).passed(t, 200, fine)
			equal(t, "upstream's", strings.Join(u.all()[i].header["X-Subdomain"], ", "), "client-one")
		}
		for _, headers := range [][]string{
			{"X-Subdomain: other"}, {"X-Subdomain:"}, {"X-Subdomain: client-one", "X-Subdomain: other"}, {"X-Subdomain: client-one, other"},
		} {
			r.get("/v2/company", append(headers, asClient)...).refused(t, 403, "(subdomain)")
		}
		equal(t, "upstream", len(u.all()), 7)
	}
}

// What a policy refuses is told in the client's format, costs nothing and is in the log.
func TestRefusalByPolicy(t *testing.T) {
	windows := []limiter.Window{{Requests: 5, Per: time.Minute}}
	r, u := withPolicy(t, proxy.Client{ReadOnly: true}, api(windows...))
	got := r.do("POST", "/v2/invoices", "<invoice/>", asClient, "Accept: application/xml")
	got.refused(t, 403, "<message>client &#34;reports&#34; may only read (read_only); see clients")
	equal(t, "Proxy-Status", got.header.Get("Proxy-Status"),
		`freeagent-proxy; error=http_request_denied; details="client \"reports\" may only read (read_only); see clients in the proxy's configuration"`)
	line := r.logged(1)
	equal(t, "client", line["client"], any("reports"))
	equal(t, "reason", line["reason"], any(`http_request_denied: client "reports" may only read (read_only)`))
	equal(t, "upstream", len(u.all()), 0)
	equal(t, "permits", r.taken(windows), 0)
}

// A client waits as long as its own max_wait says, be that more or less than others'; Prefer makes it shorter.
func TestMaxWaitOfAClient(t *testing.T) {
	t.Parallel()
	r, _ := withUpstream(t, well, api(one...), maxWait(0), func(c *proxy.Config) {
		c.Clients = []proxy.Client{
			{Name: "patient", Keys: digestsOf("patient"), MaxWait: 20 * time.Second},
			{Name: "hasty", Keys: digestsOf("hasty"), MaxWait: 0},
		}
	})
	const patient, hasty = "X-Api-Key: patient", "X-Api-Key: hasty"
	for _, prefer := range []string{"Prefer: respond-async", "Prefer: wait=3600"} {
		letGo := r.hold("hasty", one)
		r.get("/v2/company", hasty).refused(t, 429, "must not exceed")
		r.get("/v2/company", patient, "Prefer: wait=0").refused(t, 429, "must not exceed")
		waiting := r.dial().send(r.request("GET", "/v2/company", "", patient, prefer))
		r.oneWaits()
		letGo()
		waiting.answer("GET").passed(t, 200, fine)
	}
}

// Room is kept for others only where there may be others: who has an account, or a company of a practice, to itself uses up
// the minute at once.
func TestClientAloneIsNotPaced(t *testing.T) {
	first := proxy.Client{Name: "first", Keys: digestsOf("first"), Weight: 4}
	at := func(c proxy.Client, name, subdomain string) proxy.Client {
		c.Accounts, c.Subdomain = []string{name}, subdomain
		return c
	}
	other := proxy.Client{Name: "other", Keys: digestsOf("other"), Weight: 1}
	for name, c := range map[string]struct {
		clients  []proxy.Client
		practice bool
		alone    bool
	}{
		"one client":                    {[]proxy.Client{first}, false, true},
		"two":                           {[]proxy.Client{first, other}, false, false},
		"the other has another account": {[]proxy.Client{first, at(other, "spare", "")}, false, true},
		"the other has both":            {[]proxy.Client{at(first, account, ""), other}, false, false},
		"each its own company":          {[]proxy.Client{at(first, account, "a"), at(other, account, "b")}, true, true},
		"the same company":              {[]proxy.Client{at(first, account, "a"), at(other, account, "A")}, true, false},
		"the other has all companies":   {[]proxy.Client{at(first, account, "a"), other}, true, false},
		"first has all companies":       {[]proxy.Client{first, at(other, account, "a")}, true, false},
		"companies, but no practice":    {[]proxy.Client{at(first, account, "a"), at(other, account, "b")}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := withUpstream(t, well, maxWait(0), api(limiter.Window{Requests: 10, Per: time.Minute}), func(config *proxy.Config) {
				config.Clients, config.Accounts[0].Practice = c.clients, c.practice
				config.Accounts = append(config.Accounts, proxy.Account{Name: "spare", API: config.Accounts[0].API})
			})
			served := 0
			for range 10 {
				if r.get("/accounts/"+account+"/v2/company", "X-Api-Key: first").status == http.StatusOK {
					served++
				}
			}
			if alone := served == 10; alone != c.alone {
				t.Errorf("%d of 10 were served at once; alone: %v", served, c.alone)
			}
		})
	}
}

// A share is counted beside the account's budget, which others have left.
func TestShareOfAClient(t *testing.T) {
	windows := []limiter.Window{{Requests: 10, Per: time.Minute}, {Requests: 100, Per: time.Hour}}
	r, u := withUpstream(t, well, api(windows...), func(c *proxy.Config) {
		c.Clients = []proxy.Client{
			{Name: "nightly", Keys: digestsOf("nightly"), Share: 0.75},
			{Name: "little", Keys: digestsOf("little"), Share: 0.01},
			{Name: "whole", Keys: digestsOf("whole"), Share: 1},
		}
	})
	ask := func(who string) *answer { t.Helper(); return r.get("/v2/company", "X-Api-Key: "+who) }
	for range 7 {
		ask("nightly").passed(t, 200, fine)
	}
	got := ask("nightly")
	got.refused(t, 429, "You must not exceed 7 requests per 60 seconds")
	if status := got.header.Get("Proxy-Status"); !strings.Contains(status, `client \"nightly\" has used up its share`) {
		t.Errorf("Proxy-Status %s", status)
	}
	ask("little").passed(t, 200, fine) // one at least
	ask("little").refused(t, 429, "You must not exceed 1 requests per 3600 seconds")
	for range 2 {
		ask("whole").passed(t, 200, fine)
	}
	ask("whole").refused(t, 429, "You must not exceed 10 requests per 60 seconds")
	equal(t, "upstream", len(u.all()), 10)
	equal(t, "permits", r.taken(windows), 10)
	for key, want := range map[string]int{account + "/client/nightly": 7, account + "/client/little": 1, account + "/client/whole": 0} {
		wide := []limiter.Window{{Requests: 50, Per: time.Minute}}
		equal(t, key, 50-r.limiter.Usage(proxy.APIBudget(key, wide))[0].Remaining, want)
	}
}

// A 429 of FreeAgent's is about the account, or about our address: never about a client's share.
func TestA429IsNotAboutAShare(t *testing.T) {
	for words, key := range map[string]string{
		perUser: "api/" + account, perAddress: "egress", "You must not exceed 60 requests per 60 seconds": "api/" + account,
	} {
		r, _ := withUpstream(t, always(reply(http.StatusTooManyRequests, words, "Retry-After: 30")), freeAgents,
			clients(proxy.Client{Name: "half", Keys: digestsOf("key"), Share: 0.5}))
		r.get("/v2/company", asClient).passed(t, 429, words)
		for _, k := range []string{"api/" + account, "api/" + account + "/client/half", "egress"} {
			equal(t, words+": paused "+k, !r.limiter.PausedUntil(k).IsZero(), k == key)
		}
	}
}
