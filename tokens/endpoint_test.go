package tokens_test

import (
	"net"
	"net/url"
	"testing"

	"freeagent-proxy/tokens"
)

// unreachable is an endpoint where nobody listens.
func unreachable(t *testing.T) *tokens.Endpoint {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := &url.URL{Scheme: "http", Host: listener.Addr().String()}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base})
}
