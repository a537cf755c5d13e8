package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// endpointPatience bounds each step on the way to FreeAgent.
const endpointPatience = 10 * time.Second

// checkEndpoint makes sure that FreeAgent's token endpoint can be reached, as far as that is known without a request: one would count
// in FreeAgent's limits, and a refresh would spend a good token. What FreeAgent says to client id and secret is seen when
// the token of an account has ended.
func (c *command) checkEndpoint(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, 2*endpointPatience)
	defer cancel()
	to := cfg.Upstream.BaseURL
	between, err := http.ProxyFromEnvironment(&http.Request{URL: to})
	if err != nil {
		return fmt.Errorf("token endpoint: %w; correct HTTPS_PROXY in the environment", err)
	}
	if between != nil {
		conn, err := dialURL(ctx, between)
		if err != nil {
			return fmt.Errorf("token endpoint: the proxy on the way to it, %s, cannot be reached: %w; correct HTTPS_PROXY in the environment", between.Host, err)
		}
		fmt.Fprintf(c.stdout, "token endpoint: %s, by way of %s, which can be reached\n", to.Host, between.Host)
		return conn.Close()
	}
	began := time.Now()
	conn, err := dialURL(ctx, to)
	if err != nil {
		return fmt.Errorf("token endpoint: %s cannot be reached: %w; see to DNS, firewall and, if programs here need one, HTTPS_PROXY", to.Host, err)
	}
	defer conn.Close()
	if to.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: to.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("token endpoint: %s can be reached, but not trusted: %w; see to this machine's clock and CA certificates, and to what reads TLS on the way", to.Host, err)
		}
	}
	fmt.Fprintf(c.stdout, "token endpoint: %s can be reached (%s)\n", to.Host, time.Since(began).Round(time.Millisecond))
	return nil
}

// dialURL connects to where a URL leads.
func dialURL(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	conn, err := (&net.Dialer{Timeout: endpointPatience}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if cause := (*net.OpError)(nil); errors.As(err, &cause) {
		err = cause.Err // where to is said already
	}
	return conn, err
}
