package main

import (
	"fmt"
	"net/http"
	"testing"
)

// TestRation has a stranger ask for one large picture after the other. They are told to wait, but not what is there already, and
// nobody else.
func TestRation(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	f.register("")
	f.says("b", "", "")
	const stranger, other = "192.0.2.1", "192.0.2.2"
	ask := func(client, path string) *http.Response {
		t.Helper()
		resp, _ := f.get(path, "X-Forwarded-For", client)
		return resp
	}
	if resp := ask(stranger, julietPage); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	for i := 0; ; i++ {
		resp := ask(stranger, julietPage+fmt.Sprintf(".png?size=480&style=plastic&label=%060d", i))
		if resp.StatusCode == http.StatusTooManyRequests {
			if resp.Header.Get("Retry-After") == "" {
				t.Error("the stranger is not told when to come again")
			}
			break
		}
		if i > 1000 {
			t.Fatal("the stranger is given everything")
		}
	}
	for path, want := range map[string]int{julietPage: http.StatusOK, julietPage + "/embed": http.StatusTooManyRequests,
		statusPath + juliet + "/image": http.StatusTooManyRequests, "/presence/jid/juliet/example.org/image": http.StatusTooManyRequests,
		statusPath + "nobody.png": http.StatusTooManyRequests} {
		if resp := ask(stranger, path); resp.StatusCode != want {
			t.Errorf("%s: %s, not %d", path, resp.Status, want)
		}
	}
	if resp := ask(other, julietPage+".png?label=other"); resp.StatusCode != http.StatusOK {
		t.Errorf("somebody else: %s", resp.Status)
	}
}
