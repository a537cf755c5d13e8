package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// Secrets and certificates may be systemd's credentials.
func TestCredentials(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write(t, filepath.Join(folder, "client-secret"), "s3cret\n")
	write(t, filepath.Join(folder, "grants.key"), tokens.NewKey()+"\n")
	write(t, filepath.Join(folder, "empty"), " \n")
	const config = `
admin: {password_file: 'credential:client-secret'}
apps: {main: {client_id: abc, client_secret_file: 'credential:client-secret'}}
accounts: {acme: {app: main}}
encryption: {keys: [{id: a, file: 'credential:grants.key'}]}
`
	passed := fakeEnv("CREDENTIALS_DIRECTORY=" + folder)
	c, err := fromFile("config.yaml", []byte(config), passed)
	if err != nil {
		t.Fatal(err)
	}
	if c.Apps["main"].ClientSecret.Reveal() != "s3cret" || c.Admin.Password.Reveal() != "s3cret" || len(c.Encryption.Keys[0].Key.Reveal()) != 44 || len(c.Variables) != 0 {
		t.Errorf("got %+v", c)
	}
	for name, want := range map[string]string{
		"absent": "systemd has passed no credential of this name", "../client-secret": "a name without a slash", "": "a name without a slash",
		"..": "a name without a slash", "empty": "is empty",
	} {
		_, err := fromFile("config.yaml", []byte(strings.Replace(config, "credential:client-secret'}}", "credential:"+name+"'}}", 1)), passed)
		if err == nil || !strings.Contains(err.Error(), "apps.main.client_secret_file: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
	_, err = fromFile("config.yaml", []byte("tls: {cert: 'credential:cert', key: 'credential:key'}"+config), passed)
	if err == nil || !strings.Contains(err.Error(), "tls.key: systemd has passed no credential") {
		t.Errorf("got %v, want tls.key among the problems", err)
	}
	if _, err = fromFile("config.yaml", []byte(config), fakeEnv()); err == nil || !strings.Contains(err.Error(), "systemd has passed no credentials to this process") {
		t.Errorf("without any: got %v", err)
	}
}

// Without a file the environment's two secrets may be credentials of their names, and the environment comes first.
func TestCredentialsWithoutFile(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simulator.Config{
		Enforcement: simulator.EnforceOff, Apps: []simulator.App{{ClientID: "tests", ClientSecrets: []string{mark + "-by-credential"}}},
	}, "")
	credentials := filepath.Join(w.folder, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(credentials, "FREEAGENT_CLIENT_SECRET"), mark+"-by-credential\n")
	write(t, filepath.Join(credentials, "FREEAGENT_REFRESH_TOKEN"), w.sim.Authorize("owner"))
	if err := os.Remove(filepath.Join(w.folder, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	env := fakeEnv("CREDENTIALS_DIRECTORY="+credentials, "FREEAGENT_CLIENT_ID=tests", "FREEAGENT_BASE_URL="+w.simURL)
	c, err := fromEnvironment(env)
	if err != nil || c.Apps["default"].ClientSecret.Reveal() != mark+"-by-credential" || len(c.Variables) != 0 {
		t.Fatalf("got %+v, %v", c.Apps, err)
	}
	c.Store.File, c.Admin.Listen, c.Listen = filepath.Join(w.folder, "store"), "127.0.0.1:0", []string{"127.0.0.1:0"}
	s, err := newServer(context.Background(), c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	stop := s.start(context.Background())
	if status, body := call(t, w.client(false), http.MethodGet, "http://"+s.listen[0].Addr().String()+"/v2/company"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	first, err := fromEnvironment(func(name string) string {
		if name == "FREEAGENT_CLIENT_SECRET" {
			return "of the environment"
		}
		return env(name)
	})
	if err != nil || first.Apps["default"].ClientSecret.Reveal() != "of the environment" {
		t.Errorf("got %+v, %v, want the environment's", first.Apps, err)
	}
	write(t, filepath.Join(credentials, "FREEAGENT_CLIENT_SECRET"), "")
	_, err = fromEnvironment(env)
	wantProblems(t, err, "FREEAGENT_CLIENT_SECRET: the file that this names is empty")
}

// A secret's file that others may read is noted, its group only where it need not.
func TestSecretReaders(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "s3cret\n")
	for mode, want := range map[os.FileMode]string{0o600: "", 0o400: "", 0o640: "every member of its group", 0o644: "every user of this machine", 0o604: "every user of this machine"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		secret, readers, err := secretFromFile(path)
		if err != nil || readers != want || secret.Reveal() != "s3cret" {
			t.Errorf("%s: got %q, %v, want %q", mode, readers, err, want)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		return
	}
	if err := os.Chown(path, 65532, 0); err != nil { // as when root owns it, and the program's group may read it
		t.Fatal(err)
	}
	if _, readers, err := secretFromFile(path); err != nil || readers != "" {
		t.Errorf("another user's file: got %q, %v, want no word", readers, err)
	}
}
