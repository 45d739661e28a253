package main

import (
	"cmp"
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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/crypto/acme"
)

// A config holds the values of flags and environment variables as given. Its resolve methods validate them.
type config struct {
	domain      string
	servers     []string
	serverTLS   bool
	serverCA    string
	secretFile  string
	connections int
	db          string
	dbFile      string
	node        string
	singleLink  bool
	listen      string
	baseURL     string
	allow       []string
	maxUsers    int
	admins      []string
	contacts    []string
	rooms       []string
	name        string
	hideOS      bool
	expire      string
	jidLinks    bool
	website     websiteConfig
	webhookFile string // with the webhook's secret
	tls         tlsConfig
	metrics     string
	redirect    string
	proxies     []string
	logLevel    string
	logFormat   string
	memory      string
	memoryLimit int64 // in bytes; 0 for the default
}

func (c *config) dbFlag(f *pflag.FlagSet) {
	f.StringVar(&c.db, "db", "webstatus.db", "SQLite `file`, or URL of a PostgreSQL database, such as postgres://webstatus@db.example.org/webstatus")
	f.StringVar(&c.dbFile, "db-file", "", "`file` that contains the value of --db, for a URL with a password; takes precedence over --db (default: the systemd credential named db)")
}

func (c *config) webFlags(f *pflag.FlagSet) {
	f.StringVar(&c.listen, "listen", "127.0.0.1:8080", "`address` that the web server listens on: host:port or unix:/path; a socket passed by systemd takes precedence")
	f.StringVar(&c.baseURL, "base-url", "", "public `URL` of the web server; all URLs that users get start with it (default: derived from --listen)")
}

func (c *config) linkFlags(f *pflag.FlagSet) {
	f.StringVar(&c.domain, "domain", "", "`JID` of the component, such as webstatus.example.org (required)")
	f.StringSliceVar(&c.servers, "server", []string{"127.0.0.1:5347"}, "`host:port` of the XMPP server's component listener; repeatable, for several nodes of a cluster")
	f.BoolVar(&c.serverTLS, "server-tls", false, "connect to the component listener with TLS and verify its certificate (ejabberd: tls: true)")
	f.StringVar(&c.serverCA, "server-ca", "", "PEM `file` that contains the CA certificates for --server-tls (default: the system's)")
	f.StringVar(&c.secretFile, "secret-file", "", "`file` that contains the component secret (default: WEBSTATUS_SECRET, or the systemd credential named secret)")
	f.IntVar(&c.connections, "connections", 1, "`number` of connections to each server; ejabberd can balance the load over several")
}

