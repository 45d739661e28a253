package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/crypto/acme"
)

// A config is what flags and environment say, as text. Its resolve judges it.
type config struct {
	domain      string
	servers     []string
	serverTLS   bool
	serverCA    string
	secretFile  string
	connections int
	db          string
	listen      string
	baseURL     string
	allow       []string
	admins      []string
	contacts    []string
	hideOS      bool
	expire      string
	jidLinks    bool
	website     websiteConfig
	tls         tlsConfig
	metrics     string
	redirect    string
	proxies     []string
	logLevel    string
	logFormat   string
}

func (c *config) dbFlag(f *pflag.FlagSet) {
	f.StringVar(&c.db, "db", "webstatus.db", "the SQLite `file`")
}

func (c *config) webFlags(f *pflag.FlagSet) {
	f.StringVar(&c.listen, "listen", "127.0.0.1:8080", "`address` of the web server: host:port or unix:/path; a socket from systemd goes before it")
	f.StringVar(&c.baseURL, "base-url", "", "`URL` by which the outside world reaches the web server, used in every link that is handed out (default from --listen)")
}

func (c *config) linkFlags(f *pflag.FlagSet) {
	f.StringVar(&c.domain, "domain", "", "the component's `JID`, such as webstatus.example.org (required)")
	f.StringSliceVar(&c.servers, "server", []string{"127.0.0.1:5347"}, "`host:port` of the XMPP server's component listener; repeatable (the nodes of a cluster)")
	f.BoolVar(&c.serverTLS, "server-tls", false, "speak TLS to that listener, verified (ejabberd: tls: true)")
	f.StringVar(&c.serverCA, "server-ca", "", "PEM `file` with the authorities to verify the XMPP server against, instead of the system's")
	f.StringVar(&c.secretFile, "secret-file", "", "`file` with the component secret; else WEBSTATUS_SECRET, or a systemd credential named secret")
	f.IntVar(&c.connections, "connections", 1, "`number` of connections to each server (ejabberd balances over them)")
}

func (c *config) serveFlags(f *pflag.FlagSet) {
	c.linkFlags(f)
	c.dbFlag(f)
	c.webFlags(f)
	f.StringSliceVar(&c.allow, "allow", nil, "`domain` or bare JID that may register, * for anyone; repeatable (default: what follows the first dot of --domain)")
	f.StringSliceVar(&c.admins, "admin", nil, "bare `JID` that may run the administration commands; repeatable")
	f.StringSliceVar(&c.contacts, "contact", nil, "`URI` at which the operator is to be reached, such as mailto:admin@example.org; repeatable")
	f.BoolVar(&c.hideOS, "hide-os", false, "do not name the operating system to those who ask for the version")
	f.StringVar(&c.expire, "expire", "30d", "`time`, in days (30d) or hours (720h), after which a user is removed whose account the user's server says is gone; 0 for never")
	f.BoolVar(&c.jidLinks, "jid-links", true, "answer at addresses made from JIDs, for users who want that")
	f.StringSliceVar(&c.proxies, "trusted-proxy", nil, "`CIDR` or address of a proxy whose X-Forwarded-For is believed; repeatable")
	f.StringVar(&c.tls.cert, "tls-cert", "", "PEM `file` with the certificate for HTTPS, and those that it rests on; read again when it changes")
	f.StringVar(&c.tls.key, "tls-key", "", "PEM `file` with its key; read again when it changes")
	f.StringSliceVar(&c.tls.acmeDomains, "acme-domain", nil, "`name` to get a certificate for by ACME, such as status.example.org; repeatable")
	f.StringVar(&c.tls.acmeCache, "acme-cache", "acme", "`directory` for what ACME has brought")
	f.StringVar(&c.tls.acmeDirectory, "acme-directory", acme.LetsEncryptURL, "`URL` of the certificate authority")
	f.StringVar(&c.redirect, "redirect-listen", "", "`address` that sends everybody to --base-url, such as :80, and answers the certificate authority; none if empty")
	f.StringVar(&c.metrics, "metrics-listen", "", "`address` for /metrics (Prometheus) and /healthz, such as 127.0.0.1:9180; none if empty")
	f.StringVar(&c.website.templates, "templates", "", "`directory` whose files replace embedded templates of the same name; read again at SIGHUP")
	f.StringVar(&c.website.frameAncestors, "frame-ancestors", "*", "`sources` that may embed pages, as in Content-Security-Policy")
	c.logFlags(f, "info")
}

func (c *config) logFlags(f *pflag.FlagSet, level string) {
	f.StringVar(&c.logLevel, "log-level", level, "`level`: debug, info, warn or error; debug logs stanzas without their contents")
	f.StringVar(&c.logFormat, "log-format", "text", "`format`: text or json")
}

