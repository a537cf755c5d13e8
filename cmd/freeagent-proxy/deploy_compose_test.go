package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/porttest"
	"freeagent-proxy/internal/redistest"
)

const composeFolder = "../../deploy/compose/"

// composeFile is what tests read of compose.yaml. The whole of it is held to Compose's own schema in internal/deploy.
type composeFile struct {
	Services map[string]struct {
		Command     []string
		Secrets     []string
		Healthcheck struct{ Test any }
	}
}

func readCompose(t *testing.T) (c composeFile) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readText(t, composeFolder+"compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// composed is what deploy/compose starts, as processes of this machine: its secrets, its Redis, two replicas with its
// configuration, and its balancer. What is another there is where everybody listens, and which FreeAgent it is.
type composed struct {
	*world
	redis    *redistest.Server
	replicas []*process
	url      string // the balancer's
}

const composeKey = mark + "-key-of-billing"

func newComposed(t *testing.T) *composed {
	t.Helper()
	c := &composed{world: newSimulated(t, simNoLimits, "")}
	c.makeSecrets()
	c.redis = redistest.Start(t, c.redisOptions()...)
	digest := sha256.Sum256([]byte(composeKey))
	config := replaced(t, readText(t, composeFolder+"proxy/config.yaml"), map[string]string{
		"/run/secrets/":           filepath.Join(c.folder, "secrets") + "/",
		"redis:6379":              c.redis.Addr(),
		"0.0.0.0:8080":            "127.0.0.1:0",
		"0.0.0.0:8081":            "127.0.0.1:0",
		strings.Repeat("00", 32):  hex.EncodeToString(digest[:]),
		"accounts:\n  acme: {app": "upstream: {base_url: '" + c.simURL + "'}\n" + noLimits + "accounts:\n  acme: {app",
	})
	c.world.write("config.yaml", []byte(config))
	var backends []string
	for range 2 {
		p := c.start("serve")
		addresses, err := p.listening()
		if err != nil {
			t.Fatal(err)
		}
		_, admin, _ := net.SplitHostPort(addresses[1])
		backends = append(backends, fmt.Sprintf("server r%d %s port %s", len(backends), addresses[0], admin))
		c.replicas = append(c.replicas, p)
	}
	c.balance(backends)
	return c
}

// makeSecrets runs make-secrets twice: what is there stays.
func (c *composed) makeSecrets() {
	c.t.Helper()
	script := filepath.Join(c.folder, "make-secrets")
	if err := os.WriteFile(script, []byte(readText(c.t, composeFolder+"make-secrets")), 0o700); err != nil {
		c.t.Fatal(err)
	}
	var before string
	for _, stdin := range []string{clientSecret + "\n", ""} {
		cmd := exec.Command(script)
		cmd.Env, cmd.Stdin = c.env, strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), mark) {
			c.t.Fatalf("make-secrets: %v\n%s", err, out)
		}
		var all strings.Builder
		for _, name := range []string{"client-secret", "encryption-key", "redis-password", "redis-users", "admin-password"} {
			all.WriteString(readText(c.t, filepath.Join(c.folder, "secrets", name)))
		}
		if before != "" && all.String() != before {
			c.t.Error("run again, make-secrets changes what is there")
		}
		before = all.String()
	}
	if info, err := os.Stat(filepath.Join(c.folder, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		c.t.Errorf("secrets: %v, %v; want mode 0700", info.Mode(), err)
	}
}

// redisOptions are the settings that compose.yaml gives Redis on its command line, but for its folder.
func (c *composed) redisOptions() (options []redistest.Option) {
	c.t.Helper()
	command := readCompose(c.t).Services["redis"].Command
	for i := 1; i+1 < len(command); i += 2 {
		name, value := strings.TrimPrefix(command[i], "--"), command[i+1]
		if name == "dir" || value == "" {
			continue
		}
		options = append(options, redistest.Set(name, strings.ReplaceAll(value, "/run/secrets", filepath.Join(c.folder, "secrets"))))
	}
	return options
}

// balance runs HAProxy with the replicas in place of those that Docker's DNS would name.
func (c *composed) balance(backends []string) {
	c.t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy")
	}
	if err != nil {
		c.t.Fatalf("%v; install it: apt-get install haproxy", err)
	}
	address := porttest.Address(c.t)
	config := replaced(c.t, readText(c.t, composeFolder+"haproxy.cfg"), map[string]string{
		"bind :8080":                         "bind " + address,
		"server-template proxy 4 proxy:8080": strings.Join(backends, "\n    "),
	})
	c.world.write("haproxy.cfg", []byte(config))
	cmd := exec.Command(program, "-db", "-f", filepath.Join(c.folder, "haproxy.cfg"))
	var log transcript
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if c.t.Failed() {
			c.t.Logf("haproxy: %s", &log)
		}
	})
	c.url = "http://" + address
}

// replaced replaces each of the texts, which must be there.
func replaced(t *testing.T, text string, by map[string]string) string {
	t.Helper()
	for old, with := range by {
		if !strings.Contains(text, old) {
			t.Fatalf("there is no %q in\n%s", old, text)
		}
		text = strings.ReplaceAll(text, old, with)
	}
	return text
}

// get asks through the balancer for the company.
func (c *composed) get() (status int, body string) {
	req, err := http.NewRequest(http.MethodGet, c.url+"/v2/company", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", composeKey)
	resp, err := oneShot.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// until asks until it gets that answer.
func (c *composed) until(status int, part string) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, body := c.get()
		if got == status && strings.Contains(body, part) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("got %d %s, want %d with %q", got, body, status, part)
		}
	}
}

// TestComposed: what deploy/compose describes works, from its secrets to its balancer.
func TestComposed(t *testing.T) {
	t.Parallel()
	c := newComposed(t)
	// No replica is ready, so one that lives says why.
	c.until(http.StatusServiceUnavailable, "this account was never authorised at FreeAgent")
	c.imported()
	stdout := c.expect(exitOK, "", checkOnline, `^redis \S+: fine`, `^store: fine`, `^account acme: fine`)
	if strings.Contains(stdout, "warning") {
		t.Errorf("Redis is not as it should be:\n%s", stdout)
	}
	c.until(http.StatusOK, "company")
	c.checkHealthUser()

	if code, err := c.replicas[0].stop(os.Interrupt); err != nil || code != exitOK {
		t.Fatal(code, err)
	}
	for range 10 {
		if status, body := c.get(); status != http.StatusOK {
			t.Errorf("one replica is left: got %d %s", status, body)
		}
	}
	if code, err := c.replicas[1].stop(os.Interrupt); err != nil || code != exitOK {
		t.Fatal(code, err)
	}
	c.until(http.StatusServiceUnavailable, "")
}

// checkHealthUser: Redis's health check in compose.yaml may ask whether Redis lives, and nothing else.
func (c *composed) checkHealthUser() {
	c.t.Helper()
	if check := fmt.Sprint(readCompose(c.t).Services["redis"].Healthcheck.Test); !strings.Contains(check, "--user health --pass any ") {
		c.t.Errorf("Redis's health check is %s", check)
	}
	health := redis.NewClient(&redis.Options{Addr: c.redis.Addr(), Username: "health", Password: "any"})
	defer health.Close()
	if err := health.Ping(c.t.Context()).Err(); err != nil {
		c.t.Error(err)
	}
	if err := health.Exists(c.t.Context(), "fap:v1:{acme}:grant").Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		c.t.Errorf("who asks for Redis's health may also read: %v", err)
	}
}
