//go:build image

package build_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	// archive is what `make image` leaves.
	archive = root + "/bin/image.tar"
	// imageUser is the user and group of the image: any but root would do, this one is customary.
	imageUser  = 65532
	imageState = "/var/lib/freeagent-proxy"
)

// An image is a built image, unpacked.
type image struct {
	root   string // a folder with its files
	config imageConfig
}

// imageConfig is what the image says about itself, in Docker's words.
type imageConfig struct {
	User, WorkingDir     string
	Env, Entrypoint, Cmd []string
	Healthcheck          struct{ Test []string }
	Volumes              map[string]struct{}
	Labels               map[string]string
}

// The image is what users of Docker get, so that it is tried as they would: its binary runs as its user, within its
// files only.
func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to enter the image as its user: sudo make image-test")
	}
	i := unpack(t)
	t.Run("says how it is run", i.testConfig)
	t.Run("holds no more than it needs", i.testFiles)
	t.Run("binary runs alone", i.testBinary)
	t.Run("serves as its user", i.testServe)
}

func (i image) testConfig(t *testing.T) {
	c := i.config
	for _, f := range []struct{ name, got, want string }{
		{"user", c.User, fmt.Sprintf("%d:%[1]d", imageUser)},
		{"command", fmt.Sprint(c.Entrypoint, c.Cmd), "[/freeagent-proxy] [serve]"},
		{"health check", fmt.Sprint(c.Healthcheck.Test), "[CMD /freeagent-proxy healthcheck]"},
		{"licence", c.Labels["org.opencontainers.image.licenses"], "Apache-2.0"},
	} {
		if f.got != f.want {
			t.Errorf("%s is %s, want %s", f.name, f.got, f.want)
		}
	}
	if _, ok := c.Volumes[imageState]; !ok {
		t.Errorf("volumes are %v, want %s among them", c.Volumes, imageState)
	}
	if want := "STATE_DIRECTORY=" + imageState; !slices.Contains(c.Env, want) {
		t.Errorf("environment is %v, want %s in it", c.Env, want)
	}
}

func (i image) testFiles(t *testing.T) {
	// Mode and owner of each file. /tmp takes the request bodies that do not fit in memory.
	want := map[string]string{
		"etc":                               "drwxr-xr-x 0",
		"etc/freeagent-proxy":               "drwxr-xr-x 0",
		"etc/group":                         "-rw-r--r-- 0",
		"etc/passwd":                        "-rw-r--r-- 0",
		"etc/ssl":                           "drwxr-xr-x 0",
		"etc/ssl/certs":                     "drwxr-xr-x 0",
		"etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0",
		"freeagent-proxy":                   "-rwxr-xr-x 0",
		"tmp":                               "dtrwxrwxrwx 0",
		"var":                               "drwxr-xr-x 0",
		"var/lib":                           "drwxr-xr-x 0",
		"var/lib/freeagent-proxy":           "drwx------ 65532",
	}
	err := fs.WalkDir(os.DirFS(i.root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		got := fmt.Sprint(info.Mode(), " ", info.Sys().(*syscall.Stat_t).Uid)
		if got != want[p] {
			t.Errorf("%s is %q, want %q", p, got, want[p])
		}
		delete(want, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range want {
		t.Errorf("%s is missing", p)
	}
}

func (i image) testBinary(t *testing.T) {
	f, err := elf.Open(filepath.Join(i.root, "freeagent-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary wants %q (%v), want a static one", libraries, err)
	}
	out, err := i.command(t, "version").CombinedOutput()
	if err != nil {
		t.Fatalf("version: %v\n%s", err, out)
	}
	for _, label := range []string{"version", "revision"} {
		want := i.config.Labels["org.opencontainers.image."+label]
		if want == "" || !bytes.Contains(out, []byte(want)) {
			t.Errorf("version prints %q, want the label's %s %q in it", out, label, want)
		}
	}
}

func (i image) testServe(t *testing.T) {
	i.configure(t)
	if out, err := i.command(t, "healthcheck").CombinedOutput(); err == nil {
		t.Fatalf("healthcheck before serve: want exit code 1, got 0\n%s", out)
	}
	var log bytes.Buffer // read once the process has ended
	serve := i.command(t, i.config.Cmd...)
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	healthy := i.awaitHealth(t)
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	err := serve.Wait()
	if !healthy || err != nil {
		t.Fatalf("healthy: %t, end of serve: %v; it logged\n%s", healthy, err, log.String())
	}
	if entries, err := os.ReadDir(filepath.Join(i.root, imageState)); err != nil || len(entries) == 0 {
		t.Errorf("serve left %v (%v) in %s, want its state", entries, err, imageState)
	}
}

// awaitHealth asks the image's own health check until it is content, as a container engine does.
func (i image) awaitHealth(t *testing.T) bool {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if i.command(t, i.config.Healthcheck.Test[2:]...).Run() == nil {
			return true
		}
	}
	return false
}

// configure puts a configuration where a user would mount it. It says nothing of the store: the image's environment does.
func (i image) configure(t *testing.T) {
	t.Helper()
	content := fmt.Sprintf(`listen: 127.0.0.1:%d
admin: {listen: 127.0.0.1:%d}
apps:
  main: {client_id: example, client_secret_env: FREEAGENT_CLIENT_SECRET}
accounts:
  example: {app: main, default: true}
`, freePort(t), freePort(t))
	file := filepath.Join(i.root, i.config.WorkingDir, "config.yaml")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// command is the image's program as a container engine would start it: its files, user, folder and environment.
func (i image) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, i.config.Entrypoint[0], args...)
	cmd.Env = append(slices.Clone(i.config.Env), "FREEAGENT_CLIENT_SECRET=example")
	cmd.Dir = i.config.WorkingDir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     i.root,
		Credential: &syscall.Credential{Uid: imageUser, Gid: imageUser},
	}
	return cmd
}

// unpack reads the archive, whose layout every builder that can save for Docker shares.
func unpack(t *testing.T) image {
	t.Helper()
	saved := t.TempDir()
	extract(t, archive, saved)
	var manifest []struct {
		Config string
		Layers []string
	}
	decode(t, filepath.Join(saved, "manifest.json"), &manifest)
	if len(manifest) != 1 {
		t.Fatalf("%s holds %d images, want 1", archive, len(manifest))
	}
	var about struct{ Config imageConfig }
	decode(t, filepath.Join(saved, manifest[0].Config), &about)

	i := image{root: t.TempDir(), config: about.Config}
	for _, layer := range manifest[0].Layers {
		extract(t, filepath.Join(saved, layer), i.root)
	}
	return i
}

// extract unpacks a tar file, compressed or not, with the owners that it names.
func extract(t *testing.T, file, folder string) {
	t.Helper()
	absolute, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "--extract", "--file", absolute, "--directory", folder, "--numeric-owner", "--same-owner", "--same-permissions")
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// freePort returns a loopback port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
