package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/porttest"
	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// Where FreeAgent cannot be reached nothing is sent, each client is told so, and a key stays free.
func TestWritesUnreachable(t *testing.T) {
	t.Parallel()
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		address := porttest.Address(t)
		m := newUnreachable(t, "http://"+address, rowUnsent)
		m.refused()
		running, err := m.sim.Start(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { running.Close() })
		for _, c := range m.cells {
			switch got := c.send(0); {
			case got.status/100 != 2 || got.replayed:
				t.Errorf("%s: it was not sent when FreeAgent was back: %+v", c, got)
			case c.isKeyed():
				if again := c.send(0); !again.replayed || again.status != got.status {
					t.Errorf("%s: the same again: %+v", c, again)
				}
			}
		}
		m.acts(2) // with and without a key
	})
	t.Run("no handshake", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close() // which accepts connections, and nothing else
		newUnreachable(t, "https://"+listener.Addr().String(), rowNoWay).refused()
	})
}

// newUnreachable makes a world whose FreeAgent is not at the URL; its cells are all methods.
func newUnreachable(t *testing.T, url, row string) *matrix {
	t.Helper()
	m := prepareMatrix(t, simulator.New(matrixSwitches), url)
	m.timeout = 2 * time.Second
	for _, method := range matrixMethods {
		m.add(affliction{rows: []string{row}, keys: []string{keyFree}}, method, false)
		m.add(affliction{rows: []string{row}, keys: []string{keyFree}}, method, true)
	}
	m.open(1)
	m.seed()
	return m
}

// refused expects of all cells, twice, what the table says of a request that cannot leave.
func (m *matrix) refused() {
	m.t.Helper()
	var running sync.WaitGroup
	for _, c := range m.cells {
		running.Go(func() {
			p := c.applies()[0]
			for range 2 { // a key is no reason to be told anything else
				got := c.send(0)
				if got.status != p.status || !strings.Contains(got.proxyStatus, p.says) || c.method != "HEAD" && !strings.Contains(got.body, p.says) {
					m.t.Errorf("%s: %+v, want %+v", c, got, p)
				}
			}
		})
	}
	running.Wait()
}

// Redis is lost while writes are at FreeAgent, some of which it acts on without an answer: each is told what the tables say,
// and acted on once. While Redis is away those with a key are refused, others go on; when it is back each key gives its
// outcome, at every replica.
func TestWritesWhileRedisIsLost(t *testing.T) {
	t.Parallel()
	sim := simulator.New(matrixSwitches)
	running, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	m := prepareMatrix(t, sim, running.URL())
	server := m.open(3)
	for _, way := range []struct {
		name       string
		lose, back func()
	}{
		{"killed", server.Kill, server.Restart},
		{"hung", server.Stop, server.Cont},
		{"stopped", func() { shutDownRedis(t, server) }, server.Restart},
	} {
		m.cells, m.prefix = nil, way.name
		for _, affliction := range []affliction{
			{rows: []string{rowOther}, keys: []string{keyAnswered}},
			{Fault: simulator.Fault{Kind: simulator.FaultDrop, After: true}, times: 3, rows: []string{rowBroke}, keys: []string{keyUnknown}},
		} {
			for _, method := range matrixMethods {
				m.add(affliction, method, false)
				m.add(affliction, method, true)
			}
		}
		m.loseRedis(way.lose, way.back)
	}
}

func shutDownRedis(t *testing.T, server *redistest.Server) {
	t.Helper()
	if err := syscall.Kill(server.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	server.Ended()
}

// loseRedis is the life of the cells through one loss.
func (m *matrix) loseRedis(lose, back func()) {
	m.t.Helper()
	m.seed()
	m.world.fault(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(time.Second), Match: simulator.Match{Times: len(m.cells)}})
	var sending sync.WaitGroup
	for _, c := range m.cells {
		c.arm()
		sending.Go(func() { c.told = append(c.told, c.send(c.nth)) })
	}
	eventually(m.t, "all at FreeAgent", func() bool { // each of them: a read that it drops comes again
		arrived := map[string]bool{}
		for _, r := range m.sim.Requests(0) {
			arrived[r.Method+" "+r.Target] = true
		}
		return !slices.ContainsFunc(m.cells, func(c *cell) bool { return !arrived[c.method+" "+c.path] })
	})
	lose()
	sending.Wait()
	for _, c := range m.cells {
		if c.isKeyed() { // this replica knows
			c.told = append(c.told, c.send(c.nth))
		}
	}
	m.whileAway()
	back()
	for _, c := range m.cells {
		for replica := range m.urls {
			if !c.isKeyed() {
				continue
			}
			var again told
			eventually(m.t, "Redis is back, and has the outcome", func() bool { again = c.send(replica); return again.retryAfter == "" })
			c.told = append(c.told, again)
		}
	}
	m.judge()
}

