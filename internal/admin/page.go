package admin

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

//go:embed page.html
var pageFiles embed.FS

var (
	//go:embed page.css
	pageCSS []byte
	//go:embed page.js
	pageJS []byte
	//go:embed icon.svg
	iconSVG []byte
)

// templates are "page", and "live", the part of it that moves. What they insert is escaped for where it stands.
var templates = template.Must(template.ParseFS(pageFiles, "page.html"))

// page answers / . A flow that has ended is told of there.
func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	var message *outcome
	if told, ok := h.flows.told(r.URL.Query().Get("connect")); ok {
		message = &told
	}
	h.render(w, r, http.StatusOK, message)
}

// live answers with what the page's script puts in place of what moves: the words are made in one place, and the times in them
// are by the proxy's clock.
func (h *handler) live(w http.ResponseWriter, r *http.Request) {
	h.write(w, r, http.StatusOK, "live", nil)
}

func (h *handler) render(w http.ResponseWriter, r *http.Request, status int, message *outcome) {
	// With no-referrer browsers would send the Connect form with `Origin: null`. Nothing goes to another origin with this either.
	w.Header().Set("Referrer-Policy", "same-origin")
	h.write(w, r, status, "page", message)
}

func (h *handler) write(w http.ResponseWriter, r *http.Request, status int, name string, message *outcome) {
	v := newView(h.Status(r.Context(), true), h.base(r)+callbackPath)
	v.Message = message
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, v); err != nil {
		refuse(w, http.StatusInternalServerError, "The page could not be made. Its figures are at /api/status.")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes())
}
