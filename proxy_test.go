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

// TestNginx puts nginx, with the lines that are handed out, in front of a website: events come at once, and readers are told apart.
func TestNginx(t *testing.T) {
	nginx := need(t, "nginx")
	f := newFixture(t, nil)
	f.site.proxies = append(f.site.proxies, loopbackProxies...)
	f.register("")
	f.says("b", "", "")
	content, err := os.ReadFile(filepath.Join("dist", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	dir, port := t.TempDir(), strconv.Itoa(freePort(t))
	server := strings.NewReplacer("listen 80;", "listen 127.0.0.1:"+port+";", "http://127.0.0.1:8080", f.web.URL).Replace(string(content))
	conf := fmt.Sprintf("daemon off;\npid %[1]s/pid;\nerror_log stderr;\nworker_processes 1;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/a;\nproxy_temp_path %[1]s/b;\n"+
		"fastcgi_temp_path %[1]s/c;\nuwsgi_temp_path %[1]s/d;\nscgi_temp_path %[1]s/e;\n%[2]s}\n", dir, server)
	if os.Getuid() == 0 {
		conf = "user root;\n" + conf
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command(nginx, "-c", path, "-p", dir, "-e", "stderr"))
	url := "http://127.0.0.1:" + port
	eventually(t, "nginx answers", func() bool {
		resp, err := http.Get(url + julietPage)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 200
	})
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
	for _, header := range []string{"203.0.113.7", "203.0.113.8"} {
		r, err := http.NewRequest("GET", url+julietPage, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("X-Forwarded-For", header+", 127.0.0.1") // as nginx adds it
		if got := f.site.client(r); got.String() != header {
			t.Errorf("%s is taken for %s", header, got)
		}
	}
}
