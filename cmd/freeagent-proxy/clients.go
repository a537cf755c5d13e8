package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"freeagent-proxy/proxy"
)

func (c *command) clientsCommand() *cobra.Command {
	clients := &cobra.Command{
		Use:   "clients",
		Short: "Make a key for a program; list the programs that may call",
		Long:  "Which programs may call, and what each may do, is in the configuration, below clients.",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("name what to do: clients new NAME or clients list")}
		},
	}
	clients.AddCommand(
		c.configFlag(&cobra.Command{Use: "new NAME", Short: "Make a client's key, and print what the configuration needs", Args: oneArg,
			ValidArgsFunction: c.completeClient, // one that is to get a second key
			Long: `Makes a key of 32 random bytes and prints it, this once, with the lines for the
configuration, which has its digest only. Of a client that has a key already, the lines keep both, so that the
program can change to the new one; then take the old one out. Reload the proxy (SIGHUP) to apply it.`,
			RunE: func(_ *cobra.Command, args []string) error { return c.newClient(args[0]) }}),
		c.configFlag(&cobra.Command{Use: "list", Short: "List the clients: how each is known, and what it may do", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return c.listClients() }}),
	)
	return clients
}

// keyPrefix begins every key, so that people and secret scanners know one when they see it.
const keyPrefix = "fap_"

func newClientKey() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	return keyPrefix + base64.RawURLEncoding.EncodeToString(key[:])
}

func (c *command) newClient(name string) error {
	if !clientName.MatchString(name) || slices.Contains(reservedClients, name) {
		return usageError{fmt.Errorf("%q cannot be a client's name: that is 1 to 63 of a-z, 0-9, '.', '_' and '-', and not %s",
			name, strings.Join(reservedClients, ", "))}
	}
	// The configuration tells of an older key alone. It need not be there yet, nor be right: it may lack this very client.
	cfg, err := c.loadConfig()
	if err != nil && c.configPath != "" && !errors.As(err, new(*configError)) {
		return err
	}
	key := newClientKey()
	digest := sha256.Sum256([]byte(key))
	digests := []string{hex.EncodeToString(digest[:])}
	for _, older := range cfg.Clients[name].KeySHA256 {
		if keyDigest.MatchString(older) { // else it may be a key itself
			digests = append(digests, older)
		}
	}
	fmt.Fprintf(c.stdout, `# The key of client %q. It is shown only now. The program sends it as
# "Authorization: Bearer KEY", as the password of Basic authentication, or as "X-Api-Key: KEY".
%s

# For the configuration:
clients:
  %s:
    key_sha256:
`, name, key, yamlKey(name))
	for _, digest := range digests {
		fmt.Fprintf(c.stdout, "      - \"%s\"\n", digest)
	}
	return nil
}

// yamlKey is a client's name as a key in YAML, which would read some as a number, or worse.
func yamlKey(name string) string {
	if strings.Trim(name[:1], "abcdefghijklmnopqrstuvwxyz") == "" && !slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, name) {
		return name
	}
	return `"` + name + `"`
}

func (c *command) listClients() error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	if len(cfg.Clients) == 0 {
		fmt.Fprintln(c.stdout, "no clients are configured: everyone who may connect is the client \"anonymous\" and may do everything")
		return nil
	}
	out := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "CLIENT\tKNOWN BY\tMAY")
	for _, name := range slices.Sorted(maps.Keys(cfg.Clients)) {
		client := cfg.Clients[name]
		fmt.Fprintf(out, "%s\t%s\t%s\n", name, knownBy(client), may(client))
	}
	return out.Flush()
}

// knownBy says in a few words how a client is known.
func knownBy(c ClientConfig) string {
	var marks []string
	if n := len(c.KeySHA256); n == 1 {
		marks = append(marks, "key")
	} else if n > 1 {
		marks = append(marks, fmt.Sprintf("%d keys", n))
	}
	if c.Certificate != "" {
		marks = append(marks, "certificate "+c.Certificate)
	}
	if c.Listen != "" {
		marks = append(marks, "listener "+c.Listen)
	}
	return strings.Join(append(marks, c.CIDRs...), ", ")
}

// may says in a few words what a client may do.
func may(c ClientConfig) string {
	var rules []string
	rule := func(given bool, format string, args ...any) {
		if given {
			rules = append(rules, fmt.Sprintf(format, args...))
		}
	}
	rule(c.ReadOnly, "read only")
	rule(len(c.Methods) > 0, "methods %s", strings.Join(c.Methods, " "))
	rule(len(c.Accounts) > 0, "accounts %s", strings.Join(c.Accounts, " "))
	rule(len(c.Paths) > 0, "paths %s", strings.Join(c.Paths, " "))
	rule(c.Subdomain != "", "subdomain %s", c.Subdomain)
	rule(c.Share < 1, "%v of the budget", c.Share)
	if len(rules) == 0 {
		return "everything"
	}
	return strings.Join(rules, ", ")
}

// proxyClients is the configured clients as the proxy takes them; they have been validated.
func proxyClients(cfg Config) []proxy.Client {
	var clients []proxy.Client
	for _, name := range slices.Sorted(maps.Keys(cfg.Clients)) {
		c := cfg.Clients[name]
		clients = append(clients, proxy.Client{
			Name: name, Keys: digests(c.KeySHA256), Networks: networks(c.CIDRs), Certificate: c.Certificate,
			Accounts: c.Accounts, ReadOnly: c.ReadOnly, Methods: c.Methods, Paths: c.Paths, Subdomain: c.Subdomain,
			Passthrough: c.URLs == "passthrough", Weight: c.Weight, Share: c.Share, MaxWait: cfg.wait(c),
		})
	}
	return clients
}

func digests(texts []string) [][sha256.Size]byte {
	made := make([][sha256.Size]byte, len(texts))
	for i, text := range texts {
		_, _ = hex.Decode(made[i][:], []byte(text)) // it matches keyDigest
	}
	return made
}

func networks(texts []string) []netip.Prefix {
	made := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		made[i], _ = parseNetwork(text) // it has been validated
	}
	return made
}
