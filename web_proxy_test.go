package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A proxyServer is a web server that runs as a reverse proxy with its configuration from dist.
type proxyServer struct {
	program, lines, address string
	around                  string // enclosing configuration, with the directory as %[1]s and the port as %[2]s
	args                    []string
}

var nginx = proxyServer{"nginx", "nginx.conf", "listen 80;>listen 127.0.0.1:%s;", "daemon off;\npid %[1]s/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/a;\n" +
	"proxy_temp_path %[1]s/b;\nfastcgi_temp_path %[1]s/c;\nuwsgi_temp_path %[1]s/d;\nscgi_temp_path %[1]s/e;\nLINES}\n", []string{"-c", "CONF", "-p", "DIR", "-e", "stderr"}}

// start starts the server, with parts of its configuration replaced, and returns its URL.
func (p proxyServer) start(t *testing.T, replacements ...string) (url string) {
	t.Helper()
	program := need(t, p.program)
	lines, err := os.ReadFile(filepath.Join("dist", p.lines))
	if err != nil {
		t.Fatal(err)
	}
	dir, port := t.TempDir(), strconv.Itoa(freePort(t))
	from, to, _ := strings.Cut(p.address, ">")
	inner := strings.NewReplacer(append([]string{from, fmt.Sprintf(to, port)}, replacements...)...).Replace(string(lines))
	conf := strings.Replace(strings.NewReplacer("%[1]s", dir, "%[2]s", port).Replace(p.around), "LINES", inner, 1)
	if p.program == "nginx" && os.Getuid() == 0 {
		conf = "user root;\n" + conf
	}
	path := filepath.Join(dir, "conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	for _, arg := range p.args {
		cmd.Args = append(cmd.Args, strings.NewReplacer("CONF", path, "DIR", dir).Replace(arg))
	}
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	start(t, cmd)
	url = "http://127.0.0.1:" + port
	eventually(t, "the proxy answers", func() bool {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 200
	})
	return url
}

// TestProxies runs each web server as a reverse proxy with its configuration from dist, and checks that pages are served, that events
// are not buffered, and that clients are distinguished.
func TestProxies(t *testing.T) {
	t.Parallel()
	modules := ""
	for _, name := range []string{"mpm_event", "authz_core", "proxy", "proxy_http"} {
		modules += "LoadModule " + name + "_module /usr/lib/apache2/modules/mod_" + name + ".so\n"
	}
	for _, p := range []proxyServer{
		nginx,
		{"apache2", "apache.conf", "*:80>127.0.0.1:%s", "ServerRoot %[1]s\nListen 127.0.0.1:%[2]s\nPidFile %[1]s/pid\nErrorLog /dev/stderr\nServerName localhost\nUser nobody\nGroup nogroup\n" +
			modules + "LINES", []string{"-f", "CONF", "-DFOREGROUND"}},
		{"caddy", "Caddyfile", "status.example.org {>http://127.0.0.1:%s {", "{\n\tadmin off\n}\nLINES", []string{"run", "--config", "CONF", "--adapter", "caddyfile"}},
	} {
		t.Run(p.program, func(t *testing.T) {
			f := newFixture(t, nil)
			f.site.proxies = loopbackProxies
			f.register("")
			f.says("b", "", "")
			testProxy(t, f, p.start(t, "http://127.0.0.1:8080", f.web.URL, "127.0.0.1:8080", strings.TrimPrefix(f.web.URL, "http://")))
		})
	}
}