// A usageError says what is wrong with how the program was called.
type usageError struct{ problems []string }

func (e *usageError) Error() string {
	if len(e.problems) == 1 {
		return e.problems[0]
	}
	return "the configuration has " + strconv.Itoa(len(e.problems)) + " problems:\n  " + strings.Join(e.problems, "\n  ")
}

func (e *usageError) add(flag, format string, args ...any) {
	e.problems = append(e.problems, "--"+flag+" ("+envName(flag)+"): "+fmt.Sprintf(format, args...))
}

// orNil returns the problems as an error, nil if there are none.
func (e *usageError) orNil() error {
	if len(e.problems) == 0 {
		return nil
	}
	return e
}

func envName(flag string) string {
	return "WEBSTATUS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnvironment sets the flags that the command line has left to the environment. Lists are separated by commas.
func readEnvironment(f *pflag.FlagSet) *usageError {
	problems := &usageError{}
	f.VisitAll(func(flag *pflag.Flag) {
		value := os.Getenv(envName(flag.Name))
		if flag.Changed || value == "" || flag.Name == "help" {
			return
		}
		if err := f.Set(flag.Name, value); err != nil {
			problems.add(flag.Name, "%q is not a %s", value, flag.Value.Type())
		}
	})
	return problems
}

// resolveLink judges what the link to the XMPP server needs.
func (c *config) resolveLink(problems *usageError) (conf componentConfig) {
	conf.connections = c.connections
	if c.connections < 1 {
		problems.add("connections", "%d: at least 1 is needed", c.connections)
	}
	if c.domain == "" {
		problems.add("domain", "required: the component's JID as the XMPP server's configuration names it, such as webstatus.example.org")
	} else if j, err := parseJID(c.domain); err != nil || j.bare != j.domain() || j.resource != "" {
		problems.add("domain", "%q is not the JID of a component, such as webstatus.example.org", c.domain)
	} else {
		conf.domain = j.bare
	}
	for _, s := range c.servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || !isPort(port) || port == "0" {
			problems.add("server", "%q is not host:port", s)
		}
	}
	conf.servers = c.servers
	if len(c.servers) == 0 {
		problems.add("server", "at least one is needed")
	}
	var err error
	if conf.tls, err = c.tlsConfig(); err != nil {
		problems.add("server-ca", "%v", err)
	}
	if conf.secret, err = c.secret(); err != nil {
		problems.add("secret-file", "%v", err)
	}
	conf.linkTimes = defaultLinkTimes
	return conf
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func (c *config) tlsConfig() (*tls.Config, error) {
	if !c.serverTLS {
		if c.serverCA != "" {
			return nil, errors.New("is of use with --server-tls only")
		}
		return nil, nil
	}
	conf := &tls.Config{}
	if c.serverCA != "" {
		pem, err := os.ReadFile(c.serverCA)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no PEM certificate", c.serverCA)
		}
	}
	return conf, nil
}

// secret reads the component secret from where it has been put.
func (c *config) secret() (string, error) {
	file := c.secretFile
	if credentials := os.Getenv("CREDENTIALS_DIRECTORY"); file == "" && os.Getenv("WEBSTATUS_SECRET") == "" && credentials != "" {
		file = filepath.Join(credentials, "secret")
	}
	secret := os.Getenv("WEBSTATUS_SECRET")
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		secret = strings.TrimRight(string(content), "\r\n")
	}
	if secret == "" {
		return "", errors.New("required: the component secret, from this file or from WEBSTATUS_SECRET")
	}
	return secret, nil
}

