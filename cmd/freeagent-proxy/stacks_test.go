package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// stacks are the HTTP libraries and programs of a plain Debian, each with a script in testdata/stacks that does the same. The
// words are the command; the script's path goes in place of its name.
var stacks = []string{
	"sh curl.sh --http1.0", "sh curl.sh --http1.1", "sh curl.sh --http2", "sh curl.sh --http2-prior-knowledge", "sh wget.sh", "sh nc.sh",
	"perl lwp.pl", "ruby nethttp.rb", "php curl.php", "php streams.php",
	"java -XX:TieredStopAtLevel=1 UrlConnection.java", "python3 urlopen.py", "node fetch.mjs",
}

// stackSteps are what a script's requests are for FreeAgent, with their statuses; N is an id. Its token was revoked before.
var stackSteps = []string{
	"POST /v2/contacts 401", "POST /v2/contacts 201",
	"GET /v2/contacts?per_page=10 200", "GET /v2/contacts?page=2&per_page=10 200", "GET /v2/contacts?page=3&per_page=10 200",
	"GET /v2/contacts/N 200",
	"POST /v2/projects 201", "PUT /v2/projects/N 200", "GET /v2/projects/N 200",
	"DELETE /v2/projects/N 200", "DELETE /v2/contacts/N 200",
}

// stackContacts is how many contacts there are before a script makes another; it expects that many, in pages of ten.
const stackContacts = 25

var id = regexp.MustCompile(`/\d+`)

// Stock HTTP libraries list with paging, create, follow, update and delete by the URLs that they are given, and do not
// know that there is a proxy. What they send once arrives once, also when its first attempt meets a revoked token.
func TestStacks(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	for _, command := range stacks {
		running.Go(func() {
			t.Run(command, func(t *testing.T) {
				p := newProgram(t, stackContacts)
				first := p.firstContact()
				p.sim.RevokeAccess("owner")
				before := len(p.arrivals())
				words := strings.Fields(command)
				for i, word := range words {
					if file, err := filepath.Abs(filepath.Join("testdata/stacks", word)); err == nil && filepath.Ext(word) != "" && isFile(file) {
						words[i] = file
					}
				}
				if out, err := p.run(words...); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				arrived := p.arrivals()[before:]
				p.checkArrivals(arrived, stackSteps)
				p.checkLog(stackSteps[1:])
				for _, r := range arrived {
					if r.Method == http.MethodPut && !slices.Contains(contactChanges(first), r.BodySHA256) {
						t.Errorf("the PUT's body does not name %s", first)
					}
				}
			})
		})
	}
	running.Wait()
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// contactChanges are the digests of the ways to write that a project's contact is another.
func contactChanges(url string) (digests []string) {
	for _, body := range []string{
		`{"project":{"contact":"` + url + `"}}`, `{"project": {"contact": "` + url + `"}}`,
		`{"project":{"contact":"` + strings.ReplaceAll(url, "/", `\/`) + `"}}`,
	} {
		sum := sha256.Sum256([]byte(body))
		digests = append(digests, hex.EncodeToString(sum[:]))
	}
	return digests
}

// program is a client of a proxy of its own, in whatever language.
type program struct {
	*world
	t     *testing.T
	proxy *process
	url   string
}

const programKey = mark + "-program-key"

// newProgram makes a proxy whose one client is called tests, for a company with contacts.
func newProgram(t *testing.T, contacts int) *program {
	t.Helper()
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, fmt.Sprintf("listen: 127.0.0.1:0\nstore: {file: store}\nclients: {tests: {key_sha256: %s}}\n%s", hexDigest(programKey), noLimits))
	if err := w.sim.Seed("owner", "", "contacts", contacts); err != nil {
		t.Fatal(err)
	}
	w.authorise(w.sim.Authorize("owner"))
	proxy, url := w.serve()
	return &program{w, t, proxy, url}
}

// firstContact is FreeAgent's URL of the first contact of its list.
func (p *program) firstContact() string {
	p.t.Helper()
	_, body := call(p.t, oneShot, http.MethodGet, p.simURL+"/v2/contacts", "Authorization: Bearer "+p.sim.AccessToken("owner"))
	var list struct{ Contacts []struct{ URL string } }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Contacts) == 0 {
		p.t.Fatalf("no contacts: %v", err)
	}
	return list.Contacts[0].URL
}

// run runs a command that calls the proxy, and returns what it prints.
func (p *program) run(words ...string) (output string, err error) {
	p.t.Helper()
	name, err := exec.LookPath(words[0])
	if err != nil {
		p.t.Fatalf("%v; `make test` installs it", err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, words[1:]...)
	cmd.WaitDelay = time.Second // for children that still hold its output
	cmd.Dir = p.t.TempDir()
	cmd.Env = append(slices.Clone(p.env), "FREEAGENT_URL="+p.url, "FREEAGENT_KEY="+programKey)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// checkArrivals compares what FreeAgent saw. It came with FreeAgent's token, and nothing of the client's key.
func (p *program) checkArrivals(arrived []simulator.Request, want []string) {
	p.t.Helper()
	var got []string
	for _, r := range arrived {
		got = append(got, fmt.Sprintf("%s %s %d", r.Method, id.ReplaceAllString(r.Target, "/N"), r.Status))
		bearer(p.t, r.Header)
		if seen := fmt.Sprint(r.Target, r.Header); strings.Contains(seen, mark) {
			p.t.Errorf("FreeAgent saw the client's key: %s %s", r.Method, r.Target)
		}
	}
	if !slices.Equal(got, want) {
		p.t.Errorf("FreeAgent saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// logged is a line of the access log.
type logged struct {
	Msg, Client, Method, Path string
	Status                    int
	WaitedMs                  int `json:"waited_ms"`
}

// accessLog is what the process has logged of a client's requests.
func (p *process) accessLog(client string) (all []logged) {
	for line := range strings.Lines(p.stderr.String()) {
		var l logged
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "request" && l.Client == client {
			all = append(all, l)
		}
	}
	return all
}

// checkLog compares what came to the proxy: the same, each once.
func (p *program) checkLog(want []string) {
	p.t.Helper()
	// A line is written after its answer.
	eventually(p.t, fmt.Sprint(len(want), " requests in the log"), func() bool { return len(p.proxy.accessLog("tests")) >= len(want) })
	for i, l := range p.proxy.accessLog("tests") {
		got := fmt.Sprintf("%s %s %d", l.Method, id.ReplaceAllString(l.Path, "/N"), l.Status)
		if i >= len(want) || got != query.ReplaceAllString(want[i], "") {
			p.t.Errorf("the program's request %d was %s, want the %d %q", i+1, got, len(want), want)
		}
	}
}

var query = regexp.MustCompile(`\?\S*`)
