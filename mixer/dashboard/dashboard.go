// Package dashboard is a web page over the telemetry API.
//
//	in:   a handler that answers /telemetry/, a token
//	out:  the page and its assets; the API to those who have logged in
//
// The page is hand-written HTML, CSS and JavaScript modules from this binary: no
// build step, nothing from elsewhere, and a Content-Security-Policy that keeps it
// so. Whoever opens it with ?token= gets a cookie that scripts cannot read.
//
// By default it listens on loopback without TLS; any other address needs TLS.
package dashboard

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

//go:embed assets
var embedded embed.FS

// Config says where the page is served and to whom.
type Config struct {
	Listen string       // host:port; "" for nowhere (Handler may still be mounted)
	TLS    *tls.Config  // required unless Listen is a loopback address
	Token  string       // at least 16 characters; "" makes one
	API    http.Handler // answers /telemetry/; required
	Log    *slog.Logger
}

// Dashboard serves the page.
type Dashboard struct {
	cfg     Config
	session string // what the cookie holds: of the token, but not the token
	handler http.Handler
	login   *template.Template
}

const cookieName = "xebec_dashboard"

// New checks the configuration.
func New(cfg Config) (*Dashboard, error) {
	if cfg.API == nil {
		return nil, errors.New("dashboard: API is required")
	}
	if cfg.Token == "" {
		cfg.Token = rand.Text()
	}
	if len(cfg.Token) < 16 {
		return nil, errors.New("dashboard: the token is too short to be a secret: want at least 16 characters")
	}
	if cfg.Listen != "" && cfg.TLS == nil && !isLoopback(cfg.Listen) {
		return nil, fmt.Errorf("dashboard: %s is not a loopback address: listen on 127.0.0.1, or give it TLS", cfg.Listen)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	assets, err := fs.Sub(embedded, "assets")
	if err != nil {
		return nil, err
	}
	login, err := template.ParseFS(assets, "login.html")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte("xebec dashboard session\x00" + cfg.Token))
	d := &Dashboard{cfg: cfg, session: hex.EncodeToString(sum[:]), login: login}
	d.handler = d.routes(assets)
	return d, nil
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Token opens the page as ?token=.
func (d *Dashboard) Token() string { return d.cfg.Token }

// URL is what a person opens; "" if the page is not served.
func (d *Dashboard) URL() string {
	if d.cfg.Listen == "" {
		return ""
	}
	scheme := "http"
	if d.cfg.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + d.cfg.Listen + "/?token=" + d.cfg.Token
}

// ServeHTTP serves the page, its assets, and the API behind the login.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// Run listens until ctx ends.
func (d *Dashboard) Run(ctx context.Context) error {
	if d.cfg.Listen == "" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.cfg.Listen)
	if err != nil {
		return fmt.Errorf("serve dashboard: %w", err)
	}
	if d.cfg.TLS != nil {
		l = tls.NewListener(l, d.cfg.TLS)
	}
	s := &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve dashboard: %w", err)
	}
	return nil
}

func (d *Dashboard) routes(assets fs.FS) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.page(assets))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		d.enter(w, r, r.PostFormValue("token"))
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, d.cookie(r, "", -1))
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	files := http.FileServerFS(assets)
	mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".html") || r.URL.Path == "" || strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})))
	mux.Handle("/telemetry/", d.guard(d.cfg.API))
	return headers(mux)
}

// headers go with every answer.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// page is the application, or the login.
func (d *Dashboard) page(assets fs.FS) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if t := r.URL.Query().Get("token"); t != "" {
			d.enter(w, r, t)
			return
		}
		if !d.known(r) {
			d.ask(w, http.StatusUnauthorized, "")
			return
		}
		http.ServeFileFS(w, r, assets, "app.html")
	}
}

// enter trades a token for a cookie.
func (d *Dashboard) enter(w http.ResponseWriter, r *http.Request, token string) {
	if subtle.ConstantTimeCompare([]byte(token), []byte(d.cfg.Token)) != 1 {
		d.ask(w, http.StatusUnauthorized, "This token is not the one that this server has.")
		return
	}
	http.SetCookie(w, d.cookie(r, d.session, 30*24*3600))
	http.Redirect(w, r, "/", http.StatusSeeOther) // the token leaves the address bar
}

func (d *Dashboard) cookie(r *http.Request, value string, age int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
	}
}

func (d *Dashboard) known(r *http.Request) bool {
	c, err := r.Cookie(cookieName)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(d.session)) == 1
}

func (d *Dashboard) ask(w http.ResponseWriter, status int, problem string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = d.login.Execute(w, map[string]string{"Problem": problem})
}

// guard lets only those through who have logged in.
func (d *Dashboard) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.known(r) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"log in first: open the dashboard's address with its token"}` + "\n"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