func (c *config) serveFlags(f *pflag.FlagSet) {
	c.linkFlags(f)
	c.dbFlag(f)
	c.webFlags(f)
	f.StringVar(&c.node, "node", "", "unique `name` of this node, if several share a PostgreSQL database (default: the host name)")
	f.BoolVar(&c.singleLink, "single-link", false, "connect only one node at a time to the XMPP server; for Prosody, which accepts one connection per component")
	f.StringSliceVar(&c.allow, "allow", nil, "`domain` whose users may register, or bare JID of one user; * allows anyone; repeatable (default: the parent domain of --domain)")
	f.IntVar(&c.maxUsers, "max-users", 0, "maximum `number` of registered users; 0 for no limit")
	f.StringSliceVar(&c.admins, "admin", nil, "bare `JID` of a user who may run the administration commands; repeatable")
	f.StringSliceVar(&c.contacts, "contact", nil, "contact `URI` of the operator, such as mailto:admin@example.org, optionally with its kind, as in abuse=mailto:abuse@example.org; the kinds are "+strings.Join(contactKinds, ", ")+" (XEP-0157); repeatable")
	f.StringSliceVar(&c.rooms, "room", nil, "`JID` of a room that has badges at /room/JID.svg; * matches any characters, as in *@rooms.example.org; repeatable")
	f.StringVar(&c.name, "name", "Web presence", "`name` under which clients list the component (XEP-0172)")
	f.BoolVar(&c.hideOS, "hide-os", false, "do not report the operating system in replies to version queries (XEP-0092)")
	f.StringVar(&c.expire, "expire", "30d", "`duration` after which users whose account no longer exists are removed, in days (30d) or hours (720h); 0 for never")
	f.BoolVar(&c.jidLinks, "jid-links", true, "serve the JID-based URLs of users who have not turned them off")
	f.StringSliceVar(&c.proxies, "trusted-proxy", nil, "`CIDR` or address of a proxy whose X-Forwarded-For or Forwarded is trusted; repeatable")
	f.StringVar(&c.tls.cert, "tls-cert", "", "PEM `file` that contains the certificate chain for HTTPS; reloaded when it changes")
	f.StringVar(&c.tls.key, "tls-key", "", "PEM `file` that contains the private key for HTTPS; reloaded when it changes")
	f.StringSliceVar(&c.tls.acmeDomains, "acme-domain", nil, "domain `name` for which to obtain a certificate with ACME, such as status.example.org; repeatable")
	f.StringVar(&c.tls.acmeCache, "acme-cache", "acme", "`directory` for the ACME account key and certificates; not used with PostgreSQL, which stores them in the database")
	f.StringVar(&c.tls.acmeDirectory, "acme-directory", acme.LetsEncryptURL, "ACME directory `URL` of the certificate authority")
	f.StringVar(&c.redirect, "redirect-listen", "", "`address`, such as :80, of an additional server that redirects to --base-url and answers ACME HTTP challenges; none if empty")
	f.StringVar(&c.metrics, "metrics-listen", "", "`address` for /metrics (Prometheus) and /healthz, such as 127.0.0.1:9180; none if empty")
	f.StringVar(&c.website.templates, "templates", "", "`directory` whose files replace embedded templates of the same name; reloaded on SIGHUP")
	f.StringVar(&c.website.frameAncestors, "frame-ancestors", "*", "`sources` that may embed pages, in the syntax of frame-ancestors in Content-Security-Policy")
	f.StringVar(&c.website.webhookConfig.url, "webhook", "", "`URL` to which the status of users who allow it is posted after each change; none if empty")
	f.StringVar(&c.webhookFile, "webhook-secret-file", "", "`file` that contains the key for signing webhook requests (default: WEBSTATUS_WEBHOOK_SECRET, or the systemd credential named webhook-secret)")
	f.StringVar(&c.memory, "memory-limit", "", "soft limit on memory, a `size` such as 400MiB (default: GOMEMLIMIT, or 90% of the memory of the cgroup or machine)")
	c.logFlags(f, "info")
}

func (c *config) logFlags(f *pflag.FlagSet, level string) {
	f.StringVar(&c.logLevel, "log-level", level, "log `level`: debug, info, warn or error; debug logs stanzas without their contents")
	f.StringVar(&c.logFormat, "log-format", "text", "log `format`: text or json")
}

// A usageError lists the problems of a command line and its environment. It makes the exit status 2.
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

// orNil returns e, or a nil error if there are no problems.
func (e *usageError) orNil() error {
	if len(e.problems) == 0 {
		return nil
	}
	return e
}

func envName(flag string) string {
	return "WEBSTATUS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnvironment sets the flags that are not on the command line from environment variables. Lists are comma-separated.
func readEnvironment(f *pflag.FlagSet) *usageError {
	problems := &usageError{}
	f.VisitAll(func(flag *pflag.Flag) {
		value := os.Getenv(envName(flag.Name))
		if flag.Changed && flag.Name == "db" && hasPassword(flag.Value.String()) {
			problems.add("db", "the URL contains a password, which a command line shows to all users of this machine: use --db-file or the environment variable")
		}
		if flag.Changed || value == "" || flag.Name == "help" {
			return
		}
		if err := f.Set(flag.Name, value); err != nil {
			problems.add(flag.Name, "%q is not a %s", value, flag.Value.Type())
		}
	})
	return problems
}

// resolveDB replaces the location of the database by the content of --db-file or of the systemd credential, and validates it.
func (c *config) resolveDB(problems *usageError) {
	if file := cmp.Or(c.dbFile, credentialFile("db")); file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			problems.add("db-file", "%v", err)
			return
		}
		c.db = strings.TrimSpace(string(content))
	}
	if err := checkLocation(c.db); err != nil {
		problems.add("db", "%v", err)
	}
}

