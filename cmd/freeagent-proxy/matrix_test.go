package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// affliction is what befalls a request, and where docs/writes.md speaks of it.
type affliction struct {
	simulator.Fault
	times int
	rows  []string // by what may have happened: a reset can overtake the answer that it follows
	keys  []string // likewise of the table for requests under a key
	alone bool     // it befalls an account, and so all that goes on with it
}

const (
	rowBroke   = "the connection broke after bytes had left"
	rowSilent  = "no answer for `upstream.timeout`"
	rowGateway = "502, 503, 504 from FreeAgent's gateway"
	rowCut     = "the answer broke off in the middle"
	rowCutKey  = "the answer to a POST with `Idempotency-Key` broke off in the middle"
	rowOther   = "any other answer"
	rowUnsent  = "not a byte had left: no connection could be had, or the kept-alive one was closed at that moment"
	rowNoWay   = "no connection within 10 s, or no progress in making one"

	keyAnswered = "was answered 2xx, 3xx or 4xx (but 401 and 429)"
	keyRunning  = "is still waiting, or under way"
	keyUnknown  = "timed out, broke off, or was answered 5xx; or its replica died meanwhile"
	keyCut      = "was answered with more than 256 KiB, or the answer broke off"
	keyFree     = "was refused by the proxy, answered 401 or 429, or never left"
)

// afflictions are all faults that a simulator can let befall a request to the API.
func afflictions() []affliction {
	of := func(kind string, after bool, times int, key string, rows ...string) affliction {
		return affliction{simulator.Fault{Kind: kind, After: after}, times, rows, []string{key}, false}
	}
	all := []affliction{
		{rows: []string{rowOther}, keys: []string{keyAnswered}},
		{Fault: simulator.Fault{Kind: simulator.FaultUnauthorized}, times: 1, rows: []string{"401"}, keys: []string{keyAnswered}, alone: true},
		{Fault: simulator.Fault{Kind: simulator.FaultRateLimited, RetryAfter: 1}, times: 1, rows: []string{"429"}, keys: []string{keyAnswered}, alone: true},
		of(simulator.FaultEmpty, false, 3, keyAnswered, rowOther),
		of(simulator.FaultHTML, false, 3, keyAnswered, rowOther),
		{Fault: simulator.Fault{Kind: simulator.FaultReset, After: true}, times: 1, rows: []string{rowCut, rowBroke}, keys: []string{keyCut, keyUnknown}},
	}
	for _, after := range []bool{false, true} {
		for _, times := range []int{1, 3} { // what reads survive, and what they do not
			all = append(all, of(simulator.FaultDrop, after, times, keyUnknown, rowBroke), of(simulator.FaultGoAway, after, times, keyUnknown, rowBroke))
			for _, status := range []int{502, 503, 504} {
				gateway := of(simulator.FaultStatus, after, times, keyUnknown, rowGateway)
				gateway.Status = status
				all = append(all, gateway)
			}
		}
		all = append(all, of(simulator.FaultStall, after, 3, keyUnknown, rowSilent))
		for _, status := range []int{500, 422} {
			answer := of(simulator.FaultStatus, after, 3, keyUnknown, rowOther)
			if answer.Status = status; status < 500 {
				answer.keys = []string{keyAnswered}
			}
			all = append(all, answer)
		}
		late := of(simulator.FaultLatency, after, 3, keyAnswered, rowOther)
		late.Delay = simulator.Duration(200 * time.Millisecond)
		all = append(all, late)
	}
	return all
}

// matrixTimeout is the upstream's. It is long enough for a busy machine not to reach it by itself.
const matrixTimeout = 8 * time.Second

// matrix is a world in which each cell is one request of a program: its method, with or without a key, and what befalls it.
type matrix struct {
	*world
	client *http.Client
	urls   []string // of the replicas
	cells  []*cell
	prefix string // of new records' families

	timeout time.Duration // of the upstream

	promises map[string][]string // docs/writes.md, by what happened
	underKey map[string][]string // and by what became of the first request under a key
}

var matrixMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// Each method meets each fault, with and without a key, through one process and through three: what becomes of it is what
// docs/writes.md says, and FreeAgent acts on no write twice.
func TestWritesMatrix(t *testing.T) {
	t.Parallel()
	for name, replicas := range map[string]int{"one process": 1, "three replicas": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t, replicas)
			for _, affliction := range afflictions() {
				for _, method := range matrixMethods {
					m.add(affliction, method, false)
					m.add(affliction, method, true)
				}
			}
			m.run()
		})
	}
}

// newMatrix makes a world with accounts for those cells that need one of their own. FreeAgent offers HTTP/2.
func newMatrix(t *testing.T, replicas int) *matrix {
	t.Helper()
	sim := simulator.New(matrixSwitches)
	server, err := sim.StartTLS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	m := prepareMatrix(t, sim, server.URL())
	root := filepath.Join(m.folder, "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Root().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	m.env = append(m.env, "SSL_CERT_FILE="+root)
	m.open(replicas)
	return m
}

var matrixSwitches = simulator.Config{Enforcement: simulator.EnforceOff, AllowPatch: true, RequestLog: 20_000}

// prepareMatrix is newMatrix without its processes.
func prepareMatrix(t *testing.T, sim *simulator.Simulator, url string) *matrix {
	m := &matrix{
		world:    newWorld(t, sim, url, ""),
		timeout:  matrixTimeout,
		promises: docTable(t, "what happened", "GET, HEAD", "POST, PUT, PATCH, DELETE"),
		underKey: docTable(t, "the first request under this key", "the same request again gets", "what to do"),
	}
	m.client = m.world.client(false)
	m.client.Transport.(*http.Transport).DisableKeepAlives = true // Go's client sends some requests again on a new connection
	return m
}

// open starts the replicas: one with a folder, or several with a Redis, which it returns.
func (m *matrix) open(replicas int) *redistest.Server {
	m.t.Helper()
	accounts := []string{account + ": {app: main, default: true}"}
	for i := range aloneAccounts {
		accounts = append(accounts, aloneAccount(i)+": {app: main}")
	}
	m.accounts = strings.Join(accounts, ", ")
	upstream := fmt.Sprintf("%s, timeout: %s", m.simURL, m.timeout)
	users := map[string]string{account: "owner"}
	for i := range aloneAccounts {
		users[aloneAccount(i)] = aloneAccount(i)
	}
	var server *redistest.Server
	if replicas == 1 {
		m.configure(upstream, "listen: 127.0.0.1:0\nstore: {file: store}\n"+noLimits)
		store, err := tokens.OpenFile(tokens.FileConfig{Dir: filepath.Join(m.folder, "store")})
		m.grant(store, err, users)
	} else {
		server = redistest.Start(m.t, redistest.Persistent())
		m.share(upstream, server, noLimits, users)
	}
	for range replicas {
		_, url := m.serve()
		m.urls = append(m.urls, url)
	}
	return server
}

// aloneAccounts are as many as there are cells whose affliction befalls an account.
const aloneAccounts = 24

func aloneAccount(i int) string { return fmt.Sprint("alone-", i) }

// share writes the configuration for replicas that share a Redis, and stores authorisations there: users by their accounts.
func (w *world) share(upstream string, server *redistest.Server, settings string, users map[string]string) {
	w.t.Helper()
	secret := tokens.NewKey()
	w.env = append(w.env, "FREEAGENT_PROXY_KEY="+secret)
	w.configure(upstream, fmt.Sprintf("listen: 127.0.0.1:0\nstore: {redis: {url: \"redis://%s\"}}\nencryption: {keys: [{id: tests, env: FREEAGENT_PROXY_KEY}]}\n%s",
		server.Addr(), settings))
	o := server.Options()
	o.ContextTimeoutEnabled = true
	w.grantShared(redis.NewClient(o), secret, users)
}

// grantShared is grant for a Redis. It closes the client.
func (w *world) grantShared(client redis.UniversalClient, secret string, users map[string]string) {
	w.t.Helper()
	defer client.Close()
	key, err := tokens.ParseKey("tests", secret)
	if err != nil {
		w.t.Fatal(err)
	}
	store, err := tokens.NewRedis(tokens.RedisConfig{Client: client, Keys: []tokens.Key{key}})
	w.grant(store, err, users)
}

// grant stores authorisations whose tokens are some minutes old, so that they are renewed as soon as they are refused.
func (w *world) grant(store tokens.Store, err error, users map[string]string) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	for account, user := range users {
		err := store.Save(w.t.Context(), tokens.Grant{
			Account: account, AccessToken: w.sim.AccessToken(user), RefreshToken: w.sim.Authorize(user),
			ObtainedAt: now.Add(-10 * time.Minute), ExpiresAt: now.Add(50 * time.Minute), RefreshObtained: now.Add(-10 * time.Minute), Version: now.UnixMilli(),
		}, 0)
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// add makes a cell of the matrix.
func (m *matrix) add(affliction affliction, method string, keyed bool) {
	c := &cell{matrix: m, affliction: affliction, method: method, keyed: keyed, nth: len(m.cells), account: account}
	if affliction.alone {
		alone := 0
		for _, other := range m.cells {
			if other.alone {
				alone++
			}
		}
		c.account = aloneAccount(alone)
	}
	m.cells = append(m.cells, c)
}

// run lets the cells happen, those that stall beside the others, and then judges.
func (m *matrix) run() {
	m.seed()
	var running sync.WaitGroup
	atATime := make(chan struct{}, 16) // few, so that none of them waits long for the machine
	for _, c := range m.cells {
		running.Go(func() {
			if c.Kind != simulator.FaultStall {
				atATime <- struct{}{}
				defer func() { <-atATime }()
			}
			c.run()
		})
	}
	running.Wait()
	m.judge()
}

// judge compares what became of all cells with the tables.
func (m *matrix) judge() {
	m.t.Helper()
	arrived := map[string][]simulator.Request{}
	for _, r := range m.sim.Requests(0) {
		what := r.Method + " " + r.Target
		arrived[what] = append(arrived[what], r)
		if r.Proto != "HTTP/1.1" && !strings.HasPrefix(r.Target, "/v2/token_endpoint") {
			m.t.Errorf("%s came by %s", what, r.Proto)
		}
	}
	for _, c := range m.cells {
		c.judge(arrived[c.method+" "+c.path])
	}
	if stats := m.sim.Stats().Writes; stats.Duplicates != 0 || stats.Repeated != 0 {
		m.t.Errorf("FreeAgent acted on %d POSTs twice, and got %d again: %v", stats.Duplicates, stats.Repeated, stats.Examples)
	}
}

// seed makes the records that cells read, change and delete, and gives each cell a path of its own.
func (m *matrix) seed() {
	m.t.Helper()
	need := map[string][]*cell{}
	for _, c := range m.cells {
		if c.path = fmt.Sprintf("/v2/m%s%dx", m.prefix, c.nth); c.method != "POST" {
			need[c.user()] = append(need[c.user()], c)
		}
	}
	for user, cells := range need {
		if err := m.sim.Seed(user, "", "things", len(cells)); err != nil {
			m.t.Fatal(err)
		}
		paths := m.list(user)
		for i, c := range cells {
			c.path = paths[len(paths)-len(cells)+i]
		}
	}
}

// list is the paths of a user's things, as FreeAgent itself tells them.
func (m *matrix) list(user string) (paths []string) {
	m.t.Helper()
	token := m.sim.AccessToken(user)
	for page := 1; ; page++ {
		r, answer := httptest.NewRequest("GET", fmt.Sprintf("/v2/things?per_page=100&page=%d", page), nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+token)
		m.sim.ServeHTTP(answer, r)
		var got struct{ Things []struct{ URL string } }
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
			m.t.Fatal(err)
		}
		if len(got.Things) == 0 {
			return paths
		}
		for _, thing := range got.Things {
			paths = append(paths, thing.URL[strings.Index(thing.URL, "/v2/"):])
		}
	}
}
