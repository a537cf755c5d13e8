package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const deployFolder = "../../deploy/"

// secretPath is where a configuration of deploy says a secret is: what passes it to the program chooses the folder.
var secretPath = regexp.MustCompile(`/run/(?:secrets/freeagent-proxy|secrets|credentials/freeagent-proxy\.service)/([a-z-]+)\b`)

// TestDeployConfigs: `check` takes each configuration of deploy, and whatever starts the program there passes the secrets
// that it names, and no others.
func TestDeployConfigs(t *testing.T) {
	t.Parallel()
	find := func(file, pattern string) (names []string) {
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(readText(t, deployFolder+file), -1) {
			names = append(names, found[1])
		}
		return names
	}
	kubernetes := find("kubernetes/README.md", `--from-file=(\S+)`)
	for folder, given := range map[string]struct {
		passed []string
		store  string // written out: commands beside the service do not get its environment
	}{
		"systemd":           {find("systemd/freeagent-proxy.service", `(?m)^LoadCredential=([^:]+):/etc/freeagent-proxy/`), "/var/lib/freeagent-proxy"},
		"compose/proxy":     {readCompose(t).Services["proxy"].Secrets, "Redis"},
		"kubernetes/base":   {kubernetes, "Redis"},
		"kubernetes/single": {slices.DeleteFunc(slices.Clone(kubernetes), func(name string) bool { return name == "redis-password" }), "/var/lib/freeagent-proxy/state"},
	} {
		t.Run(folder, func(t *testing.T) {
			passed := given.passed
			text := readText(t, deployFolder+folder+"/config.yaml")
			w := &world{t: t, folder: t.TempDir(), env: []string{"HOME=" + t.TempDir()}}
			var named []string
			for _, found := range secretPath.FindAllStringSubmatch(text, -1) {
				named = append(named, found[1])
				secret := strings.Repeat("A", 43) + "=" // does for a key and for a password
				if err := os.WriteFile(filepath.Join(w.folder, found[1]), []byte(secret), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(named)
			if slices.Sort(passed); !slices.Equal(named, passed) {
				t.Errorf("it names the secrets %q, and gets %q", named, passed)
			}
			text = secretPath.ReplaceAllString(text, w.folder+"/$1")
			if err := os.WriteFile(filepath.Join(w.folder, "config.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			stdout := w.expect(exitOK, "", []string{"check"}, `^configuration: fine \(accounts: 1, upstream: https://api\.freeagent\.com, store: `+given.store+`\)$`)
			if strings.Contains(stdout, "note:") {
				t.Errorf("check has something to note:\n%s", stdout)
			}
		})
	}
}

// TestDeployGivesTimeToDrain: nobody kills the program while it finishes what it sent to FreeAgent.
func TestDeployGivesTimeToDrain(t *testing.T) {
	t.Parallel()
	// What drain may take: the longest upstream call, its margin, and another one for what became of writes.
	longest := defaultConfig(fakeEnv()).Upstream.Timeout + 2*drainMargin
	number := func(file, pattern string) time.Duration {
		found := regexp.MustCompile(pattern).FindStringSubmatch(readText(t, deployFolder+file))
		if found == nil {
			t.Fatalf("%s has no %s", file, pattern)
		}
		seconds, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(seconds) * time.Second
	}
	deployment := "kubernetes/base/deployment.yaml"
	before := number(deployment, `preStop: \{sleep: \{seconds: (\d+)\}\}`)
	for file, grace := range map[string]time.Duration{
		"systemd/freeagent-proxy.service": number("systemd/freeagent-proxy.service", `(?m)^TimeoutStopSec=(\d+)s$`),
		"compose/compose.yaml":            number("compose/compose.yaml", `stop_grace_period: (\d+)s\n    depends_on:\n      redis`),
		deployment:                        number(deployment, `terminationGracePeriodSeconds: (\d+)\n`) - before,
	} {
		if grace < longest+5*time.Second || grace > longest+30*time.Second {
			t.Errorf("%s kills it after %s; it may take %s", file, grace, longest)
		}
	}
}

// TestDeployProbes: what is asked whether the program is well answers, on the port that the configuration gives it.
func TestDeployProbes(t *testing.T) {
	t.Parallel()
	deployment := readText(t, deployFolder+"kubernetes/base/deployment.yaml")
	for _, folder := range []string{"base", "single"} {
		config := readText(t, deployFolder+"kubernetes/"+folder+"/config.yaml")
		for port, setting := range map[string]string{"http": "\nlisten: 0.0.0.0:", "admin": "\n  listen: 0.0.0.0:"} {
			found := regexp.MustCompile(`\{name: ` + port + `, containerPort: (\d+)\}`).FindStringSubmatch(deployment)
			if found == nil || !strings.Contains(config, setting+found[1]+"\n") {
				t.Errorf("port %s is %q in the Deployment, and another one in %s/config.yaml", port, found, folder)
			}
		}
	}
	w := newSimulated(t, simNoLimits, "")
	p, _ := w.serve()
	addresses, err := p.listening()
	if err != nil {
		t.Fatal(err)
	}
	probes := regexp.MustCompile(`httpGet: \{path: (\S+), port: admin\}`).FindAllStringSubmatch(deployment, -1)
	probes = append(probes, regexp.MustCompile(`http-check send meth GET uri (\S+)`).FindAllStringSubmatch(readText(t, composeFolder+"haproxy.cfg"), -1)...)
	if len(probes) != 5 {
		t.Errorf("got %d probes, want 5", len(probes))
	}
	for _, probe := range probes {
		resp, err := oneShot.Get("http://" + addresses[len(addresses)-1] + probe[1])
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d", probe[1], resp.StatusCode)
		}
	}
}

// TestSystemdUnit: systemd takes the units as they are, and finds the service well confined.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sysusers, err := filepath.Abs(deployFolder + "systemd/freeagent-proxy.sysusers.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	program := map[string]string{"ExecStart=/usr/local/bin/freeagent-proxy ": "ExecStart=" + exe + " "} // systemd wants it to be there
	service, socket := filepath.Join(folder, "freeagent-proxy.service"), filepath.Join(folder, "freeagent-proxy.socket")
	for file, text := range map[string]string{
		service: replaced(t, readText(t, deployFolder+"systemd/freeagent-proxy.service"), program),
		socket:  readText(t, deployFolder+"systemd/freeagent-proxy.socket"),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"systemd-analyze", "verify", "--man=no", service, socket},
		{"systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", service}, // 15 is 1.5 of 10
		{"systemd-sysusers", "--root=" + folder, sysusers},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v (without systemd: apt-get install systemd)\n%s", strings.Join(args, " "), err, out)
		}
		if args[1] == "verify" && len(out) > 0 {
			t.Errorf("verify complains: %s", out)
		}
	}
	made := readText(t, filepath.Join(folder, "etc", "passwd"))
	if !strings.HasPrefix(made, "freeagent-proxy:") || !strings.Contains(readText(t, service), "\nUser=freeagent-proxy\n") {
		t.Errorf("the service's user is not the one that is made: %s", made)
	}
	if want := "RestartPreventExitStatus=" + strconv.Itoa(exitUsage) + "\n"; !strings.Contains(readText(t, service), want) {
		t.Errorf("the unit has no %s", want)
	}
}