// resolveNode sets the default name of this node.
func (c *config) resolveNode(problems *usageError) {
	if c.node != "" {
		return
	}
	var err error
	if c.node, err = os.Hostname(); err != nil || c.node == "" {
		problems.add("node", "required, since this machine has no host name")
	}
}

// hasPassword reports whether the location of a database contains a password.
func hasPassword(location string) bool {
	if !isPostgres(location) {
		return false
	}
	_, rest, _ := strings.Cut(location, "://")
	user, _, hasUser := strings.Cut(rest, "@")
	return hasUser && strings.Contains(user, ":") || strings.Contains(location, "password=")
}

// resolveLink validates the configuration of the link to the XMPP server.
func (c *config) resolveLink(problems *usageError) (conf componentConfig) {
	conf.connections = c.connections
	if c.connections < 1 {
		problems.add("connections", "%d is less than 1", c.connections)
	}
	if c.domain == "" {
		problems.add("domain", "required: the JID of the component in the XMPP server's configuration, such as webstatus.example.org")
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
		problems.add("server", "at least one is required")
	}
	var err error
	if conf.tls, err = c.tlsConfig(); err != nil {
		problems.add("server-ca", "%v", err)
	}
	if conf.secret, err = readSecret(c.secretFile, "secret"); err != nil {
		problems.add("secret-file", "%v", err)
	} else if conf.secret == "" {
		problems.add("secret-file", "required: the component secret, from this file or from WEBSTATUS_SECRET")
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
			return nil, errors.New("requires --server-tls")
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
			return nil, fmt.Errorf("%s contains no PEM certificate", c.serverCA)
		}
	}
	return conf, nil
}

// readSecret returns a secret from a file, from the environment variable of its name, or from the systemd credential of its name, in this
// order. It is empty if none of them is given.
func readSecret(file, name string) (string, error) {
	secret := os.Getenv(envName(name))
	if file == "" && secret == "" {
		file = credentialFile(name)
	}
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		secret = strings.TrimRight(string(content), "\r\n")
	}
	return secret, nil
}