// resolveBaseURL returns the start of all links, without a slash at the end.
func (c *config) resolveBaseURL(problems *usageError) string {
	if c.baseURL == "" {
		host, port, err := net.SplitHostPort(c.listen)
		if err != nil {
			if strings.HasPrefix(c.listen, "unix:") {
				problems.add("base-url", "required where --listen is a Unix socket")
			}
			return ""
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "localhost"
		}
		scheme := "http://"
		if c.tls.enabled() {
			scheme = "https://"
		}
		return scheme + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(c.baseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		problems.add("base-url", "%q is not a URL such as https://status.example.org", c.baseURL)
	}
	return strings.TrimRight(c.baseURL, "/")
}

func (c *config) resolveListen(problems *usageError) {
	if path, ok := strings.CutPrefix(c.listen, "unix:"); ok {
		if path == "" {
			problems.add("listen", "a path is wanted after unix:")
		}
		return
	}
	if _, port, err := net.SplitHostPort(c.listen); err != nil || !isPort(port) {
		problems.add("listen", "%q is neither host:port nor unix:/path", c.listen)
	}
}

// resolve judges everything that serve needs, and reports all problems at once.
func (c *config) resolve(problems *usageError, logTo io.Writer) (componentConfig, error) {
	conf := c.resolveLink(problems)
	conf.allow = c.resolveAllow(problems, conf.domain)
	conf.jidLinks = c.jidLinks
	conf.hideOS = c.hideOS
	for _, s := range c.admins {
		bare, err := parseBareJID(s)
		if err != nil {
			problems.add("admin", "%v", err)
		}
		conf.admins = append(conf.admins, bare)
	}
	for _, s := range c.contacts {
		if u, err := url.Parse(s); err != nil || u.Scheme == "" {
			problems.add("contact", "%q is not a URI such as mailto:admin@example.org or xmpp:admin@example.org", s)
		}
	}
	conf.contacts = c.contacts
	var err error
	if conf.expire, err = parseDays(c.expire); err != nil {
		problems.add("expire", "%v", err)
	}
	c.resolveListen(problems)
	conf.baseURL = c.resolveBaseURL(problems)
	c.resolveWebsite(problems)
	conf.log = c.logger(problems, logTo)
	conf.syncTimes = defaultSyncTimes
	return conf, problems.orNil()
}

// resolveWebsite judges what the website alone needs.
func (c *config) resolveWebsite(problems *usageError) {
	if sources := c.website.frameAncestors; strings.ContainsAny(sources, ";,\r\n") || strings.TrimSpace(sources) == "" {
		problems.add("frame-ancestors", "%q is not a list of sources such as 'self' https://example.org", sources)
	}
	for flag, address := range map[string]string{"metrics-listen": c.metrics, "redirect-listen": c.redirect} {
		if _, port, err := net.SplitHostPort(address); address != "" && (err != nil || !isPort(port)) {
			problems.add(flag, "%q is not host:port", address)
		}
	}
	c.resolveTLS(problems)
	for _, s := range c.proxies {
		proxy, err := netip.ParsePrefix(s)
		if address, addressErr := netip.ParseAddr(s); addressErr == nil {
			proxy, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			problems.add("trusted-proxy", "%q is no address or CIDR such as 10.0.0.0/8", s)
		}
		c.website.proxies = append(c.website.proxies, proxy)
	}
	if c.website.templates != "" {
		if _, err := loadRenderer("webstatus", c.website.templates); err != nil {
			problems.add("templates", "%v", err)
		}
	}
}

// resolveTLS judges where certificates come from.
func (c *config) resolveTLS(problems *usageError) {
	switch {
	case (c.tls.cert == "") != (c.tls.key == ""):
		problems.add("tls-key", "--tls-cert and --tls-key are of use together only")
	case c.tls.cert != "" && len(c.tls.acmeDomains) > 0:
		problems.add("acme-domain", "is of no use with --tls-cert")
	case c.tls.cert != "":
		if _, err := tls.LoadX509KeyPair(c.tls.cert, c.tls.key); err != nil {
			problems.add("tls-cert", "%v", err)
		}
	}
	for _, name := range c.tls.acmeDomains {
		if j, err := parseJID(name); err != nil || j.local() != "" || j.resource != "" {
			problems.add("acme-domain", "%q is not a name such as status.example.org", name)
		}
	}
	if u, err := url.Parse(c.tls.acmeDirectory); err != nil || u.Scheme != "https" || u.Host == "" {
		problems.add("acme-directory", "%q is not an https:// URL", c.tls.acmeDirectory)
	}
}

// parseDays reads a duration that may be in days.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time such as 30d or 720h", s)
	}
	return d, nil
}

func (c *config) resolveAllow(problems *usageError, domain string) (allow allowList) {
	if len(c.allow) == 0 && domain != "" {
		_, parent, ok := strings.Cut(domain, ".")
		if !ok {
			problems.add("allow", "required, since --domain %s has no dot: the domains or JIDs that may register", domain)
		}
		return allowList{parent}
	}
	for _, s := range c.allow {
		entry, err := parseAllow(s)
		if err != nil {
			problems.add("allow", "%v", err)
		}
		allow = append(allow, entry)
	}
	return allow
}

func (c *config) logger(problems *usageError, to io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		problems.add("log-level", "%q is none of debug, info, warn, error", c.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	if _, is := to.(journalWriter); is {
		options.ReplaceAttr = withoutTime
	}
	switch c.logFormat {
	case "json":
		return slog.New(slog.NewJSONHandler(to, options))
	case "text":
	default:
		problems.add("log-format", "%q is neither text nor json", c.logFormat)
	}
	return slog.New(slog.NewTextHandler(to, options))
}