func testProxy(t *testing.T, f *fixture, url string) {
	resp, err := http.Get(url + julietPage + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if data := next(t, lines, "data"); !strings.Contains(data, `"available"`) {
		t.Error(data)
	}
	f.says("b", "", "<show>dnd</show>")
	if data := next(t, lines, "data"); !strings.Contains(data, `"dnd"`) {
		t.Error(data)
	}
}

// TestForwardedFor checks that X-Forwarded-For is used only if it comes from a trusted proxy, and that neither a forwarded address nor
// one that was translated by NAT64 is exempt from limits or a proxy.
func TestForwardedFor(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"127.0.0.1:1", "203.0.113.7", "203.0.113.7"}, {"127.0.0.1:1", "198.51.100.9, 203.0.113.7, 127.0.0.1", "203.0.113.7"},
		{"198.51.100.1:1", "203.0.113.7", "198.51.100.1"}, {"127.0.0.1:1", "", "invalid IP"}, {"@", "203.0.113.7", "203.0.113.7"}, {"[::1]:1", "rubbish", "invalid IP"},
		{"127.0.0.1:1", "2.2.2.2:4711", "2.2.2.2"}, {"127.0.0.1:1", "[2001:db8::1]:4711", "2001:db8::1"}, {"127.0.0.1:1", "[2001:db8::1]", "2001:db8::1"},
		{"127.0.0.1:1", "2001:db8::1", "2001:db8::1"}, {"127.0.0.1:1", "fe80::1%eth0", "fe80::1"}, {"127.0.0.1:1", "::ffff:2.2.2.2", "2.2.2.2"},
		{"127.0.0.1:1", "64:ff9b::202:202", "2.2.2.2"}, {"[64:ff9b::202:202]:1", "203.0.113.7", "2.2.2.2"}, {"[::ffff:127.0.0.1]:1", "203.0.113.7", "203.0.113.7"},
		{"127.0.0.1:1", "64:ff9b:1::202:202", "2.2.2.2"}, {"[64:ff9b:1:2:3:4:202:202]:1", "", "2.2.2.2"}, {"127.0.0.1:1", "64:ff9b:2::202:202", "64:ff9b:2::202:202"},
		{"[64:ff9b::7f00:1]:1", "203.0.113.7", "127.0.0.1"}, {"[64:ff9b:1::7f00:1]:1", "203.0.113.7", "127.0.0.1"}, {"127.0.0.1:1", "203.0.113.7, 64:ff9b::7f00:1", "127.0.0.1"},
		{"127.0.0.1:1", "127.0.0.1", "127.0.0.1"}, {"127.0.0.1:1", "rubbish, 127.0.0.1", "127.0.0.1"}, {"@", "::1", "::1"}, {"@", "127.0.0.1:80, [::1]:80", "127.0.0.1"},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{"X-Forwarded-For": {tt.forwarded}}}
		if got := f.site.client(r).String(); got != tt.want {
			t.Errorf("%s for %q is %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
	f.site.proxies = nil
	for remote, want := range map[string]string{"127.0.0.1:1": "invalid IP", "@": "invalid IP", "198.51.100.1:1": "198.51.100.1", "[64:ff9b::7f00:1]:1": "127.0.0.1"} {
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {"203.0.113.7"}, "Forwarded": {"for=203.0.113.7"}}}
		if got := f.site.client(r).String(); got != want {
			t.Errorf("without proxies, %s is %s, want %s", remote, got, want)
		}
	}
}

// TestForwarded reads the header Forwarded of trusted proxies (RFC 7239).
func TestForwarded(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	for _, tt := range []struct{ remote, forwarded, xff, want string }{
		{"127.0.0.1:1", "for=192.0.2.60;proto=http;by=203.0.113.43", "", "192.0.2.60"}, {"127.0.0.1:1", `For="[2001:db8:cafe::17]:4711"`, "", "2001:db8:cafe::17"},
		{"127.0.0.1:1", "for=192.0.2.43, for=198.51.100.17", "", "198.51.100.17"}, {"127.0.0.1:1", "for=198.51.100.17, for=127.0.0.1", "", "198.51.100.17"},
		{"127.0.0.1:1", "for=unknown", "", "invalid IP"}, {"127.0.0.1:1", "for=_hidden, for=_proxy", "", "invalid IP"}, {"127.0.0.1:1", "proto=http", "", "invalid IP"},
		{"127.0.0.1:1", `for=", for=192.0.2.60`, "", "192.0.2.60"}, {"127.0.0.1:1", "for=203.0.113.9", "192.0.2.60", "192.0.2.60"},
		{"198.51.100.1:1", "for=192.0.2.60", "", "198.51.100.1"},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{"Forwarded": {tt.forwarded}}}
		if tt.xff != "" {
			r.Header.Set("X-Forwarded-For", tt.xff)
		}
		if got := f.site.client(r).String(); got != tt.want {
			t.Errorf("%s for %q is %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
}