// credentialFile returns the file of a systemd credential (systemd.exec(5)), empty if there is none.
func credentialFile(name string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// resolveBaseURL returns the base URL without a trailing slash.
func (c *config) resolveBaseURL(problems *usageError) string {
	if c.baseURL == "" {
		host, port, err := net.SplitHostPort(c.listen)
		if err != nil {
			if strings.HasPrefix(c.listen, "unix:") {
				problems.add("base-url", "required if --listen is a Unix socket")
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
			problems.add("listen", "no path after unix:")
		}
		return
	}
	if _, port, err := net.SplitHostPort(c.listen); err != nil || !isPort(port) {
		problems.add("listen", "%q is neither host:port nor unix:/path", c.listen)
	}
}

// resolve validates the whole configuration of serve. The error is a usageError with all problems.
func (c *config) resolve(problems *usageError, logTo io.Writer) (componentConfig, error) {
	conf := c.resolveLink(problems)
	conf.allow = c.resolveAllow(problems, conf.domain)
	if conf.maxUsers = c.maxUsers; c.maxUsers < 0 {
		problems.add("max-users", "%d is less than 0", c.maxUsers)
	}
	conf.jidLinks = c.jidLinks
	conf.singleLink = c.singleLink
	conf.webhook = c.website.webhookConfig.url != ""
	conf.hideOS = c.hideOS
	if conf.name = singleLine(c.name, maxNick); conf.name == "" {
		problems.add("name", "must not be empty")
	}
	for _, s := range c.admins {
		bare, err := parseBareJID(s)
		if err != nil {
			problems.add("admin", "%v", err)
		}
		conf.admins = append(conf.admins, bare)
	}
	conf.contacts = c.resolveContacts(problems)
	for _, s := range c.rooms {
		pattern, ok := parseRoomPattern(s)
		if !ok {
			problems.add("room", "%q is not the JID of a room such as lobby@rooms.example.org or *@rooms.example.org", s)
		}
		conf.rooms = append(conf.rooms, pattern)
	}
	var err error
	if conf.expire, err = parseDays(c.expire); err != nil {
		problems.add("expire", "%v", err)
	}
	c.resolveDB(problems)
	c.resolveNode(problems)
	c.resolveListen(problems)
	conf.baseURL = c.resolveBaseURL(problems)
	c.resolveWebsite(problems)
	if c.memoryLimit, err = parseSize(c.memory); err != nil {
		problems.add("memory-limit", "%v", err)
	}
	conf.log = c.logger(problems, logTo)
	conf.syncTimes = defaultSyncTimes
	return conf, problems.orNil()
}

// resolveContacts returns the URIs of --contact by kind. A URI without a kind is that of the administrators.
func (c *config) resolveContacts(problems *usageError) map[string][]string {
	contacts := make(map[string][]string)
	for _, s := range c.contacts {
		kind, uri, ok := strings.Cut(s, "=")
		if !ok || !slices.Contains(contactKinds, kind) {
			kind, uri = "admin", s
		}
		if u, err := url.Parse(uri); err != nil || u.Scheme == "" {
			problems.add("contact", "%q is not a URI such as mailto:admin@example.org or xmpp:admin@example.org, or one of %s with = and a URI", s, strings.Join(contactKinds, ", "))
		}
		contacts[kind] = append(contacts[kind], uri)
	}
	return contacts
}

// resolveWebsite validates the configuration of the web server.
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
	c.resolveWebhook(problems)
	for _, s := range c.proxies {
		proxy, err := netip.ParsePrefix(s)
		if address, addressErr := netip.ParseAddr(s); addressErr == nil {
			proxy, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			problems.add("trusted-proxy", "%q is not an address or CIDR such as 10.0.0.0/8", s)
		}
		c.website.proxies = append(c.website.proxies, proxy)
	}
	if c.website.templates != "" {
		if _, err := loadRenderer("webstatus", c.website.templates); err != nil {
			problems.add("templates", "%v", err)
		}
	}
}

// resolveWebhook validates the webhook. Messages do not contain its URL, which may contain a secret.
func (c *config) resolveWebhook(problems *usageError) {
	hook := &c.website.webhookConfig
	hook.retry = webhookRetry
	if hook.url == "" {
		if c.webhookFile != "" {
			problems.add("webhook-secret-file", "requires --webhook")
		}
		return
	}
	if u, err := url.Parse(hook.url); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		problems.add("webhook", "not a URL such as https://example.org/hook")
	}
	var err error
	if hook.secret, err = readSecret(c.webhookFile, "webhook-secret"); err != nil {
		problems.add("webhook-secret-file", "%v", err)
	} else if hook.secret == "" {
		problems.add("webhook-secret-file", "required with --webhook: the key of its signatures, from this file or from WEBSTATUS_WEBHOOK_SECRET")
	}
}

// resolveTLS validates the sources of certificates.
func (c *config) resolveTLS(problems *usageError) {
	switch {
	case (c.tls.cert == "") != (c.tls.key == ""):
		problems.add("tls-key", "--tls-cert and --tls-key require each other")
	case c.tls.cert != "" && len(c.tls.acmeDomains) > 0:
		problems.add("acme-domain", "cannot be combined with --tls-cert")
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

// parseDays parses a duration in days, such as 30d, or in the syntax of time.ParseDuration.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30d or 720h", s)
	}
	return d, nil
}

// parseSize parses a size in the units of GOMEMLIMIT up to GiB. It returns bytes, 0 for the empty string.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits, shift := s, 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			digits, shift = number, 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63-shift)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a size such as 400MiB or 1GiB", s)
	}
	return int64(n) << shift, nil
}

// resolveAllow returns the list of who may register: --allow, or the parent domain of the component.
func (c *config) resolveAllow(problems *usageError, domain string) (allow allowList) {
	if len(c.allow) == 0 && domain != "" {
		_, parent, ok := strings.Cut(domain, ".")
		if !ok {
			problems.add("allow", "required, since --domain %s has no parent domain: domains or JIDs that may register", domain)
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
		problems.add("log-level", "%q is not debug, info, warn or error", c.logLevel)
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
