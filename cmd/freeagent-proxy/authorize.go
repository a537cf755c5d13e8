package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"freeagent-proxy/tokens"
)

// defaultRedirect is the redirect URI to register with the app at https://dev.freeagent.com;
// FreeAgent compares it letter by letter.
const defaultRedirect = "http://localhost:8082/callback"

// authorization is one run of the authorization-code flow (RFC 6749, section 4.1).
type authorization struct {
	app         tokens.App
	redirectURI string
	state       string
}

func (c *command) authorizeCommand() *cobra.Command {
	var account, redirect string
	var paste bool
	cmd := c.configFlag(&cobra.Command{
		Use:   "authorize",
		Short: "Get an account's authorisation from its FreeAgent user",
		Long: `Prints FreeAgent's approval page to open in a browser, waits for FreeAgent to send the
browser back to the redirect URI, and keeps the authorisation. The redirect URI must
be registered with the app at https://dev.freeagent.com, letter by letter.

In a browser the page of a running serve does the same, by its button Connect.

With --paste nothing listens: approve in a browser anywhere, then paste the address that it was
sent to (it need not load), or the code alone.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.authorize(cmd.Context(), account, redirect, paste)
		},
	})
	cmd.Flags().StringVar(&account, "account", "", "account `NAME` (default: the default account)")
	completeFlag(cmd, "account", c.completeAccount)
	cmd.Flags().StringVar(&redirect, "redirect-uri", defaultRedirect, "`URI` that FreeAgent sends the browser back to, as registered")
	cmd.Flags().BoolVar(&paste, "paste", false, "read the redirected address or the code from standard input")
	return cmd
}

func (c *command) authorize(ctx context.Context, account, redirect string, paste bool) error {
	cfg, account, err := c.accountOrDefault(account)
	if err != nil {
		return err
	}
	if err := proveStore(ctx, cfg, account); err != nil {
		return err
	}
	a := authorization{app: cfg.app(account), redirectURI: redirect, state: rand.Text()}
	endpoint := newEndpoint(cfg)
	approve := endpoint.ApproveURL(a.app, redirect, a.state)
	code, err := "", error(nil)
	if paste {
		code, err = c.pasteCode(ctx, a, approve)
	} else {
		code, err = c.receiveCode(ctx, a, approve)
	}
	if err != nil {
		return err
	}
	if err := proveStore(ctx, cfg, account); err != nil { // again, since approving takes minutes, and the code is good for once
		return err
	}
	grant, err := endpoint.Exchange(ctx, a.app, code, redirect)
	if err != nil {
		return fmt.Errorf("exchange the code: %w", err)
	}
	grant.Account = account
	if err := putGrant(ctx, cfg, grant); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "Account %s is authorised.\n", account)
	return nil
}

// accountOrDefault loads the configuration and finds the account to work on.
func (c *command) accountOrDefault(account string) (Config, string, error) {
	if account != "" {
		cfg, err := c.configFor(account)
		return cfg, account, err
	}
	cfg, err := c.loadConfig()
	if err != nil {
		return Config{}, "", err
	}
	account, ok := cfg.DefaultAccount()
	if !ok {
		return Config{}, "", usageError{errors.New("several accounts are configured and none is the default; name one with --account")}
	}
	return cfg, account, nil
}

// pasteCode asks for the redirected address, or the code alone.
func (c *command) pasteCode(ctx context.Context, a authorization, approve string) (string, error) {
	fmt.Fprintf(c.stdout, "Open this address in a browser, and approve:\n\n%s\n\nThen paste the address you were sent to, or its code, and press Enter:\n", approve)
	line := make(chan string, 1)
	go func() { // ends with standard input; the process does not outlive it
		text, _ := bufio.NewReader(c.stdin).ReadString('\n')
		line <- strings.TrimSpace(text)
	}()
	select {
	case pasted := <-line:
		return a.codeFrom(pasted)
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing was changed")
	}
}

// codeFrom reads what a person pasted.
func (a authorization) codeFrom(pasted string) (string, error) {
	pasted = strings.Trim(pasted, `"'<> `) // of who takes the address for a link, or for an argument
	if pasted == "" {
		return "", errors.New("nothing was pasted; nothing was changed")
	}
	if !strings.ContainsAny(pasted, "?&/ ") && !strings.HasPrefix(pasted, "code=") {
		if code, err := url.PathUnescape(pasted); err == nil {
			return code, nil // cut from an address, where it is encoded
		}
		return pasted, nil
	}
	_, query, found := strings.Cut(pasted, "?")
	if !found {
		query = pasted
	}
	query, _, _ = strings.Cut(query, "#")
	values, err := url.ParseQuery(query)
	if err != nil || !values.Has("code") && !values.Has("error") {
		return "", errors.New("what was pasted is neither an address with a code nor a code; approve, then paste the address that FreeAgent has sent the browser to. Nothing was changed")
	}
	return a.codeIn(values)
}

// errState says that an address is not FreeAgent's answer to this run, whatever else is in it.
var errState = errors.New("the state is not the one of this run; open the address that was just printed. Nothing was changed")

// codeIn reads FreeAgent's redirect: our `state`, and `code` or `error`.
func (a authorization) codeIn(values url.Values) (string, error) {
	switch {
	case subtle.ConstantTimeCompare([]byte(values.Get("state")), []byte(a.state)) != 1:
		return "", errState
	case values.Get("error") != "":
		return "", fmt.Errorf("FreeAgent did not authorise: %q; nothing was changed", values.Get("error"))
	case values.Get("code") == "":
		return "", errors.New("the address has no code; nothing was changed")
	}
	return values.Get("code"), nil
}

// receiveCode listens where the redirect URI points and waits for the browser.
func (c *command) receiveCode(ctx context.Context, a authorization, approve string) (string, error) {
	redirect, err := url.Parse(a.redirectURI)
	if err != nil || redirect.Scheme != "http" || redirect.Hostname() == "" || redirect.Port() == "" {
		return "", usageError{fmt.Errorf("redirect URI %q is not http://localhost:PORT/PATH; for another one use --paste", a.redirectURI)}
	}
	listener, err := net.Listen("tcp", redirect.Host)
	if err != nil {
		return "", fmt.Errorf("listen for the redirect: %w; register another redirect URI and name it with --redirect-uri, or use --paste", err)
	}
	type outcome struct {
		code string
		err  error
	}
	outcomes := make(chan outcome, 1)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != cmp.Or(redirect.Path, "/") {
			http.NotFound(w, r)
			return
		}
		code, err := a.codeIn(r.URL.Query())
		answerBrowser(w, err)
		if !errors.Is(err, errState) { // that may be anybody's
			select {
			case outcomes <- outcome{code, err}:
			default:
			}
		}
	})}
	go func() { _ = server.Serve(listener) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // lets the browser have its page
	}()
	fmt.Fprintf(c.stdout, "Open this address in a browser, and approve:\n\n%s\n\nWaiting for FreeAgent to send the browser to %s ...\n", approve, a.redirectURI)
	select {
	case o := <-outcomes:
		return o.code, o.err
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing was changed")
	}
}

func answerBrowser(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Referrer-Policy", "no-referrer")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "Not authorised: %v.\n", err)
		return
	}
	fmt.Fprintln(w, "FreeAgent has approved. Go back to the terminal; this page can be closed.")
}
