package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand is for packagers: releases have the page already. Cobra's own generator makes nineteen pages of this one, links a
// Markdown parser into the program, and writes the day into each.
func (c *command) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Print the manual page",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.stdout, manualPage(cmd.Root()))
			return err
		},
	}
}

// manualPage is freeagent-proxy(1): all commands and options, from what --help says of them, as man(7) has it.
func manualPage(root *cobra.Command) string {
	var m manual
	m.line(`.TH FREEAGENT\-PROXY 1 "" "freeagent\-proxy %s"`, roff(version))
	m.line(".SH NAME\nfreeagent\\-proxy \\- %s", roff(strings.ToLower(root.Short[:1])+root.Short[1:]))
	m.line(".SH SYNOPSIS\n.B freeagent\\-proxy\n.I COMMAND\n[\n.I options\n]")
	m.line(".SH DESCRIPTION")
	m.text(root.Long)
	m.line(".SH COMMANDS")
	m.commands(root)
	m.line(".SH EXIT STATUS")
	m.item("0", "It worked.")
	m.item("1", "It failed; standard error says why, and what to do.")
	m.item("2", "The command line is wrong.")
	m.line(".SH SIGNALS")
	m.item("SIGTERM, SIGINT", "serve finishes what was sent to FreeAgent, and ends; a second one ends it at once.")
	m.item("SIGHUP", "serve reads its configuration anew; what is wrong with it, or needs a restart, is in the log.")
	m.line(".SH ENVIRONMENT")
	m.item(configVariable, "The configuration file, where no --config names one.")
	m.item("FREEAGENT_CLIENT_ID, FREEAGENT_CLIENT_SECRET, FREEAGENT_REFRESH_TOKEN, FREEAGENT_BASE_URL",
		"Without a configuration file: the app's OAuth identifier and secret, and, if set, a refresh token and FreeAgent's address.")
	m.item("STATE_DIRECTORY, XDG_STATE_HOME, HOME", "Where the store is, unless the configuration says it.")
	m.line(".SH FILES")
	m.item("config.yaml", "The configuration, in the current folder, where neither --config nor the environment names one.")
	m.line(".SH SEE ALSO")
	m.text("README.md, config.example.yaml and docs/, which come with the program: docs/configuration.md has every setting, " +
		"docs/operations.md what an operator does, docs/troubleshooting.md what each message means.")
	return m.String()
}

// manual is a page that is being written.
type manual struct{ strings.Builder }

func (m *manual) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

// commands describes what a person may run, depth first.
func (m *manual) commands(parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		if !cmd.HasSubCommands() {
			m.command(cmd)
		}
		m.commands(cmd)
	}
}

func (m *manual) command(cmd *cobra.Command) {
	_, usage, _ := strings.Cut(cmd.CommandPath(), " ")
	_, args, _ := strings.Cut(cmd.Use, " ")
	m.line(".SS %s", roff(strings.TrimSpace(usage+" "+args)))
	m.text(cmd.Short + ".")
	if cmd.Long != "" {
		m.line(".PP")
		m.text(cmd.Long)
	}
	option := func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name, what := pflag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			what += " (default " + f.DefValue + ")"
		}
		m.item(strings.TrimSpace("--"+f.Name+" "+name), what)
	}
	cmd.NonInheritedFlags().VisitAll(option)
	cmd.InheritedFlags().VisitAll(option)
	if cmd.Example != "" {
		m.line(".PP\n.EX\n%s\n.EE", roff(cmd.Example))
	}
}

func (m *manual) item(name, what string) { m.line(".TP\n.B %s\n%s", roff(name), roff(what)) }

// text writes paragraphs.
func (m *manual) text(s string) {
	m.line("%s", strings.ReplaceAll(roff(strings.TrimSpace(s)), "\n\n", "\n.PP\n"))
}

// roff escapes what man(7) would take for something else.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
