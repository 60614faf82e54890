package frontend

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
)

//go:embed web/*.html web/*.css web/*.svg web/*.js
var webFiles embed.FS

// pages are the parsed templates and the files that go with them.
type pages struct {
	byName map[string]*template.Template
	assets map[string]asset // by path
	paths  map[string]string
}

type asset struct {
	body []byte
	mime string
}

// contentSecurity lets a page load the relay's own style sheet, pictures and
// one script file, ask the relay itself, and nothing else from anywhere: a
// stranger's text that got through the escaping still could do nothing.
const contentSecurity = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// parsePages reads the embedded templates; an error is a fault of the program.
func parsePages() (*pages, error) {
	p := &pages{byName: make(map[string]*template.Template), assets: make(map[string]asset), paths: make(map[string]string)}
	for name, mime := range map[string]string{
		"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml", "app.js": "text/javascript; charset=utf-8",
	} {
		body, err := webFiles.ReadFile("web/" + name)
		if err != nil {
			return nil, fmt.Errorf("read page file %s: %w", name, err)
		}
		// The path changes with the content, so that it may be cached for ever.
		sum := sha256.Sum256(body)
		path := "/static/" + hex.EncodeToString(sum[:6]) + "/" + name
		p.assets[path], p.paths[name] = asset{body, mime}, path
	}
	funcs := template.FuncMap{
		"asset": func(name string) string { return p.paths[name] },
		"num":   number10, "short": shortNumber, "bytes": sizeText, "when": whenText, "stamp": stampText, "cut": cutText,
		"ago": agoText, "clock": clockText, "cut12": cutShort,
	}
	base, err := template.New("layout.html").Funcs(funcs).ParseFS(webFiles, "web/layout.html", "web/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse page layout: %w", err)
	}
	names, err := fs.Glob(webFiles, "web/*.html")
	if err != nil {
		return nil, fmt.Errorf("list pages: %w", err)
	}
	for _, path := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(path, "web/"), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(webFiles, path)
		}
		if err != nil {
			return nil, fmt.Errorf("parse page %s: %w", name, err)
		}
		p.byName[name] = t
	}
	return p, nil
}

// frame is what every page has.
type frame struct {
	Nav        string
	Version    string
	Maintainer string
	Now        time.Time
}

func (f *Frontend) frame(nav string) frame {
	return frame{Nav: nav, Version: f.cfg.Version, Maintainer: f.cfg.Maintainer, Now: time.Now()}
}

// serveWeb answers GET and HEAD.
func (f *Frontend) serveWeb(w http.ResponseWriter, r *http.Request) {
	if !f.cfg.Web {
		f.refuse(w, http.StatusNotFound, "web_off", "the web interface of this relay is turned off; POST an XML-RPC call")
		return
	}
	path := r.URL.Path
	if a, found := f.pages.assets[path]; found {
		h := w.Header()
		h.Set("Content-Type", a.mime)
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(f.cfg.BodyTimeout))
		_, _ = w.Write(a.body)
		return
	}
	method, isMethod := strings.CutPrefix(path, "/methods/")
	satellite, isSatellite := strings.CutPrefix(path, "/satellites/")
	switch {
	case path == "/":
		f.overviewPage(w, r)
	case path == "/methods" || isMethod && method == "":
		f.methodsPage(w)
	case path == "/satellites" || isSatellite && satellite == "":
		f.satellitesPage(w, r)
	case isMethod:
		f.methodPage(w, method, nil, nil)
	case path == "/flow":
		f.flowPage(w, r)
	case path == "/system":
		f.systemPage(w, r)
	case path == "/live/overview":
		f.serveLive(w, r, f.overview)
	case path == "/live/flow":
		f.serveLive(w, r, f.flowFeed)
	case path == "/live/satellites", path == "/live/system", strings.HasPrefix(path, "/live/satellites/"):
		f.serveView(w, r)
	case isSatellite:
		f.satellitePage(w, r, satellite)
	default:
		f.notFound(w, "There is no such page", "Pages are read by GET here; XML-RPC calls go by POST to any path.")
	}
}

func (f *Frontend) notFound(w http.ResponseWriter, title, text string) {
	f.wordsPage(w, http.StatusNotFound, title, text)
}

// wordsPage is a page with nothing but some words.
func (f *Frontend) wordsPage(w http.ResponseWriter, status int, title, text string) {
	f.page(w, status, "notfound", struct {
		frame
		Title, Text string
	}{f.frame(""), title, text})
}

// page renders a page. It is built before the first byte goes out, so that one
// that cannot be built becomes an error and not half a page.
func (f *Frontend) page(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := f.pages.byName[name].Execute(&b, data); err != nil {
		f.log.Error("page failed", "page", name, "error", err)
		f.refuse(w, http.StatusInternalServerError, "page", "this page could not be made; the relay's log says why")
		return
	}
	f.metrics.pages.WithLabelValues(name).Inc()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set("Content-Security-Policy", contentSecurity)
	// Not no-referrer: by it browsers would not say whose a form is either.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(f.cfg.BodyTimeout))
	w.WriteHeader(status)
	_, _ = b.WriteTo(w)
}
