package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// setup is what a stage is built from.
type setup struct {
	folder string
	binary string // freeagent-proxy
	secure bool   // TLS to the upstream
}

// stage is an upstream and both proxies before it.
type stage struct{ upstream, bare, ours *process }

// process is one of them.
type process struct {
	cmd     *exec.Cmd
	address string
}

func build(ctx context.Context, folder string) (string, error) {
	binary := filepath.Join(folder, "freeagent-proxy")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "freeagent-proxy/cmd/freeagent-proxy").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build freeagent-proxy: %w\n%s", err, out)
	}
	return binary, nil
}

func (s setup) start(ctx context.Context) (*stage, error) {
	st := &stage{}
	scheme, cert := "http", ""
	if s.secure {
		var err error
		if cert, err = makeCert(s.folder); err != nil {
			return nil, err
		}
		scheme = "https"
	}
	var err error
	if st.upstream, err = s.startSelf(ctx, "upstream", certVariable+"="+cert); err != nil {
		return nil, err
	}
	base := scheme + "://" + st.upstream.address
	if st.bare, err = s.startSelf(ctx, "bare", upstreamVariable+"="+base, "SSL_CERT_FILE="+cert); err != nil {
		st.stop()
		return nil, err
	}
	if st.ours, err = s.startOurs(ctx, base, cert); err != nil {
		st.stop()
		return nil, err
	}
	return st, nil
}

func (st *stage) stop() {
	for _, p := range []*process{st.ours, st.bare, st.upstream} {
		if p != nil {
			p.stop()
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// startSelf starts this program in another role; it prints its address first.
func (s setup) startSelf(ctx context.Context, role string, env ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", role, err), cmd.Wait())
	}
	return &process{cmd, strings.TrimSpace(line)}, nil
}

// startOurs starts freeagent-proxy as an operator would, with limits out of the way.
func (s setup) startOurs(ctx context.Context, base, cert string) (*process, error) {
	return s.startWith(ctx, base, cert, "")
}

// startWith is startOurs with the Redis at an address; "": with a folder.
func (s setup) startWith(ctx context.Context, base, cert, redis string) (*process, error) {
	store, err := os.MkdirTemp(s.folder, "store-*")
	if err != nil {
		return nil, fmt.Errorf("make a store: %w", err)
	}
	where := fmt.Sprintf("store: {file: %q}", store)
	if redis != "" {
		where = fmt.Sprintf("store: {redis: {url: \"redis://%s\"}}\nencryption: {keys: [{id: bench, env: BENCH_KEY}]}", redis)
	}
	const unlimited = "[{requests: 100000, per: 1s}]"
	config := filepath.Join(store, "config.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:0
admin: {listen: "127.0.0.1:0"}
upstream: {base_url: %q}
%s
apps: {main: {client_id: bench, client_secret_env: BENCH_SECRET}}
accounts: {bench: {app: main}}
limits: {api: %s, egress: %s}
`, base, where, unlimited, unlimited)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	env := append(os.Environ(), "BENCH_SECRET=secret", "SSL_CERT_FILE="+cert, "BENCH_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	seed := exec.CommandContext(ctx, s.binary, "accounts", "import", "bench", "--config", config)
	seed.Env, seed.Stdin = env, strings.NewReader("seed")
	if out, err := seed.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("authorise: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, s.binary, "serve", "--config", config)
	cmd.Env = env
	return startLogging(cmd)
}

// startLogging starts freeagent-proxy and reads its address from its log.
func startLogging(cmd *exec.Cmd) (*process, error) {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start freeagent-proxy: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start freeagent-proxy: %w", err)
	}
	lines := bufio.NewScanner(stderr)
	var said strings.Builder
	for lines.Scan() {
		var entry struct{ Msg, Listen string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "serving programs" {
			go func() { // the access log must go somewhere
				for lines.Scan() {
					continue
				}
			}()
			return &process{cmd, entry.Listen}, waitReady(entry.Listen)
		}
		said.WriteString("\n" + lines.Text())
	}
	return nil, errors.Join(errors.New("freeagent-proxy ended:"+said.String()), cmd.Wait())
}

func waitReady(address string) error {
	for range 100 {
		resp, err := http.Get("http://" + address + "/v2/company")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("freeagent-proxy does not answer")
}

// cpu is what the process has used, over all its threads. The kernel counts nanoseconds per
// thread; a thread that ends takes its count along, but Go's threads do not end.
func (p *process) cpu() (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return 0, errors.New("no CPU accounts in /proc; bench needs Linux")
	}
	var total time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return 0, fmt.Errorf("read CPU accounts: %w", err)
		}
		running, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU accounts: %w", err)
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// memory is the process's resident set, now and at its highest, in MB.
func (p *process) memory() (now, peak float64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch name {
		case "VmRSS":
			now = kb / 1024
		case "VmHWM":
			peak = kb / 1024
		}
	}
	return now, peak
}
