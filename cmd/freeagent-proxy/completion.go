package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// completions writes the completion script of each shell. They call the hidden command __complete at each press of the tab key.
var completions = map[string]func(c *command, root *cobra.Command) error{
	"bash":       func(c *command, root *cobra.Command) error { return root.GenBashCompletionV2(c.stdout, true) },
	"zsh":        func(c *command, root *cobra.Command) error { return root.GenZshCompletion(c.stdout) },
	"fish":       func(c *command, root *cobra.Command) error { return root.GenFishCompletion(c.stdout, true) },
	"powershell": func(c *command, root *cobra.Command) error { return root.GenPowerShellCompletionWithDesc(c.stdout) },
}

func (c *command) completionCommand() *cobra.Command {
	shells := slices.Sorted(maps.Keys(completions))
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script for bash, zsh, fish or powershell",
		Long: `Prints a script that lets the shell complete commands, options, and the names of accounts and
clients, which it reads from the configuration.`,
		Example: `  source <(freeagent-proxy completion bash)     # for this shell; needs the package bash-completion
  freeagent-proxy completion bash > /etc/bash_completion.d/freeagent-proxy
  freeagent-proxy completion zsh > "${fpath[1]}/_freeagent-proxy"
  freeagent-proxy completion fish > ~/.config/fish/completions/freeagent-proxy.fish
  freeagent-proxy completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: shells,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && slices.Contains(shells, args[0]) {
				return nil
			}
			return usageError{fmt.Errorf("name one shell: %s", strings.Join(shells, ", "))}
		},
		RunE: func(cmd *cobra.Command, args []string) error { return completions[args[0]](c, cmd.Root()) },
	}
}

// completeAccount and completeClient complete a command's one argument, or an option's value, from the configuration. It need not
// be right, since the secrets that serve has are seldom in a person's shell: what is in the file counts.
func (c *command) completeAccount(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	cfg, _ := c.loadConfig()
	return first(cfg.Accounts, args), cobra.ShellCompDirectiveNoFileComp
}

func (c *command) completeClient(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	cfg, _ := c.loadConfig()
	return first(cfg.Clients, args), cobra.ShellCompDirectiveNoFileComp
}

// completeAccounts completes any number of arguments, each account once.
func (c *command) completeAccounts(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	cfg, _ := c.loadConfig()
	return slices.DeleteFunc(first(cfg.Accounts, nil), func(name string) bool { return slices.Contains(args, name) }), cobra.ShellCompDirectiveNoFileComp
}

// first is the names that the first argument may have, sorted; none once there is one.
func first[T any](named map[string]T, args []string) []cobra.Completion {
	var names []cobra.Completion
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if len(args) == 0 && accountName.MatchString(name) { // else it may mean something to the shell
			names = append(names, name)
		}
	}
	return names
}

// completeFlag gives an option's values. It can fail only for an option that this program misspells.
func completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
	}
}

// configurationFiles is for options that take one.
func configurationFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return []cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// anyFile is for options that take a file or a folder.
func anyFile(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
