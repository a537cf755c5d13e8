package simulator

import (
	"fmt"
	"html"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// approval is what a program asks of the person, carried through the page.
type approval struct{ client, redirect, state, user string }

// approve is GET /v2/approve_app: the page with Approve and Deny. The
// parameter user, which FreeAgent would ignore, proposes who approves.
func (s *Simulator) approve(c *call) reply {
	if !isRead(c.r.Method) {
		return c.fail(notFound())
	}
	query := c.r.URL.Query()
	a, problem := c.approval(query)
	switch {
	case problem != nil:
		return *problem
	case query.Get("response_type") != "code":
		return page(http.StatusBadRequest, "Invalid request", "<p>response_type must be <code>code</code>.</p>")
	case c.cfg.AutoApprove:
		return s.redirect(c, a, true, query.Has("state"))
	}
	return page(http.StatusOK, "Approve access", approveForm(a, query.Has("state")))
}

// decide is where the page's buttons lead.
func (s *Simulator) decide(c *call) reply {
	if c.r.Method != http.MethodPost {
		return c.fail(notFound())
	}
	form, _ := url.ParseQuery(string(c.body)) // what cannot be parsed is missing below
	a, problem := c.approval(form)
	if problem != nil {
		return *problem
	}
	return s.redirect(c, a, form.Get("decision") == "approve", form.Has("state"))
}

// approval checks who asks and where the answer is to go. Without both nobody is redirected.
func (c *call) approval(v url.Values) (approval, *reply) {
	a := approval{client: v.Get("client_id"), redirect: v.Get("redirect_uri"), state: v.Get("state"), user: v.Get("user")}
	if a.user == "" {
		a.user = c.cfg.User
	}
	app, ok := c.cfg.app(a.client)
	if !ok {
		problem := page(http.StatusUnauthorized, "Unknown app", "<p>No app has this client_id.</p>")
		return a, &problem
	}
	if !app.allowsRedirect(a.redirect) {
		problem := page(c.cfg.RedirectErrorStatus, "Invalid redirect URI",
			"<p>The redirect URI <code>"+html.EscapeString(a.redirect)+"</code> is not valid for this app.</p>")
		return a, &problem
	}
	return a, nil
}

// app finds a registered app; with none registered, every id is one.
func (c *Config) app(id string) (App, bool) {
	if len(c.Apps) == 0 {
		return App{ClientID: id}, id != ""
	}
	i := slices.IndexFunc(c.Apps, func(a App) bool { return a.ClientID == id })
	if i < 0 {
		return App{}, false
	}
	return c.Apps[i], true
}

func (a App) allowsRedirect(uri string) bool {
	if len(a.RedirectURIs) > 0 {
		return slices.Contains(a.RedirectURIs, uri)
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// redirect sends the person back with a code or an error.
func (s *Simulator) redirect(c *call, a approval, approved, hasState bool) reply {
	to, err := url.Parse(a.redirect)
	if err != nil {
		return page(c.cfg.RedirectErrorStatus, "Invalid redirect URI", "<p>It cannot be parsed.</p>")
	}
	v := to.Query()
	if approved {
		v.Set("code", s.grants.addCode(code{user: a.user, client: a.client, redirect: a.redirect}, c.cfg))
	} else {
		v.Set("error", c.cfg.DeniedError)
	}
	if hasState || c.cfg.EmptyState {
		v.Set("state", a.state)
	}
	to.RawQuery = v.Encode()
	rep := page(http.StatusFound, "Redirecting", `<p><a href="`+html.EscapeString(to.String())+`">Go on</a></p>`)
	rep.header = [][2]string{{"Location", to.String()}}
	rep.acted = true
	return rep
}

func approveForm(a approval, hasState bool) string {
	hidden := func(name, value string) string {
		return fmt.Sprintf("<input type=\"hidden\" name=\"%s\" value=\"%s\">\n", name, html.EscapeString(value))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<p><strong>%s</strong> asks for access to your FreeAgent account.</p>\n", html.EscapeString(a.client))
	b.WriteString("<form method=\"post\" action=\"" + decisionPath + "\">\n")
	b.WriteString(hidden("client_id", a.client) + hidden("redirect_uri", a.redirect))
	if hasState {
		b.WriteString(hidden("state", a.state))
	}
	b.WriteString("<p><label>User <input name=\"user\" value=\"" + html.EscapeString(a.user) + "\"></label></p>\n")
	b.WriteString("<button name=\"decision\" value=\"approve\">Approve</button>\n")
	b.WriteString("<button name=\"decision\" value=\"deny\">Deny</button>\n</form>")
	return b.String()
}
