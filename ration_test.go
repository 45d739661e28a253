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
	ask := func(client, query string) *http.Response {
		t.Helper()
		req, err := http.NewRequest("GET", f.web.URL+julietPage+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", client)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	const stranger, other = "192.0.2.1", "192.0.2.2"
	if code := ask(stranger, "").StatusCode; code != http.StatusOK {
		t.Fatal(code)
	}
	for i := 0; ; i++ {
		resp := ask(stranger, fmt.Sprintf(".png?size=480&style=plastic&label=%060d", i))
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
	if code := ask(stranger, "").StatusCode; code != http.StatusOK {
		t.Errorf("%d for what is there already", code)
	}
	if code := ask(other, ".png?label=other").StatusCode; code != http.StatusOK {
		t.Errorf("%d for somebody else", code)
	}
}
