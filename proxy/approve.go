package proxy

import "net/http"

// approval is the page that a person sees whose program sends him to authorise it. It leads nowhere: a link made of
// what the request says would be an open redirect.
const approval = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>No approval is needed here</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 3rem auto; padding: 0 1rem; }
code { font-size: 0.95em; }
</style>
</head>
<body>
<h1>No approval is needed here</h1>
<p>This is freeagent-proxy, not FreeAgent. It holds the authorisation for FreeAgent itself, so the program that sent
you here needs none of its own.</p>
<h2>What to do with the program</h2>
<ul>
<li>If it can call FreeAgent's API without OAuth, turn OAuth off: the proxy adds the token.</li>
<li>If it cannot, give it the name of its client in the proxy's configuration as OAuth identifier (client id), the client's
key as OAuth secret, and any text as refresh token. It then gets its tokens from the proxy, at
<code>/v2/token_endpoint</code>.</li>
</ul>
<h2>If the proxy itself must be authorised</h2>
<p>Its operator runs <code>freeagent-proxy authorize</code>.</p>
</body>
</html>
`

// explainApproval answers in place of FreeAgent's page.
func explainApproval(x *exchange) error {
	h := x.Header()
	h["Content-Security-Policy"] = []string{"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Referrer-Policy"] = []string{"no-referrer"}
	x.answer(http.StatusOK, "text/html; charset=utf-8", []byte(approval))
	return nil
}