// whileAway sends new writes, all at a time, and the keyed ones to replicas that do not know their outcomes.
func (m *matrix) whileAway() {
	m.t.Helper()
	var sending sync.WaitGroup
	for _, c := range m.cells {
		for replica := range m.urls {
			sending.Go(func() {
				fresh := *c
				fresh.path, fresh.method = fmt.Sprintf("/v2/n%s%dx%dx", m.prefix, c.nth, replica), "POST"
				fresh.nth = 1000 + 10*c.nth + replica
				got := fresh.send(replica)
				if c.keyed != (got.status == http.StatusServiceUnavailable) || !c.keyed && got.status != http.StatusCreated ||
					c.keyed && (!strings.Contains(got.body, "nothing was sent") || got.retryAfter == "") {
					m.t.Errorf("%s, %s: new while it is away: %+v", m.prefix, c, got)
				}
				if c.isKeyed() && replica != c.nth%len(m.urls) {
					if again := c.send(replica); again.status != http.StatusServiceUnavailable {
						m.t.Errorf("%s, %s: the same again elsewhere while it is away: %+v", m.prefix, c, again)
					}
				}
			})
		}
	}
	sending.Wait()
}

// A kept-alive connection is reset while nobody can notice, and then a write is sent on it: not a byte leaves, so it is sent
// again, and arrives once.
func TestWritesMeetIdleReset(t *testing.T) {
	t.Parallel()
	sim := simulator.New(matrixSwitches)
	server := httptest.NewUnstartedServer(sim)
	kept := &keeping{Listener: server.Listener}
	server.Listener = kept
	server.Start()
	t.Cleanup(server.Close)
	m := prepareMatrix(t, sim, server.URL)
	m.configure(m.simURL, "listen: 127.0.0.1:0\nstore: {file: store}\n"+noLimits)
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: filepath.Join(m.folder, "store")})
	m.grant(store, err, map[string]string{account: "owner"})
	p, url := m.serve()
	m.urls = []string{url}
	for _, method := range matrixMethods {
		m.add(affliction{rows: []string{rowUnsent}, keys: []string{keyAnswered}}, method, false)
		m.add(affliction{rows: []string{rowUnsent}, keys: []string{keyAnswered}}, method, true)
	}
	m.seed()
	for _, c := range m.cells {
		warm := cell{matrix: m, method: "GET", account: account, path: "/v2/company"}
		if got := warm.send(0); got.status != 200 {
			t.Fatalf("warming up: %+v", got)
		}
		p.halt(t)
		answer := make(chan told, 1)
		go func() { answer <- c.send(0) }()
		kept.reset()
		if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if got := <-answer; got.status/100 != 2 {
			t.Errorf("%s: %+v", c, got)
		}
	}
	for _, c := range m.cells {
		n := 0
		for _, r := range m.sim.Requests(0) {
			if r.Method == c.method && r.Target == c.path {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: it arrived %d times", c, n)
		}
	}
}

// keeping is a listener that can reset all connections that it has accepted.
type keeping struct {
	net.Listener
	mu   sync.Mutex
	open []net.Conn
}

func (k *keeping) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if err == nil {
		k.mu.Lock()
		k.open = append(k.open, conn)
		k.mu.Unlock()
	}
	return conn, err
}

func (k *keeping) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range k.open {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	k.open = nil
}

// Each row of docs/writes.md that can be tested is.
func TestEveryPromiseIsTested(t *testing.T) {
	tested := map[string]bool{rowUnsent: true, rowNoWay: true, rowCutKey: true, keyFree: true, keyRunning: true}
	for _, affliction := range afflictions() {
		for _, row := range append(affliction.rows, affliction.keys...) {
			tested[row] = true
		}
	}
	for _, table := range []map[string][]string{
		docTable(t, "what happened", "GET, HEAD", "POST, PUT, PATCH, DELETE"),
		docTable(t, "the first request under this key", "the same request again gets", "what to do"),
	} {
		for row := range table {
			if !tested[row] {
				t.Errorf("docs/writes.md says %q, which no test lets happen", row)
			}
			delete(tested, row)
		}
	}
	for row := range tested {
		t.Errorf("docs/writes.md does not say %q", row)
	}
}
