package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"freeagent-proxy/internal/porttest"
	"freeagent-proxy/internal/simulator"
)

// The commands of the scripts in testdata, beside testscript's own:
//
//	simulator [SWITCHES]       runs a FreeAgent as long as the script; sets $SIM
//	expand FILE…               replaces $VARIABLES in files
//	occupy ADDRESS             sees to it that somebody listens there as long as the script runs
//	freeport NAME              sets $NAME to a port on which nobody listens but who is told it
//	grant FILE                 writes a new refresh token of FreeAgent's; sets $GRANT to it
//	run ARG… [<FILE]           runs the program to its end; it must exit with 0, after ! with 1
//	misuse ARG…                runs it to its end; it must exit with 2
//	start NAME ARG…            runs it in the background
//	serve NAME ARG…            runs `serve ARG…` in the background until it listens; sets $PROXY and $ADMIN
//	printed NAME PATTERN       waits until it has printed that; sets $FOUND to the pattern's first group
//	approve NAME [deny]        presses the button on the page that it has printed; sets $REDIRECT to where that leads, $CODE, and
//	                           $ENCODED to the code with every byte percent-encoded
//	type NAME TEXT             gives it a line of standard input
//	finish NAME                waits for its end; it must exit with 0, after ! with 1
//	end NAME [SIGNAL]          sends it SIGTERM, or another signal, then as finish
//	sigkill NAME               ends it by SIGKILL
//	await STATUS URL           asks until that is the answer's status
//	received N PATH            waits until N requests for a path have reached FreeAgent
//
// Those that end a process, and await, leave what it printed for stdout and stderr.
var scriptCommands = map[string]func(*scene, bool, []string){
	"simulator": (*scene).simulator,
	"expand":    (*scene).expand,
	"occupy":    (*scene).occupy,
	"freeport":  (*scene).freePort,
	"grant":     (*scene).grant,
	"run":       (*scene).run,
	"misuse":    (*scene).misuse,
	"start":     (*scene).start,
	"serve":     (*scene).serve,
	"printed":   (*scene).printed,
	"approve":   (*scene).approve,
	"type":      (*scene).typeLine,
	"finish":    (*scene).finish,
	"end":       (*scene).end,
	"sigkill":   (*scene).sigkill,
	"await":     (*scene).await,
	"received":  (*scene).received,
}

// passed are the variables that scripts may set for the program.
var passed = []string{
	roleVariable, "PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "STATE_DIRECTORY", configVariable,
	"FREEAGENT_CLIENT_ID", "FREEAGENT_CLIENT_SECRET", "FREEAGENT_REFRESH_TOKEN", "FREEAGENT_BASE_URL", "FREEAGENT_PROXY_KEY",
}

// scene is what one script works with.
type scene struct {
	*testscript.TestScript
	t         testing.TB
	sim       *simulator.Simulator
	processes map[string]*process
}

type sceneKey struct{}

// oneShot leaves no connections behind, and follows no redirects.
var oneShot = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func TestScripts(t *testing.T) {
	t.Parallel()
	play(t, "testdata")
}

// Those that want the ports that serve has by default.
func TestScriptsAlone(t *testing.T) { play(t, "testdata/alone") }

func play(t *testing.T, folder string) {
	commands := make(map[string]func(*testscript.TestScript, bool, []string))
	for name, do := range scriptCommands {
		commands[name] = func(ts *testscript.TestScript, not bool, args []string) {
			s := ts.Value(sceneKey{}).(*scene)
			s.TestScript = ts
			do(s, not, args)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                folder,
		RequireUniqueNames: true,
		Cmds:               commands,
		Condition:          conditions(),
		Setup: func(e *testscript.Env) error {
			e.Values[sceneKey{}] = &scene{t: e.T().(testing.TB), processes: map[string]*process{}}
			e.Setenv(roleVariable, roleProgram)
			e.Setenv("FREEAGENT_CLIENT_SECRET", clientSecret)
			return nil
		},
	})
}

// conditions are [usual-ports]: nobody used them when that was first asked.
func conditions() func(string) (bool, error) {
	usualPorts := sync.OnceValue(func() bool { return isFree("127.0.0.1:8080") && isFree("127.0.0.1:8081") })
	return func(name string) (bool, error) {
		if name != "usual-ports" {
			return false, fmt.Errorf("unknown condition %q", name)
		}
		return usualPorts(), nil
	}
}

func isFree(address string) bool {
	listener, err := net.Listen("tcp", address)
	return err == nil && listener.Close() == nil
}

func (s *scene) simulator(_ bool, args []string) {
	s.sim = simulator.New(simulator.Config{})
	running, err := s.sim.Start("127.0.0.1:0")
	s.Check(err)
	s.t.Cleanup(func() { running.Close() })
	s.Setenv("SIM", running.URL())
	if len(args) == 1 {
		resp, err := oneShot.Post(running.URL()+"/_sim/config", "application/json", strings.NewReader(args[0]))
		s.Check(err)
		s.expectStatus(resp, http.StatusOK)
	}
}

func (s *scene) expectStatus(resp *http.Response, want int) {
	defer resp.Body.Close()
	if resp.StatusCode != want {
		body, _ := io.ReadAll(resp.Body)
		s.Fatalf("%s: status %d, want %d: %s", resp.Request.URL, resp.StatusCode, want, body)
	}
}

func (s *scene) expand(_ bool, files []string) {
	for _, file := range files {
		s.Check(os.WriteFile(s.MkAbs(file), []byte(os.Expand(s.ReadFile(file), s.Getenv)), 0o600))
	}
}

