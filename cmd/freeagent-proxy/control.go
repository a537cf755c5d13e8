package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"freeagent-proxy/tokens"
)

// The file store has one writer: the process that holds its lock. When that is a running serve,
// authorize and the accounts commands hand it their work over a unix socket in the
// store's folder, whose permissions decide who may. So it takes effect at once, and two processes
// never write over each other.

const controlName = "control.sock"

// maxSocketPath is what every system takes in a socket's address (104 bytes on BSD, 108 on Linux).
const maxSocketPath = 100

// controlPath is an address for the folder's control socket. A path that is too long is reached
// through the open folder; release it when the socket is bound or connected.
func controlPath(folder string) (path string, release func(), err error) {
	path = filepath.Join(folder, controlName)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the store's folder %s has too long a path for a socket; choose one of at most %d characters",
			folder, maxSocketPath-len(controlName)-1)
	}
	dir, err := os.Open(folder)
	if err != nil {
		return "", nil, fmt.Errorf("open the store's folder: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlName), func() { _ = dir.Close() }, nil
}

// listenControl binds the control socket. The caller holds the store's lock, so a socket
// that is still there belongs to a process that died.
func listenControl(folder string) (net.Listener, error) {
	path, release, err := controlPath(folder)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old control socket: %w; the store's folder must be writable for the user that runs freeagent-proxy", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w; the store's folder must be writable for the user that runs freeagent-proxy", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // its path may be gone by then; the next one removes it
	if err := protect(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("protect the control socket: %w", err)
	}
	return listener, nil
}

// addresses are where a running serve listens. Of a configured port 0, any free one, it alone knows.
type addresses struct {
	Operator string `json:"operator"`
}

// controlHandler does for other processes what only this one may, tells them where it listens, and lets them call
// FreeAgent as programs do, without being one of the clients.
func controlHandler(manager grants, listening addresses, programs http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /accounts/{account}/v2/", programs)
	mux.HandleFunc("GET /addresses", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(listening) })
	mux.HandleFunc("POST /accounts/{account}/prove", func(w http.ResponseWriter, r *http.Request) {
		replyControl(w, manager.Prove(r.Context(), r.PathValue("account")))
	})
	keep := func(how func(context.Context, tokens.Grant) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var grant tokens.Grant
			if err := json.NewDecoder(r.Body).Decode(&grant); err != nil {
				http.Error(w, "the grant is malformed", http.StatusBadRequest)
				return
			}
			grant.Account = r.PathValue("account")
			replyControl(w, how(r.Context(), grant))
		}
	}
	mux.HandleFunc("PUT /accounts/{account}/grant", keep(manager.Put))
	mux.HandleFunc("PUT /accounts/{account}/copy", keep(manager.Copy))
	mux.HandleFunc("POST /accounts/{account}/import", func(w http.ResponseWriter, r *http.Request) {
		token, err := io.ReadAll(io.LimitReader(r.Body, maxToken))
		if err != nil {
			http.Error(w, "the refresh token could not be read", http.StatusBadRequest)
			return
		}
		replyControl(w, manager.Import(r.Context(), r.PathValue("account"), string(token)))
	})
	mux.HandleFunc("DELETE /accounts/{account}/grant", func(w http.ResponseWriter, r *http.Request) {
		replyControl(w, manager.Remove(r.Context(), r.PathValue("account")))
	})
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { replyControl(w, nil) })
	return mux
}

func replyControl(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, tokens.ErrNoGrant):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// grants is what the commands do to the store: in their own process when they hold its lock
// (writer), else in the one that does (*control). Put and Import block until the grant is kept.
type grants interface {
	// Prove makes sure that a grant could be kept: what FreeAgent gives for a code or a refresh token
	// can be had once. A stored grant that cannot be read is never overwritten.
	Prove(ctx context.Context, account string) error
	Put(ctx context.Context, g tokens.Grant) error
	// Copy keeps a grant of another store as it is, unless here is a newer one.
	Copy(ctx context.Context, g tokens.Grant) error
	Import(ctx context.Context, account, refreshToken string) error
	Remove(ctx context.Context, account string) error
}

// control is the client's end of the socket.
type control struct{ http *http.Client }

// newControl connects to the process that holds the folder's lock.
func newControl(ctx context.Context, folder string) (*control, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, release, err := controlPath(folder)
		if err != nil {
			return nil, err
		}
		defer release()
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	c := &control{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c, c.do(ctx, http.MethodGet, "/ping", nil)
}

func (c *control) Prove(ctx context.Context, account string) error {
	return c.do(ctx, http.MethodPost, "/accounts/"+url.PathEscape(account)+"/prove", nil)
}

// portUntold is the trouble with port 0 and Redis: there is no folder, so no control socket in it that tells the port.
const portUntold = "with store.redis nothing but the proxy's log tells which port it got for 0; give admin.listen a fixed port, so that status and healthcheck find it"

// located is the operator's configured address as it can be dialled: with the port that the proxy running on cfg's store got for 0.
func located(ctx context.Context, cfg Config, configured string) (string, error) {
	if !anyPort(configured) {
		return configured, nil
	}
	if cfg.Store.Redis.given() {
		return "", errors.New(portUntold)
	}
	running, err := newControl(ctx, cfg.Store.File)
	if err != nil {
		return "", err
	}
	answer, err := running.ask(ctx, http.MethodGet, "/addresses", nil)
	if err != nil {
		return "", err
	}
	var listening addresses
	if err := json.Unmarshal(answer, &listening); err != nil {
		return "", fmt.Errorf("read where the running proxy listens: %w", err)
	}
	return listening.Operator, nil
}

func (c *control) Put(ctx context.Context, g tokens.Grant) error { return c.keep(ctx, g, "grant") }

func (c *control) Copy(ctx context.Context, g tokens.Grant) error { return c.keep(ctx, g, "copy") }

func (c *control) keep(ctx context.Context, g tokens.Grant, how string) error {
	body, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("encode the grant: %w", err)
	}
	return c.do(ctx, http.MethodPut, "/accounts/"+url.PathEscape(g.Account)+"/"+how, body)
}

func (c *control) Import(ctx context.Context, account, refreshToken string) error {
	return c.do(ctx, http.MethodPost, "/accounts/"+url.PathEscape(account)+"/import", []byte(refreshToken))
}

func (c *control) Remove(ctx context.Context, account string) error {
	return c.do(ctx, http.MethodDelete, "/accounts/"+url.PathEscape(account)+"/grant", nil)
}

func (c *control) do(ctx context.Context, method, path string, body []byte) error {
	_, err := c.ask(ctx, method, path, body)
	return err
}

func (c *control) ask(ctx context.Context, method, path string, body []byte) (answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the running proxy: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the running proxy: %w", err)
	}
	defer resp.Body.Close()
	answer, _ = io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNoContent:
		return answer, nil
	case http.StatusNotFound:
		return nil, tokens.ErrNoGrant
	default:
		return nil, fmt.Errorf("the running proxy says: %s", strings.TrimSpace(string(answer)))
	}
}
