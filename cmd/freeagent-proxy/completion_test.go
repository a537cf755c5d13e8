package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// incomplete is a configuration in a shell without the secrets that it names: its accounts are known all the same.
const incomplete = `apps: {main: {client_id: tests, client_secret_env: UNSET}}
accounts: {acme: {app: main}, "$(touch injected)": {app: main}, other: {app: main}}
clients: {billing: {key_sha256: []}, nightly: {cidrs: [10.1.7.0/24]}}
`

// pressTab has bash complete a command line by the script that the program prints. Of the package bash-completion, which need not be
// installed, the script uses one function.
const pressTab = `
_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}; }
compopt() { true; } # works only while a person types
source <("$1" completion bash) || exit
complete -p freeagent-proxy >/dev/null || exit
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_freeagent-proxy
printf '%s\n' "${COMPREPLY[@]%% *}"
`

// What a person may type next, as bash gets it.
func TestCompletion(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, text := range map[string]string{"config.yaml": incomplete, "other.yaml": strings.ReplaceAll(incomplete, "acme", "fourth")} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"accounts show ":                       "acme other",
		"accounts show a":                      "acme",
		"accounts remove o":                    "other",
		"accounts import acme ":                "",
		"accounts copy --from x acme ":         "other",
		"accounts show --config other.yaml ":   "fourth other",
		"accounts show --config missing.yaml ": "",
		"authorize --account ":                 "acme other",
		"clients new ":                         "billing nightly",
		"accounts s":                           "show",
		"se":                                   "serve",
		"authorize --pas":                      "--paste",
		"completion p":                         "powershell",
		"serve ":                               "",
	} {
		cmd := exec.Command("bash", append([]string{"--norc", "-c", pressTab, "bash", exe}, strings.Split(line, " ")...)...)
		cmd.Dir, cmd.Env = folder, []string{"PATH=" + os.Getenv("PATH"), roleVariable + "=" + roleProgram, "GORACE=atexit_sleep_ms=0"}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		got := strings.Fields(string(out))
		slices.Sort(got)
		if err != nil || stderr.Len() > 0 || strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q; %v, stderr: %s", line, got, want, err, &stderr)
		}
	}
	if left, _ := os.ReadDir(folder); len(left) != 2 {
		t.Errorf("completion left %v", left)
	}
}

// The page has every command and every option that a person may use, and the hidden ones stay so.
func TestManualPage(t *testing.T) {
	root := new(command).root()
	page := strings.ReplaceAll(manualPage(root), `\-`, "-")
	sections := strings.Split(page, "\n.SS ")
	var visit func(*cobra.Command)
	commands := 0
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
		_, name, _ := strings.Cut(cmd.CommandPath(), " ")
		i := slices.IndexFunc(sections, func(s string) bool {
			return s == name || strings.HasPrefix(s, name+" ") || strings.HasPrefix(s, name+"\n")
		})
		if cmd.Hidden || cmd.HasSubCommands() {
			if cmd.Hidden && i > 0 {
				t.Errorf("%s is hidden", name)
			}
			return
		}
		commands++
		if i < 1 {
			t.Errorf("no section of %q", name)
			return
		}
		options := func(f *pflag.Flag) {
			if !strings.Contains(sections[i], "\n.B --"+f.Name) && f.Name != "help" {
				t.Errorf("%s: no --%s", name, f.Name)
			}
		}
		cmd.LocalFlags().VisitAll(options)
		cmd.InheritedFlags().VisitAll(options)
	}
	visit(root)
	if commands < 14 || len(sections) != commands+1 {
		t.Errorf("%d commands, %d sections", commands, len(sections)-1)
	}
	for line := range strings.Lines(page) {
		if macro := strings.Fields(line); strings.HasPrefix(line, ".") && !slices.Contains([]string{".TH", ".SH", ".SS", ".TP", ".B", ".I", ".PP", ".EX", ".EE"}, macro[0]) {
			t.Errorf("%q is no macro of man(7)", line)
		}
	}
}
