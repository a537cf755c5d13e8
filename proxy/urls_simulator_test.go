package proxy_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/proxy"
)

// A program's life with FreeAgent's URLs: it pages by Link, creates, follows what it got, refers to it, updates and deletes.
// However it reaches us it comes back the same way, and FreeAgent reads of itself alone.
func TestProgramFollowsURLs(t *testing.T) {
	for name, c := range map[string]struct{ prefix, host string }{
		"at the root":       {"", "localhost:123"},
		"below the account": {"/accounts/acme", "localhost:123"},
		"public URL":        {"", ""},
	} {
		r, sim := withSimulator(t, simulator.Config{}, func(p *proxy.Config) {
			if c.host == "" {
				p.PublicURL = mustURL("http://freeagent.internal")
			}
		})
		if err := sim.Seed("", "", "contacts", 7); err != nil {
			t.Fatal(err)
		}
		base := "http://" + c.host + c.prefix
		if c.host == "" {
			base = "http://freeagent.internal"
		}
		p := &program{r, strings.TrimSuffix(base, c.prefix)}
		if got := p.pages(c.prefix + "/v2/contacts?per_page=2"); got != 7 {
			t.Errorf("%s: %d contacts over all pages, want 7", name, got)
		}
		contact := p.create(base+"/v2/contacts", `{"contact":{"first_name":"A","last_name":"B"}}`, "contact")
		invoice := p.create(base+"/v2/invoices", `{"invoice":{"contact":"`+contact+`","dated_on":"2025-10-03","comments":"see `+contact+`"}}`, "invoice")
		got := p.get(invoice)["invoice"].(map[string]any)
		equal(t, name+": the invoice's contact", got["contact"].(string), contact)
		equal(t, name+": its comments", got["comments"].(string), "see "+contact)

		update := `{"invoice":{"contact":"` + strings.ReplaceAll(contact, "/", `\/`) + `"}}`
		equal(t, name+": updated", p.do("PUT", invoice, update).status, 200)
		seen := sim.Requests(0)
		upstream := "http://" + seen[0].Header.Get("Host")
		arrived := strings.ReplaceAll(update, strings.ReplaceAll(base, "/", `\/`), strings.ReplaceAll(upstream, "/", `\/`))
		equal(t, name+": the update arrives", seen[len(seen)-1].BodySHA256, hashOf(arrived))

		equal(t, name+": invoices of the contact", p.pages(c.prefix+"/v2/invoices?contact="+strings.NewReplacer(":", "%3A", "/", "%2F").Replace(contact)), 1)
		last := sim.Requests(0)
		equal(t, name+": the filter arrives", strings.Contains(last[len(last)-1].Target, "contact="+strings.NewReplacer(":", "%3A", "/", "%2F").Replace(upstream)), true)
		p.do("DELETE", invoice, "").passed(t, 200, "")
	}
}

// program knows URLs alone; they must be of the origin that it was told of.
type program struct {
	*rig
	origin string
}

func (p *program) do(method, url, body string, headers ...string) *answer {
	p.t.Helper()
	target, ours := strings.CutPrefix(url, p.origin)
	if !ours {
		p.t.Fatalf("%s %s: not of %s", method, url, p.origin)
	}
	host := strings.TrimPrefix(p.origin, "http://")
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: " + host, "Content-Type: application/json"}, headers...)
	return p.ask(text(append(lines, fmt.Sprintf("Content-Length: %d", len(body)))...) + body)
}

func (p *program) get(url string) (record map[string]any) {
	p.t.Helper()
	got := p.do("GET", url, "")
	equal(p.t, url, got.status, 200)
	if err := json.Unmarshal([]byte(got.body), &record); err != nil {
		p.t.Fatalf("%s: %v: %s", url, err, got.body)
	}
	return record
}

// create posts, and expects that Location and url of the answer are one.
func (p *program) create(url, body, root string) string {
	p.t.Helper()
	got := p.do("POST", url, body)
	if got.status != 201 {
		p.t.Fatalf("%s: %d %s", url, got.status, got.body)
	}
	var made map[string]map[string]any
	if err := json.Unmarshal([]byte(got.body), &made); err != nil {
		p.t.Fatal(err)
	}
	location := got.header.Get("Location")
	equal(p.t, "Location", location, made[root]["url"].(string))
	if !strings.HasPrefix(location, url) {
		p.t.Fatalf("made at %s, found at %s", url, location)
	}
	return location
}

var nextPage = regexp.MustCompile(`<([^>]*)>; rel='next'`)

// pages counts the records of all pages.
func (p *program) pages(target string) (records int) {
	p.t.Helper()
	for url := p.origin + target; ; {
		got := p.do("GET", url, "")
		equal(p.t, url, got.status, 200)
		if strings.Contains(got.body, "127.0.0.1") {
			p.t.Errorf("%s: %s", url, got.body)
		}
		records += strings.Count(got.body, `"url":`)
		next := nextPage.FindStringSubmatch(got.header.Get("Link"))
		if next == nil {
			return records
		}
		url = next[1]
	}
}

// XML leads back as well, and what an HTTP/1.0 program gets has its length.
func TestXMLFromTheSimulator(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{})
	if err := sim.Seed("", "", "contacts", 3); err != nil {
		t.Fatal(err)
	}
	got := r.get("/v2/contacts", "Accept: application/xml")
	equal(t, "URLs", strings.Count(got.body, "<url>http://"+r.addr+"/v2/contacts/"), 3)
	contact := regexp.MustCompile(`http://[^<]*`).FindString(got.body)
	made := r.do("POST", "/v2/invoices", `<invoice><contact>`+contact+`</contact><dated-on>2025-10-03</dated-on></invoice>`,
		"Accept: application/xml", "Content-Type: application/xml")
	equal(t, "status", made.status, 201)
	equal(t, "contact", strings.Contains(made.body, "<contact>"+contact+"</contact>"), true)
	old := r.ask(text("GET /v2/contacts HTTP/1.0"))
	equal(t, "URLs in HTTP/1.0", strings.Count(old.body, `"http://`+r.addr+`/v2/contacts/`), 3)
}