func (s *scene) occupy(_ bool, args []string) {
	if listener, err := net.Listen("tcp", args[0]); err == nil { // else somebody else does
		s.t.Cleanup(func() { listener.Close() })
	}
}

func (s *scene) freePort(_ bool, args []string) {
	_, port, err := net.SplitHostPort(porttest.Address(s.t))
	s.Check(err)
	s.Setenv(args[0], port)
}

func (s *scene) grant(_ bool, args []string) {
	refreshToken := s.sim.Authorize("owner")
	s.Check(os.WriteFile(s.MkAbs(args[0]), []byte(refreshToken+"\n"), 0o600))
	s.Setenv("GRANT", refreshToken)
}

func (s *scene) run(not bool, args []string) {
	want := exitOK
	if not {
		want = exitFailed
	}
	s.complete(want, args)
}

func (s *scene) misuse(_ bool, args []string) { s.complete(exitUsage, args) }

func (s *scene) complete(want int, args []string) {
	stdin := ""
	if n := len(args) - 1; n >= 0 && strings.HasPrefix(args[n], "<") {
		args, stdin = args[:n], s.ReadFile(args[n][1:])
	}
	p := s.launch(args)
	_, _ = io.WriteString(p.stdin, stdin) // not everyone reads it
	p.stdin.Close()
	s.ended(p, want)
}

func (s *scene) launch(args []string) *process {
	var env []string
	for _, name := range passed {
		if value := s.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	p := start(s.t, s.MkAbs("."), env, args...)
	s.Defer(p.kill) // before the script's folder is removed
	return p
}

// ended waits for the end of a process and shows what it has printed.
func (s *scene) ended(p *process, want int) {
	code, err := p.wait()
	s.Check(err)
	fmt.Fprint(s.Stdout(), &p.stdout)
	fmt.Fprint(s.Stderr(), &p.stderr)
	if code != want {
		s.Fatalf("%s: exit code %d, want %d; stdout: %s\nstderr: %s", p, code, want, &p.stdout, &p.stderr)
	}
}

func (s *scene) start(_ bool, args []string) { s.processes[args[0]] = s.launch(args[1:]) }

func (s *scene) serve(_ bool, args []string) {
	p := s.launch(append([]string{"serve"}, args[1:]...))
	s.processes[args[0]] = p
	addresses, err := p.listening()
	s.Check(err)
	s.Setenv("PROXY", "http://"+addresses[0])
	s.Setenv("ADMIN", "http://"+addresses[len(addresses)-1])
}

func (s *scene) process(name string) *process {
	p := s.processes[name]
	if p == nil {
		s.Fatalf("nothing was started as %q", name)
	}
	return p
}

func (s *scene) printed(_ bool, args []string) {
	p := s.process(args[0])
	found, err := p.printed(args[1])
	s.Check(err)
	if len(found) > 1 {
		s.Setenv("FOUND", found[1])
	}
}

// hidden are the fields of the simulator's approve page.
var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

func (s *scene) approve(_ bool, args []string) {
	found, err := s.process(args[0]).printed(`(?m)^(http\S+/v2/approve_app\S+)$`)
	s.Check(err)
	resp, err := oneShot.Get(found[1])
	s.Check(err)
	page, err := io.ReadAll(resp.Body)
	s.Check(err)
	s.expectStatus(resp, http.StatusOK)
	form := url.Values{"user": {"owner"}, "decision": {"approve"}}
	if len(args) > 1 {
		form.Set("decision", args[1])
	}
	for _, field := range hidden.FindAllStringSubmatch(string(page), -1) {
		form.Set(field[1], field[2])
	}
	resp, err = oneShot.PostForm(s.Getenv("SIM")+"/v2/approve_app/decision", form)
	s.Check(err)
	s.expectStatus(resp, http.StatusFound)
	redirect, err := resp.Location()
	s.Check(err)
	s.Setenv("REDIRECT", redirect.String())
	code := redirect.Query().Get("code")
	s.Setenv("CODE", code)
	s.Setenv("ENCODED", "%"+strings.ReplaceAll(fmt.Sprintf("% x", code), " ", "%"))
}

func (s *scene) typeLine(_ bool, args []string) {
	_, err := io.WriteString(s.process(args[0]).stdin, args[1]+"\n")
	s.Check(err)
}

func (s *scene) finish(not bool, args []string) {
	want := exitOK
	if not {
		want = exitFailed
	}
	s.ended(s.process(args[0]), want)
}

func (s *scene) end(not bool, args []string) {
	signals := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": os.Interrupt}
	name := "TERM"
	if len(args) > 1 {
		name = args[1]
	}
	s.Check(s.process(args[0]).cmd.Process.Signal(signals[name]))
	s.finish(not, args[:1])
}

func (s *scene) sigkill(_ bool, args []string) { s.process(args[0]).kill() }

func (s *scene) await(_ bool, args []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		status, body, err := get(args[1])
		if err == nil && strconv.Itoa(status) == args[0] {
			s.Stdout().Write(body)
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s: status %d, %v, want %s: %s", args[1], status, err, args[0], body)
		}
	}
}

func get(address string) (status int, body []byte, err error) {
	resp, err := oneShot.Get(address)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func (s *scene) received(_ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	s.Check(err)
	arrived := func() int {
		others := func(r simulator.Request) bool { return r.Target != args[1] }
		return len(slices.DeleteFunc(s.sim.Requests(0), others))
	}
	for deadline := time.Now().Add(patience); arrived() != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%d requests for %s reached FreeAgent, want %d", arrived(), args[1], want)
		}
	}
}
